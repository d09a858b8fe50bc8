"""Rates at every milestone against numbers worked out by hand from the papers and the released configurations."""

from __future__ import annotations

import math

import pytest

from benchmark.core.optimisation import SGD, Cosine, Milestones, Schedule, WarmupCosine
from benchmark.data.datasets import DATASETS
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Recipe

RECIPES = find_recipes()
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
    "rotation_alexnet": (30, [(0, 0.01), (9.999, 0.01), (10, 1e-3), (19.999, 1e-3), (20, 1e-4), (29.999, 1e-4)]),
    "jigsaw": (105, [(0, 0.025), (2.5, 0.0625), (5, 0.1), *STEPWISE[1:]]),
    "supervised": (90, [(0, 0.01), (2.5, 0.055), (5, 0.1), (29.999, 0.1), (30, 0.01), (60, 1e-3), (80, 1e-4)]),
    "simclr": (
        1000,
        [(0, 0.0), (5, 2.4), (10, 4.8), (257.5, 2.4 * (1 + math.cos(math.pi / 4))), (505, 2.4), (670, 1.2)],
    ),
    **dict.fromkeys(
        ("simclr_100ep", "simclr_100ep_no_jitter"),
        (100, [(0, 0.0), (5, 2.4), (10, 4.8), (32.5, 2.4 * (1 + math.cos(math.pi / 4))), (55, 2.4), (70, 1.2)]),
    ),
    **{
        name: (200, [(0, 0.0), (5, lr / 2), (10, lr), (57.5, lr / 2 * (1 + math.cos(math.pi / 4))), (105, lr / 2)])
        for name, lr in (("simclr_200ep_b256", 0.3), ("simclr_200ep_b8192", 9.6))
    },
    "simclr_v2": (800, [(0, 0.0), (20, 3.2), (40, 6.4), (230, 3.2 * (1 + math.cos(math.pi / 4))), (420, 3.2)]),
    "moco": (200, [(0, 0.03), (119.999, 0.03), (120, 0.003), (159.999, 0.003), (160, 3e-4), (199.999, 3e-4)]),
    "moco_v2": (200, [(0, 0.03), (50, 0.015 * (1 + math.cos(math.pi / 4))), (100, 0.015)]),
    "moco_v2_800ep": (800, [(0, 0.03), (200, 0.015 * (1 + math.cos(math.pi / 4))), (400, 0.015)]),
    # linear in the batch: 1,024 and 64, where MoCo's 0.03 is of 256
    "moco_end_to_end": (200, [(0, 0.12), (119.999, 0.12), (120, 0.012), (160, 1.2e-3), (199.999, 1.2e-3)]),
    "moco_end_to_end_k64": (200, [(0, 0.0075), (119.999, 0.0075), (120, 7.5e-4), (160, 7.5e-5), (199.999, 7.5e-5)]),
    "cpc": (200, [(0, 2e-4), (199.999, 2e-4)]),
    "cpc_v2": (500, [(0, 4e-4), (499.999, 4e-4)]),
    "supcon": (
        350,
        [(0, 0.0), (6, 4.8), (12, 9.6), (12 + 338 / 3, 7.2), (181, 4.8), (12 + 338 * 2 / 3, 2.4)],
    ),
    "random_init": (0, []),
    "descriptors": (0, []),
    **dict.fromkeys(("deepcluster", "deepcluster_100", "deepcluster_1000"), (500, [(0, 0.05), (499.999, 0.05)])),
    # epochs of the labelled images
    "s4l_rotation_10pct": (
        200,
        [(0, 0.0), (2.5, 0.015), (5, 0.03), (139.99, 0.03), (140, 3e-3), (160, 3e-4), (180, 3e-5)],
    ),
    "s4l_rotation_1pct": (
        1000,
        [(0, 0.0), (2.5, 0.005), (5, 0.01), (699.9, 0.01), (700, 1e-3), (800, 1e-4), (900, 1e-5)],
    ),
    "ren_lee": (30, [(0, 1e-3), (17.999, 1e-3), (18, 1e-4), (26.999, 1e-4), (27, 1e-5), (29.999, 1e-5)]),
    "random_init_alexnet": (0, []),
    "random_init_alex64": (0, []),
    "random_alexnet": (0, []),
    "random_rescaled": (0, []),
    "random_rescaled_pca": (0, []),
    "random_rescaled_gaussian": (0, []),
    "cmc": (240, [(0, 0.03), (119.999, 0.03), (120, 3e-3), (160, 3e-4), (199.999, 3e-4), (200, 3e-5), (239.999, 3e-5)]),
    # at a constant rate
    **dict.fromkeys(
        ("dim_local", "dim_local_nce", "dim_global", "supervised_tiny_imagenet", "nat", "vae", "aae"),
        (200, [(0, 1e-4), (199.999, 1e-4)]),
    ),
    "bigan": (200, [(0, 2e-4), (199.999, 2e-4)]),
    "npid_alexnet": (200, [(0, 0.03), (119.999, 0.03), (120, 0.003), (159.999, 0.003), (160, 3e-4), (199.999, 3e-4)]),
}
# recipe -> (steps, [(step, lr)]), where the papers count steps
BY_HAND_IN_STEPS: dict[str, tuple[int, list[tuple[int, float]]]] = {
    "context_prediction": (1_000_000, [(0, 0.01536), (999_999, 0.01536)]),  # 1e-5 x 1,536 pairs
    "jigsaw_alexnet": (
        350_000,
        [(0, 0.01), (99_999, 0.01), (100_000, 1e-3), (200_000, 1e-4), (299_999, 1e-4), (300_000, 1e-5)],
    ),
    "wang_gupta": (
        400_000,
        [(0, 1e-3), (99_999, 1e-3), (100_000, 1e-4), (200_000, 1e-5), (300_000, 1e-6), (399_999, 1e-6)],
    ),
    "supervised_alexnet": (
        310_000,
        [(0, 0.01), (99_999, 0.01), (100_000, 1e-3), (199_999, 1e-3), (200_000, 1e-4), (300_000, 1e-5)],
    ),
    "supervised_places": (300_000, [(0, 0.01), (99_999, 0.01), (100_000, 1e-3), (200_000, 1e-4), (299_999, 1e-4)]),
    "jigsaw_pp": (
        350_000,
        [(0, 0.01), (99_999, 0.01), (100_000, 1e-3), (200_000, 1e-4), (299_999, 1e-4), (300_000, 1e-5)],
    ),
    "cc_jigsaw_pp": (
        450_000,
        [(0, 0.01), (99_999, 0.01), (100_000, 1e-3), (200_000, 1e-4), (300_000, 1e-5), (400_000, 1e-6)],
    ),
}
MOCOS_RATES = (
    *("moco_k64", "moco_k256", "moco_k1024", "moco_end_to_end_k256", "moco_v2_mlp", "moco_v2_aug", "moco_v2_mlp_aug"),
    *("moco_memory_bank", "moco_memory_bank_k64", "moco_memory_bank_k256", "moco_memory_bank_k1024"),
    *("moco_2x", "moco_4x", "moco_resnext50"),
)
BY_HAND |= dict.fromkeys(MOCOS_RATES, BY_HAND["moco"])
BY_HAND |= {"simclr_2x": BY_HAND["simclr"], "simclr_4x": BY_HAND["simclr"], "cpc_v2_resnet50": BY_HAND["cpc_v2"]}
BY_HAND |= {
    "pcl": BY_HAND["moco"],
    "pcl_v2": BY_HAND["moco_v2"],
    "pirl_c2x": BY_HAND["pirl"],
    "pirl_ens": BY_HAND["pirl"],
}
BY_HAND |= {
    "simclr_v2_10pct": (30, [(0, 0.16), (7.5, 0.08 * (1 + math.cos(math.pi / 4))), (15, 0.08)]),
    "simclr_v2_1pct": (60, [(0, 0.16), (15, 0.08 * (1 + math.cos(math.pi / 4))), (30, 0.08)]),
    **dict.fromkeys(
        [name for name in RECIPES if name.startswith(("simclr_v2_distilled", "simclr_v2_labels"))],
        (400, [(0, 0.0), (10, 3.2), (20, 6.4), (115, 3.2 * (1 + math.cos(math.pi / 4))), (210, 3.2)]),
    ),
}
BY_HAND |= dict.fromkeys(("simclr_v2_memory", "simclr_v2_2x_sk"), BY_HAND["simclr_v2"])
BY_HAND |= {"cmc_alexnet": BY_HAND["cmc"], "cmc_2x": BY_HAND["cmc"]}
BY_HAND |= {"pirl_yfcc": BY_HAND["pirl"], "jigsaw_yfcc": BY_HAND["jigsaw"]}
BY_HAND_IN_STEPS |= {name: BY_HAND_IN_STEPS["jigsaw_alexnet"] for name in RECIPES if name.startswith("jigsaw_alexnet_")}


def rate(recipe: Recipe, epoch: float) -> float:
    pool = next(iter(recipe.pools.values()))
    images = DATASETS[pool.dataset].SPLITS[pool.split][0]
    steps_per_epoch = round(images * pool.percent / 100) // recipe.batch_size
    total = recipe.length.steps(steps_per_epoch)
    step = math.ceil(epoch * steps_per_epoch)
    return recipe.optimizers["main"].lr * recipe.schedule.factor(min(step, total - 1), total, steps_per_epoch)


def test_every_recipe_has_its_rates_by_hand():
    assert BY_HAND.keys() | BY_HAND_IN_STEPS.keys() == RECIPES.keys()  # a new recipe needs its rates worked out here


@pytest.mark.parametrize("name", BY_HAND_IN_STEPS)
def test_rates_at_every_milestone_in_steps(name: str):
    total, milestones = BY_HAND_IN_STEPS[name]
    recipe = RECIPES[name]
    assert recipe.length.steps(1000) == total
    for step, lr in milestones:
        assert recipe.optimizers["main"].lr * recipe.schedule.factor(step, total, 5004) == pytest.approx(lr)


@pytest.mark.parametrize("name", BY_HAND)
def test_rates_at_every_milestone(name: str):
    epochs, milestones = BY_HAND[name]
    recipe = RECIPES[name]
    assert recipe.length.steps(1000) == epochs * 1000
    for epoch, lr in milestones:
        assert rate(recipe, epoch) == pytest.approx(lr, rel=2e-3), f"epoch {epoch}"


@pytest.mark.parametrize(
    "name", ["jigsaw_alexnet", "jigsaw_pp", "cc_jigsaw_pp", "supervised_alexnet", "supervised_places"]
)
def test_caffes_networks_are_trained_by_caffes_solver(name: str):
    """CaffeNet's and the context-free network's prototxts: biases have lr_mult 2 and decay_mult 0."""
    recipe = RECIPES[name]
    assert recipe.batch_size == 256
    assert recipe.optimizers == {"main": SGD(lr=0.01, momentum=0.9, weight_decay=5e-4, decays="weights", bias_rate=2.0)}


EPOCH = 100  # steps


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.optimizers])
def test_rates_move_only_at_milestones_or_smoothly(name: str):
    schedule, total = RECIPES[name].schedule, RECIPES[name].length.steps(EPOCH)
    factors = [schedule.factor(step, total, EPOCH) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors[1:])  # a warm-up may start at 0
    moved = {step: abs(factors[step] - factors[step - 1]) for step in range(1, total)}
    jumps = {step for step, change in moved.items() if change > steepest(schedule, step, total)}
    milestones = schedule.at if isinstance(schedule, Milestones) else ()
    assert jumps == {point.steps(EPOCH, total) for point in milestones}


def steepest(schedule: Schedule, step: int, total: int) -> float:
    """What a warm-up, half a cosine, or a constant rate moves by in this step at the most."""
    warmup = schedule.warmup.span.steps(EPOCH, total) if schedule.warmup else 0
    warming = (1 - schedule.warmup.start_factor) / warmup if schedule.warmup and step <= warmup else 0.0
    length = total - warmup if isinstance(schedule, WarmupCosine) else total - 1
    falling = math.pi / 2 / length if isinstance(schedule, Cosine | WarmupCosine) else 0.0
    return 1e-9 + warming + falling
