"""Scales: the same code path for a laptop and a cluster.

paper: the recipe as its paper states it, on the real datasets.
desk:  the recipe with its own `desk` changes, on Toyland; minutes on 2 cores.
smoke: desk with a handful of steps; what the tests run over every recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from benchmark.core.optimisation import Steps
from benchmark.recipe.contract import Change, Recipe, recipe_hash, with_change

Scale = Literal["paper", "desk", "smoke"]
SCALES: tuple[Scale, ...] = get_args(Scale)

SMOKE = (
    Change("length", Steps(4), "enough steps to cross an epoch of the smoke world"),
    Change("batch_size", 16, "three steps an epoch"),
    Change("backbone.width", 0.0625, "seconds, not minutes"),
)


def at_scale(recipe: Recipe, scale: Scale) -> Recipe:
    """The recipe as it runs at `scale`. Raises UserError if one of its desk changes names no setting."""
    changes = {"paper": (), "desk": recipe.desk, "smoke": (*recipe.desk, *SMOKE)}[scale]
    for change in (*changes, *recipe.overrides):
        if change.key == "length" and recipe.length == Steps(0):
            continue  # what is never trained is not trained at smoke scale either
        recipe = with_change(recipe, change.key, change.value)
    return recipe


def hashes_at(recipes: Mapping[str, Recipe], scales: Sequence[Scale]) -> dict[tuple[str, str], str]:
    """(recipe, scale) -> hash of the recipe as it would run now."""
    return {(name, scale): recipe_hash(at_scale(recipe, scale)) for name, recipe in recipes.items() for scale in scales}
