"""What a recipe is: plain values, the paper's by default, and how rates follow from the step. Imports no torch.

A recipe file in `recipes/` holds one method: its settings in the paper's symbols, its module, and one module-level
`Recipe` value per named configuration. The variable's name is the recipe's name; nothing is registered.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from benchmark.errors import UserError
from benchmark.hints import at_least, fits, in_words


@dataclass(frozen=True)
class Epochs:
    """A length in passes over the pretraining images."""

    epochs: float

    def __post_init__(self) -> None:
        at_least(self, epochs=0)

    def steps(self, steps_per_epoch: int) -> int:
        return round(self.epochs * steps_per_epoch)


@dataclass(frozen=True)
class Steps:
    """A length in optimizer steps."""

    steps_total: int

    def __post_init__(self) -> None:
        at_least(self, steps_total=0)

    def steps(self, steps_per_epoch: int) -> int:
        return self.steps_total


Span = Epochs | Steps
Precision = Literal["fp32", "bf16"]  # bf16: forward passes and losses under torch.autocast; weights stay fp32


@dataclass(frozen=True)
class SGD:
    """torch.optim.SGD. lr is for the recipe's batch size; weight_decay_norm_and_bias says whether BatchNorm's
    parameters and the biases decay too."""

    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False
    weight_decay_norm_and_bias: bool = True


@dataclass(frozen=True)
class Adam:
    """torch.optim.Adam, or AdamW when the decay is decoupled."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    decoupled: bool = False
    weight_decay_norm_and_bias: bool = True


Optimizer = SGD | Adam


@dataclass(frozen=True)
class Warmup:
    """Linear from `start_factor` x rate to the rate over `span`."""

    span: Span
    start_factor: float


@dataclass(frozen=True)
class Constant:
    warmup: Warmup | None = None

    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """Multiplier of every optimizer's lr at `step` (0-based)."""
        return _warmed(self.warmup, 1.0, step, steps_per_epoch)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 at step 0 to `final_factor` at the last step."""

    final_factor: float = 0.0
    warmup: Warmup | None = None

    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        progress = min(step / max(total_steps - 1, 1), 1.0)
        cosine = self.final_factor + (1 - self.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))
        return _warmed(self.warmup, cosine, step, steps_per_epoch)


@dataclass(frozen=True)
class Milestones:
    """x `gamma` at each point of `at`."""

    at: tuple[Span, ...]
    gamma: float = 0.1
    warmup: Warmup | None = None

    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        passed = sum(step >= point.steps(steps_per_epoch) for point in self.at)
        return _warmed(self.warmup, self.gamma**passed, step, steps_per_epoch)


Schedule = Constant | Cosine | Milestones


def _warmed(warmup: Warmup | None, factor: float, step: int, steps_per_epoch: int) -> float:
    if warmup is None:
        return factor
    length = warmup.span.steps(steps_per_epoch)
    if step >= length:
        return factor
    return factor * (warmup.start_factor + (1 - warmup.start_factor) * step / length)


@dataclass(frozen=True)
class Architecture:
    """Which backbone, and how wide. `name` is a file's in benchmark/backbones; `norm` "group" makes a network whose
    output does not depend on how a batch is divided over processes. `zero_init_residual` starts each residual branch at
    zero (Goyal et al., arXiv:1706.02677), so that a deep network is a shallow one at first."""

    name: str
    width: float = 1.0
    norm: Literal["batch", "group"] = "batch"
    zero_init_residual: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.width < math.inf:
            raise UserError(f"Architecture: width must be more than 0, not {self.width!r}")


@dataclass(frozen=True)
class Settings:
    """Base of every method's settings: the fields are the paper's symbols.

    `views(image)` turns a PIL RGB image into what the method sees: a dict of tensors, images as uint8 (..., 3, H, W).
    It runs in a loader process with torch's random numbers seeded for that (seed, epoch, image), so any
    torchvision.transforms.v2 may be used. `build(backbone, num_images)` makes the module (benchmark.method.Method).
    """

    def views(self, image: Any) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__}.views")

    def build(self, backbone: Any, num_images: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__}.build")


@dataclass(frozen=True)
class Change:
    """One departure of the desk scale from the paper: a dotted key of the recipe, its value there, and why."""

    key: str
    value: Any
    why: str


@dataclass(frozen=True)
class Recipe:
    """One pretraining run, whole. Defaults are the paper's values; `desk` lists every departure of the desk scale."""

    title: str
    method: Settings
    backbone: Architecture
    data: str  # a dataset name of benchmark.data, its "train" split is used
    length: Span
    batch_size: int  # over all processes together
    optimizers: Mapping[str, Optimizer]  # by player; most methods have one, "main"
    schedule: Schedule
    image_size: int = 224  # side in pixels that the backbone was made for; transfers read it from the backbone file
    labels: bool = False  # whether batches carry labels; visible here because it is the exception
    precision: Precision = "fp32"
    seed: int = 0
    desk: tuple[Change, ...] = field(default=(), metadata={"resolved": False})
    # from the command line; they count at every scale, after the scale's own changes
    overrides: tuple[Change, ...] = field(default=(), metadata={"resolved": False})
    # what the paper says this run costs or reaches, one line, with its source
    reported: str = field(default="", metadata={"resolved": False})

    def __post_init__(self) -> None:
        at_least(self, batch_size=1, image_size=1, seed=0)


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
    hint = typing.get_type_hints(type(recipe))[head]
    if not fits(new, hint):
        raise UserError(f"setting {key!r} is {old!r}; {new!r} is of another kind, not {in_words(hint)}")
    return dataclasses.replace(recipe, **{head: new})  # type: ignore[type-var]


def as_plain(value: Any) -> Any:
    """Any recipe value as JSON-ready data; dataclasses keep their class name under "is"."""
    if is_dataclass(value) and not isinstance(value, type):
        kept = {f.name: as_plain(getattr(value, f.name)) for f in fields(value) if f.metadata.get("resolved", True)}
        return {"is": type(value).__name__, **kept}
    if isinstance(value, Mapping):
        return {key: as_plain(value[key]) for key in value}
    if isinstance(value, tuple | list):
        return [as_plain(item) for item in value]
    return value


def recipe_hash(recipe: Recipe) -> str:
    """Twelve hex digits of everything that decides the run. The title decides nothing; the seed is recorded beside."""
    plain = {key: value for key, value in as_plain(recipe).items() if key not in ("title", "seed")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def flat(recipe: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a recipe as (dotted key, value), in field order."""
    plain = recipe if isinstance(recipe, dict) else as_plain(recipe)
    for key, value in plain.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(one: Recipe, other: Recipe) -> list[tuple[str, Any, Any]]:
    """(key, value in one, value in other) wherever two recipes differ; None where one of them has no such key."""
    a, b = dict(flat(one)), dict(flat(other))
    return [(key, a.get(key), b.get(key)) for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
