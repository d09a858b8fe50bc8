"""Rates at every milestone against numbers worked out by hand from the papers and the released configurations."""

from __future__ import annotations

import math

import pytest

from benchmark.core.optimisation import Cosine, Milestones, Schedule, WarmupCosine
from benchmark.data.datasets import DATASETS
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Recipe

RECIPES = find_recipes()
STEPWISE = [(0, 0.1), (29.999, 0.1), (30, 0.01), (59.999, 0.01), (60, 1e-3), (89.999, 1e-3), (90, 1e-4), (100, 1e-5)]
# recipe -> (epochs, [(epoch, lr of each player)])
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
    # 4.8 is reached in 10 epochs; half a cosine over the other 990
    "simclr": (1000, [(0, 0.0), (5, 2.4), (10, 4.8), (505, 2.4), (670, 1.2), (999.999, 0.0)]),
    "deepcluster": (500, [(0, 0.05), (499.999, 0.05)]),
    "rotation_alexnet": (30, [(0, 0.01), (9.999, 0.01), (10, 1e-3), (19.999, 1e-3), (20, 1e-4), (29.999, 1e-4)]),
    # of the labelled images, of which 128,117 make 500 batches an epoch, and 12,812 make 50
    "s4l_rotation_10pct": (
        200,
        [(0, 0.0), (2.5, 0.015), (5, 0.03), (139.99, 0.03), (140, 3e-3), (160, 3e-4), (180, 3e-5), (199.99, 3e-5)],
    ),
    "s4l_rotation_1pct": (
        1000,
        [(0, 0.0), (2.5, 5e-3), (5, 0.01), (699.9, 0.01), (700, 1e-3), (800, 1e-4), (900, 1e-5), (999.9, 1e-5)],
    ),
    # drops each 100,000 steps, of which 5,004 are an epoch
    "jigsaw_pp_pretext": (350_000 / 5004, [(0, 0.01), (19.98, 0.01), (19.99, 1e-3), (39.97, 1e-4), (59.96, 1e-5)]),
    "jigsaw_pp": (
        450_000 / 5004,
        [(0, 0.01), (19.98, 0.01), (19.99, 1e-3), (39.97, 1e-4), (59.96, 1e-5), (79.94, 1e-6), (89.9, 1e-6)],
    ),
    "random_init": (0, []),
    "random_init_alexnet": (0, []),
}


def steps_per_epoch(recipe: Recipe) -> int:
    name, pool = next(iter(recipe.pools.items()))
    images, _ = DATASETS[pool.dataset].SPLITS[pool.split]
    return round(images * pool.percent / 100) // recipe.batch_of(name)


@pytest.mark.parametrize("name", RECIPES)
def test_rates_at_every_milestone(name: str):
    epochs, milestones = BY_HAND[name]  # a new recipe needs its rates worked out here
    recipe = RECIPES[name]
    epoch_steps = steps_per_epoch(recipe)
    total = recipe.length.steps(epoch_steps)
    assert total == round(epochs * epoch_steps)
    for epoch, lr in milestones:
        step = min(math.ceil(epoch * epoch_steps), total - 1)
        for player, optimizer in recipe.optimizers.items():
            found = optimizer.lr * recipe.schedule_of(player).factor(step, total, epoch_steps)
            assert found == pytest.approx(lr, rel=2e-3, abs=1e-9), f"{player}, epoch {epoch}"


EPOCH = 100  # steps


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.optimizers])
def test_rates_move_only_at_milestones_or_smoothly(name: str):
    """Were an epoch of 100 steps, and steps fewer in proportion."""
    recipe = RECIPES[name]
    total = round(recipe.length.steps(steps_per_epoch(recipe)) / steps_per_epoch(recipe) * EPOCH)
    for schedule in map(recipe.schedule_of, recipe.optimizers):
        factors = [schedule.factor(step, total, EPOCH) for step in range(total)]
        starts_at_zero = schedule.warmup is not None and schedule.warmup.start_factor == 0
        assert all(0 < factor <= 1 for factor in factors[starts_at_zero:])
        moved = {step: abs(factors[step] - factors[step - 1]) for step in range(1, total)}
        jumps = {step for step, change in moved.items() if change > steepest(schedule, step, total)}
        milestones = schedule.at if isinstance(schedule, Milestones) else ()
        assert jumps == {point.steps(EPOCH, total) for point in milestones}


def steepest(schedule: Schedule, step: int, total: int) -> float:
    """What a warm-up, half a cosine, or a constant rate moves by in this step at the most."""
    warmup = schedule.warmup.span.steps(EPOCH, total) if schedule.warmup else 0
    warming = (1 - schedule.warmup.start_factor) / warmup if schedule.warmup and step <= warmup else 0.0
    after = warmup if isinstance(schedule, WarmupCosine) else 0
    falling = math.pi / 2 / (total - 1 - after) if isinstance(schedule, Cosine | WarmupCosine) else 0.0
    return 1e-9 + warming + falling
