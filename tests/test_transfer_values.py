"""Each protocol's rates at every milestone, by hand from the papers, on the real datasets' sizes."""

from __future__ import annotations

import pytest

from benchmark.transfers import find_transfers
from benchmark.transfers.linear import LinearTransfer
from benchmark.transfers.semi_supervised import SemiSupervised
from benchmark.transfers.voc_svm import VocSvm

IMAGENET, PLACES, INAT = 1_281_167, 2_448_873, 437_513
STEPS = {IMAGENET: 5004, PLACES: 9565, INAT: 1709}  # an epoch at batch 256

LINEAR = [  # id, images, {last step before a drop: rate}, steps in all
    ("linear_imagenet_pirl", IMAGENET, {46703: 1e-2, 93407: 1e-3, 140111: 1e-4}, 28 * 5004),
    ("linear_places205_pirl", PLACES, {44636: 1e-2, 89272: 1e-3, 133909: 1e-4}, 14 * 9565),
    ("linear_inat18_pirl", INAT, {28 * 1709 - 1: 1e-2, 56 * 1709 - 1: 1e-3, 84 * 1709 - 1: 1e-4}, 84 * 1709),
    ("linear_imagenet_goyal", IMAGENET, {39999: 1e-2, 79999: 1e-3, 119999: 1e-4, 139999: 1e-5}, 140_000),
    ("linear_places205_goyal", PLACES, {39999: 1e-2, 79999: 1e-3, 119999: 1e-4, 139999: 1e-5}, 140_000),
    ("linear_imagenet_moco", IMAGENET, {60 * 5004 - 1: 30.0, 80 * 5004 - 1: 3.0, 500_399: 0.3}, 100 * 5004),
]
DECAY = {"pirl": 5e-4, "goyal": 1e-4, "moco": 0.0}


@pytest.mark.parametrize(("name", "images", "rates", "total"), LINEAR, ids=[row[0] for row in LINEAR])
def test_linear_rates_at_every_milestone(name: str, images: int, rates: dict[int, float], total: int):
    transfer = find_transfers()[name]
    assert isinstance(transfer, LinearTransfer)
    probe = transfer.values["paper"]
    (optimizer,) = probe.optimizers
    assert probe.course.steps_per_epoch(images) == STEPS[images]
    assert probe.course.steps_total(images) == total == max(rates) + 1
    steps = sorted(rates)
    for last, after in zip(steps, [*steps[1:], None], strict=True):
        assert optimizer.lr * probe.course.factor(last, images) == pytest.approx(rates[last])
        if after is not None:
            assert optimizer.lr * probe.course.factor(last + 1, images) == pytest.approx(rates[after])
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, not name.endswith("moco"))
    assert optimizer.weight_decay == DECAY[name.split("_")[-1]]
    assert probe.held_out == 0
    assert probe.views is None


@pytest.mark.parametrize(("percent", "images", "epoch"), [(1, 12_811, 50), (10, 128_116, 500)])
def test_semi_supervised_rates_at_every_milestone(percent: int, images: int, epoch: int):
    transfer = find_transfers()[f"semi_supervised_{percent}pct_pirl"]
    assert isinstance(transfer, SemiSupervised)
    course = transfer.courses["paper"]
    assert course.steps_total(images) == 70 * epoch
    steps = (0, 30 * epoch - 1, 30 * epoch, 60 * epoch - 1, 60 * epoch, 70 * epoch - 1)
    rates = [0.01 * course.factor(step, images) for step in steps]
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4])
    assert list(transfer.card.metrics) == ["top5", "top1"]


def test_the_svms_costs_are_fairs():
    transfer = find_transfers()["voc07_svm_goyal"]
    assert isinstance(transfer, VocSvm)
    costs = transfer.costs["paper"]
    assert len(costs) == 26
    assert costs[0] == 1e-7
    assert costs[-1] == 1e2
    assert {0.5**4, 0.5**19, 1e-3, 1.0} <= {*costs}
    assert set(transfer.costs["desk"]) <= set(costs)


@pytest.mark.parametrize("scale", ["desk", "smoke"])
def test_smaller_scales_choose_on_held_out_training_images(scale):
    for transfer in find_transfers().values():
        if isinstance(transfer, LinearTransfer):
            assert transfer.values[scale].held_out == 0.2
            assert transfer.values[scale].track_every is None
