"""Scales: the same code path for a laptop and a cluster.

paper: the recipe as its paper states it, on the real datasets.
desk:  the recipe with its own `desk` changes, on Toyland; minutes on 2 cores.
smoke: desk with a handful of steps; what the tests run over every recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

from benchmark.core.errors import UserError
from benchmark.core.optimisation import Adam, Epochs, Steps
from benchmark.core.plain import all_misfits, on_one_line
from benchmark.recipe.contract import Change, Recipe, recipe_hash, value_at, with_change
from benchmark.recipe.pools import Pool

Scale = Literal["paper", "desk", "smoke"]
SCALES: tuple[Scale, ...] = get_args(Scale)

# What every desk recipe changes. What is a recipe's own it adds behind, and what comes later counts.
DESK_SIZE = Change("input.size", 64, "the image size of every desk recipe")
DESK_NETWORK = (Change("backbone.width", 0.25, "a quarter of the width, as in every desk recipe"), DESK_SIZE)
DESK = (
    *DESK_NETWORK,
    Change("batch_size", 32, "62 steps an epoch on 2,000 images"),
    Change("precision", "bf16", "trains nearly twice as fast"),
    Change("length", Epochs(40), "trains in minutes"),
    Change(
        "optimizers.main",
        Adam(lr=1e-3, weight_decay=1e-4, decoupled=True),
        "needs far fewer steps",
    ),
)
DESK_RESNET = (
    *DESK,
    Change("backbone.zero_init_residual", True, "without it, 50 layers learn nothing in 2,000 steps"),
)

SMOKE = (
    Change("length", Steps(4), "enough steps to cross an epoch of the smoke world"),
    Change("batch_size", 16, "three steps an epoch"),
    Change("backbone.width", 0.0625, "seconds, not minutes"),
)
# of each pool that is a part of its dataset
SMOKE_PART = Change("batch_size", 4, "a few per cent of the smoke world are one image of each class")


def desk_against_paper(recipe: Recipe) -> list[tuple[str, str, str, str]]:
    """(key, the paper's value, desk's, why) of everything that desk scale changes, the values on one line each."""
    told: dict[str, tuple[str, str, str]] = {}
    for change in recipe.desk:
        old = told[change.key][0] if change.key in told else on_one_line(value_at(recipe, change.key))
        recipe = with_change(recipe, change.key, change.value)
        told[change.key] = (old, on_one_line(change.value), change.why)
    return [(key, *rest) for key, rest in told.items()]


def at_scale(recipe: Recipe, scale: Scale) -> Recipe:
    """The recipe as it runs at `scale`. Raises UserError if one of its desk changes names no setting, or a value is of
    another type than its field."""
    _check(recipe)
    changes = {"paper": (), "desk": recipe.desk, "smoke": (*recipe.desk, *SMOKE, *_small_parts(recipe))}[scale]
    for change in (*changes, *recipe.overrides):
        if change.key == "length" and recipe.length == Steps(0):
            continue  # what is never trained is not trained at smoke scale either
        if change in SMOKE and change.key == "backbone.width" and not hasattr(recipe.backbone, "width"):
            continue  # what has no width is no smaller
        recipe = with_change(recipe, change.key, change.value)
    _check(recipe)
    return recipe


def _check(recipe: Recipe) -> None:
    if faults := list(all_misfits(recipe)):
        raise UserError(f"{recipe.title}: {'; '.join(faults)}")


def _small_parts(recipe: Recipe) -> Iterator[Change]:
    for name, pool in recipe.pools.items():
        if pool.percent < 100:
            key = "data" if isinstance(recipe.data, Pool) else f"data.{name}"
            yield replace(SMOKE_PART, key=f"{key}.{SMOKE_PART.key}")


def hashes_at(recipes: Mapping[str, Recipe], scales: Sequence[Scale]) -> dict[tuple[str, str], str]:
    """(recipe, scale) -> hash of the recipe as it would run now."""
    return {(name, scale): recipe_hash(at_scale(recipe, scale)) for name, recipe in recipes.items() for scale in scales}
