"""Rates at every milestone against numbers worked out by hand from the papers and the released configurations."""

from __future__ import annotations

import math

import pytest

from benchmark.core.optimisation import Cosine, Milestones, Schedule
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Recipe

RECIPES = find_recipes()
IMAGENET = 1_281_167
STEPWISE = [(0, 0.1), (29.999, 0.1), (30, 0.01), (59.999, 0.01), (60, 1e-3), (89.999, 1e-3), (90, 1e-4), (100, 1e-5)]
# recipe -> (epochs, [(epoch, lr)])
BY_HAND: dict[str, tuple[float, list[tuple[float, float]]]] = {
    "pirl": (800, [(0, 0.12), (400, (0.12 + 1.2e-4) / 2), (799.9999, 1.2e-4)]),
    "npid_pp": (
        800,
        [(0, 0.12), (200, 1.2e-4 + (0.12 - 1.2e-4) * (1 + math.cos(math.pi / 4)) / 2), (799.9999, 1.2e-4)],
    ),
    "pirl_jigsaw": (400, [(0, 0.12), (200, (0.12 + 1.2e-4) / 2), (399.9999, 1.2e-4)]),
    "pirl_rotation": (400, [(0, 0.12), (200, (0.12 + 1.2e-4) / 2), (399.9999, 1.2e-4)]),
    "pirl_rotation_jigsaw": (400, [(0, 0.12), (200, (0.12 + 1.2e-4) / 2), (399.9999, 1.2e-4)]),
    "npid": (200, [(0, 0.03), (119.999, 0.03), (120, 0.003), (159.999, 0.003), (160, 3e-4), (199.999, 3e-4)]),
    "rotation": (105, STEPWISE),
    "jigsaw": (105, [(0, 0.025), (2.5, 0.0625), (5, 0.1), *STEPWISE[1:]]),
    "supervised": (90, [(0, 0.01), (2.5, 0.055), (5, 0.1), (29.999, 0.1), (30, 0.01), (60, 1e-3), (80, 1e-4)]),
    # epochs of the labelled images
    "s4l_rotation_10pct": (
        200,
        [(0, 0), (2.5, 0.015), (5, 0.03), (139.999, 0.03), (140, 0.003), (160, 3e-4), (180, 3e-5), (199.999, 3e-5)],
    ),
    "s4l_rotation_1pct": (
        1000,
        [(0, 0), (2.5, 0.005), (5, 0.01), (699.999, 0.01), (700, 0.001), (800, 1e-4), (900, 1e-5), (999.999, 1e-5)],
    ),
    "random_init": (0, []),
}


def rate(recipe: Recipe, epoch: float) -> float:
    steps_per_epoch = IMAGENET // recipe.batch_size
    total = recipe.length.steps(steps_per_epoch)
    step = math.ceil(epoch * steps_per_epoch)
    return recipe.optimizers["main"].lr * recipe.schedule.factor(min(step, total - 1), total, steps_per_epoch)


@pytest.mark.parametrize("name", RECIPES)
def test_rates_at_every_milestone(name: str):
    epochs, milestones = BY_HAND[name]  # a new recipe needs its rates worked out here
    recipe = RECIPES[name]
    assert recipe.length.steps(1000) == epochs * 1000
    for epoch, lr in milestones:
        assert rate(recipe, epoch) == pytest.approx(lr, rel=2e-3), f"epoch {epoch}"


EPOCH = 100  # steps


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.optimizers])
def test_rates_move_only_at_milestones_or_smoothly(name: str):
    schedule, total = RECIPES[name].schedule, RECIPES[name].length.steps(EPOCH)
    factors = [schedule.factor(step, total, EPOCH) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors[1:])
    assert 0 <= factors[0] <= 1
    moved = {step: abs(factors[step] - factors[step - 1]) for step in range(1, total)}
    jumps = {step for step, change in moved.items() if change > steepest(schedule, step, total)}
    milestones = schedule.at if isinstance(schedule, Milestones) else ()
    assert jumps == {point.steps(EPOCH, total) for point in milestones}


def steepest(schedule: Schedule, step: int, total: int) -> float:
    """What a warm-up, half a cosine, or a constant rate moves by in this step at the most."""
    warmup = schedule.warmup.span.steps(EPOCH, total) if schedule.warmup else 0
    warming = (1 - schedule.warmup.start_factor) / warmup if schedule.warmup and step <= warmup else 0.0
    falling = math.pi / 2 / (total - 1) if isinstance(schedule, Cosine) else 0.0
    return 1e-9 + warming + falling
