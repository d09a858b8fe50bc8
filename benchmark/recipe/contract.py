"""What a recipe is: plain values, which by default are the paper's. Imports no torch.

A recipe file in `recipes/` holds one method: its settings under the paper's symbols, its module, and a module-level
`Recipe` value for each configuration. The variable's name is the recipe's name. Nothing is registered.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Protocol, TypeVar

from benchmark.core.bounds import check_bounds
from benchmark.core.errors import UserError
from benchmark.core.optimisation import Optimizer, Precision, Schedule, Span
from benchmark.core.plain import as_plain, at_least, fits, hints_of, in_words
from benchmark.recipe.inputs import InputSpec
from benchmark.recipe.pools import Given, Order, Pool, Shuffled

Ancestor = TypeVar("Ancestor", bound="Architecture")


@dataclass(frozen=True)
class Architecture:
    """Base of architectures: values that build themselves (benchmark.backbones), found by scanning that folder."""

    def build(self, spec: InputSpec) -> Any:
        """A freshly initialised benchmark.backbones.contract.Backbone for such input."""
        raise NotImplementedError(f"{type(self).__name__}.build")

    @property
    def title(self) -> str:
        """As papers call it."""
        return type(self).__name__

    def as_kind(self, kind: type[Ancestor]) -> Ancestor:
        """An architecture of a class whose fields are all this one's, with the same values."""
        return kind(**{f.name: getattr(self, f.name) for f in fields(kind)})


class OpenImage(Protocol):
    def __call__(self, index: int, kind: str = "") -> Any:
        """The pool's image of that number as RGB; or with a kind of map (Pool.maps), that map of it, as it is stored.
        Numbers go round, so that a large random number opens an image at random."""
        ...


@dataclass(frozen=True)
class Settings:
    """Base of every method's settings. The fields are the paper's symbols, and their hints may say which numbers they
    can be (benchmark.core.bounds); UserError for others.

    Views are made in a loader process with torch's random numbers seeded for that (seed, epoch, image), so any
    torchvision.transforms.v2 may be used.
    """

    def __post_init__(self) -> None:
        check_bounds(self)

    def views(self, image: Any, spec: InputSpec) -> dict[str, Any]:
        """A PIL RGB image -> what the method sees: tensors by name, images as uint8 (..., 3, H, W). A method that looks
        at no image has none."""
        raise NotImplementedError(f"{type(self).__name__}.views")

    def sample(self, open_image: OpenImage, index: int, spec: InputSpec) -> dict[str, Any]:
        """For a sample of more than one image, such as two frames of a video, or of an image and its maps."""
        return self.views(open_image(index), spec)

    def still(self, image: Any, spec: InputSpec) -> dict[str, Any]:
        """A view in which nothing is random, for looking at all images alike: the protocols' centre crop."""
        from torchvision.transforms.v2 import functional as F

        whole = F.resize(image, [round(spec.size * 256 / 224)])
        return {"image": F.pil_to_tensor(F.center_crop(whole, [spec.size]))}

    def build(self, backbone: Any, given: Given) -> Any:
        """The method (benchmark.method.Method)."""
        raise NotImplementedError(f"{type(self).__name__}.build")


@dataclass(frozen=True)
class Change:
    """One thing that the desk scale does differently: a dotted key of the recipe, its value there, and the reason.

    drawn: it suits 2,000 drawn pictures, and photographs do without it. The others make the run small: network, size,
           optimizer, precision; scale `photos` takes these alone.
    """

    key: str
    value: Any
    why: str
    drawn: bool = False


@dataclass(frozen=True)
class Recipe:
    """All of one pretraining run. The values are the paper's; `desk` lists everything that the desk scale changes."""

    title: str
    method: Settings
    backbone: Architecture
    data: Pool | Mapping[str, Pool]  # several by name: an epoch is one of the first
    length: Span
    batch_size: int  # over all processes together
    optimizers: Mapping[str, Optimizer]  # by player; most methods have one, "main"
    schedule: Schedule | Mapping[str, Schedule]  # of all players, or by player
    input: InputSpec = field(default_factory=InputSpec)  # transfers read it from the backbone file
    order: Order = field(default_factory=Shuffled)
    after: Mapping[str, str] = field(default_factory=dict)  # name -> the recipe whose backbone this one is given
    precision: Precision = "fp32"
    seed: int = 0
    desk: tuple[Change, ...] = field(default=(), metadata={"resolved": False})
    # from the command line; they apply at every scale, after the scale's own changes
    overrides: tuple[Change, ...] = field(default=(), metadata={"resolved": False})
    # what this run reaches or costs according to the paper, in one line and with its source
    reported: str = field(default="", metadata={"resolved": False})

    def __post_init__(self) -> None:
        at_least(self, batch_size=1, seed=0)
        if not self.data:
            raise UserError(f"{self.title}: data names no pool of images")

    @property
    def pools(self) -> Mapping[str, Pool]:
        """By name; a single one is called "main"."""
        return {"main": self.data} if isinstance(self.data, Pool) else self.data

    def batch_of(self, pool: str) -> int:
        """Batch size of a pool, over all processes."""
        return self.pools[pool].batch_size or self.batch_size

    def schedule_of(self, player: str) -> Schedule:
        return self.schedule[player] if isinstance(self.schedule, Mapping) else self.schedule


def value_at(recipe: Any, key: str) -> Any:
    """The value at a dotted key, e.g. "method.tau"."""
    for part in key.split("."):
        recipe = recipe[part] if isinstance(recipe, Mapping) else getattr(recipe, part)
    return recipe


def with_change(recipe: Any, key: str, value: Any) -> Any:
    """A copy of `recipe` with the dotted `key` set, e.g. ("method.tau", 0.1) or ("optimizers.main.lr", 0.03).

    Raises UserError for a key that does not exist or a value of another kind.
    """
    head, _, rest = key.partition(".")
    if isinstance(recipe, Mapping):
        if head not in recipe:
            raise UserError(f"no {head!r} here; there are: {', '.join(recipe)}")
        return {**recipe, head: with_change(recipe[head], rest, value) if rest else value}
    if not is_dataclass(recipe) or head not in {f.name for f in fields(recipe)}:
        known = ", ".join(f.name for f in fields(recipe)) if is_dataclass(recipe) else "nothing below a plain value"
        raise UserError(f"{type(recipe).__name__} has no setting {head!r}; it has: {known}")
    old = getattr(recipe, head)
    new = with_change(old, rest, value) if rest else value
    hint = hints_of(type(recipe))[head]
    if not fits(new, hint):
        raise UserError(f"setting {key!r} is {old!r}; {new!r} has the wrong type; expected {in_words(hint)}")
    return dataclasses.replace(recipe, **{head: new})  # type: ignore[type-var]


def recipe_hash(recipe: Recipe) -> str:
    """Twelve hex digits of everything that decides the run. The title decides nothing, and the seed is recorded by
    itself."""
    plain = {key: value for key, value in as_plain(recipe).items() if key not in ("title", "seed")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]
