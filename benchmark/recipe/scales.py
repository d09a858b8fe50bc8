"""Scales: the same code path for a laptop and a cluster.

paper: the recipe as its paper states it, on the real datasets.
desk:  the recipe with its own `desk` changes, on Toyland; minutes on 2 cores.
smoke: desk with a handful of steps; what the tests run over every recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, get_args

from benchmark.core.optimisation import Adam, Epochs, Steps
from benchmark.recipe.contract import Change, Recipe, recipe_hash, with_change
from benchmark.recipe.pools import Pool

Scale = Literal["paper", "desk", "smoke"]
SCALES: tuple[Scale, ...] = get_args(Scale)

# What every desk recipe changes. What is a recipe's own it adds behind, and what comes later counts.
DESK_NETWORK = (
    Change("backbone.width", 0.25, "the width of every desk recipe"),
    Change("input.size", 64, "the size of every desk recipe"),
)
DESK = (
    *DESK_NETWORK,
    Change("batch_size", 32, "62 steps an epoch over 2,000 images"),
    Change("precision", "bf16", "nearly twice the speed"),
    Change("length", Epochs(40), "minutes"),
    Change("optimizers.main", Adam(lr=1e-3, weight_decay=1e-4, decoupled=True), "SGD needs far more steps"),
)
DESK_RESNET = (
    *DESK,
    Change("backbone.zero_init_residual", True, "50 layers learn nothing in 2,000 steps without"),
)

SMOKE = (
    Change("length", Steps(4), "enough steps to cross an epoch of the smoke world"),
    Change("batch_size", 16, "three steps an epoch"),
    Change("backbone.width", 0.0625, "seconds, not minutes"),
)


def at_scale(recipe: Recipe, scale: Scale) -> Recipe:
    """The recipe as it runs at `scale`. Raises UserError if one of its desk changes names no setting."""
    changes = {"paper": (), "desk": recipe.desk, "smoke": (*recipe.desk, *SMOKE, *_small_parts(recipe))}[scale]
    for change in (*changes, *recipe.overrides):
        if change.key == "length" and recipe.length == Steps(0):
            continue  # what is never trained is not trained at smoke scale either
        recipe = with_change(recipe, change.key, change.value)
    return recipe


def _small_parts(recipe: Recipe) -> Iterator[Change]:
    for name, pool in recipe.pools.items():
        if pool.percent < 100:
            key = "data" if isinstance(recipe.data, Pool) else f"data.{name}"
            yield Change(f"{key}.batch_size", 4, "a few per cent of the smoke world are one image of each class")


def hashes_at(recipes: Mapping[str, Recipe], scales: Sequence[Scale]) -> dict[tuple[str, str], str]:
    """(recipe, scale) -> hash of the recipe as it would run now."""
    return {(name, scale): recipe_hash(at_scale(recipe, scale)) for name, recipe in recipes.items() for scale in scales}
