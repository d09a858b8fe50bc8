"""What a recipe is: plain values, which by default are the paper's. Imports no torch.

A recipe file in `recipes/` holds one method: its settings under the paper's symbols, its module, and a module-level
`Recipe` value for each configuration. The variable's name is the recipe's name. Nothing is registered.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from benchmark.core.errors import UserError
from benchmark.core.optimisation import Optimizer, Precision, Schedule, Span
from benchmark.core.plain import as_plain, at_least, fits, in_words


@dataclass(frozen=True)
class Architecture:
    """Which backbone, and how wide.

    name:  one of those in benchmark/backbones.
    norm:  "group" makes a network whose output does not depend on how a batch is divided over processes.
    zero_init_residual: each residual branch starts at zero, so that a deep network begins as a shallow one (Goyal et
           al., arXiv:1706.02677).
    """

    name: str
    width: float = 1.0
    norm: Literal["batch", "group"] = "batch"
    zero_init_residual: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.width < math.inf:
            raise UserError(f"Architecture: width must be more than 0, not {self.width!r}")


@dataclass(frozen=True)
class Settings:
    """Base of every method's settings. The fields are the paper's symbols.

    `views(image)` turns a PIL RGB image into what the method sees: a dict of tensors, with images as uint8
    (..., 3, H, W). It runs in a loader process, where torch has been seeded for this (seed, epoch, image), so any
    transform of torchvision.transforms.v2 may be used. `build(backbone, num_images)` makes the module, a
    benchmark.method.Method.
    """

    def views(self, image: Any) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__}.views")

    def build(self, backbone: Any, num_images: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__}.build")


@dataclass(frozen=True)
class Change:
    """One thing that the desk scale does differently: a dotted key of the recipe, its value there, and the reason."""

    key: str
    value: Any
    why: str


@dataclass(frozen=True)
class Recipe:
    """All of one pretraining run. The values are the paper's; `desk` lists everything that the desk scale changes."""

    title: str
    method: Settings
    backbone: Architecture
    data: str  # the name of a dataset in benchmark.data; its "train" split is used
    length: Span
    batch_size: int  # over all processes together
    optimizers: Mapping[str, Optimizer]  # by player; most methods have one, "main"
    schedule: Schedule
    image_size: int = 224  # side in pixels that the backbone is made for; transfers read it from the backbone file
    labels: bool = False  # whether batches carry labels; stated here because it is the exception
    precision: Precision = "fp32"
    seed: int = 0
    desk: tuple[Change, ...] = field(default=(), metadata={"resolved": False})
    # from the command line; they apply at every scale, after the scale's own changes
    overrides: tuple[Change, ...] = field(default=(), metadata={"resolved": False})
    # what this run reaches or costs according to the paper, in one line and with its source
    reported: str = field(default="", metadata={"resolved": False})

    def __post_init__(self) -> None:
        at_least(self, batch_size=1, image_size=1, seed=0)


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
    hint = typing.get_type_hints(type(recipe))[head]
    if not fits(new, hint):
        raise UserError(f"setting {key!r} is {old!r}; {new!r} is of another kind, not {in_words(hint)}")
    return dataclasses.replace(recipe, **{head: new})  # type: ignore[type-var]


def recipe_hash(recipe: Recipe) -> str:
    """Twelve hex digits of everything that decides the run. The title decides nothing, and the seed is recorded by
    itself."""
    plain = {key: value for key, value in as_plain(recipe).items() if key not in ("title", "seed")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]
