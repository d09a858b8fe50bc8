"""What a test image contributes to scores that are no means over images, against drawing the images anew."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.tables.settled import bootstrapped
from benchmark.transfers.influence import influences
from benchmark.transfers.metrics import area_ap
from benchmark.transfers.presence import mean_ap_influences
from benchmark.transfers.segmentation.mean_iou import iou_per_class

IMAGES, CLASSES = 250, 4


@given(st.lists(st.floats(0, 100), min_size=2, max_size=20))
def test_of_a_mean_they_are_the_values(values: list[float]):
    x = np.array(values)
    without = np.array([np.delete(x, i).mean() for i in range(len(x))])
    assert influences(float(x.mean()), without) == pytest.approx(x, abs=1e-9)


def test_their_mean_is_the_score():
    rng = np.random.default_rng(0)
    assert influences(71.5, rng.normal(71.5, 0.1, 500)).mean() == pytest.approx(71.5, abs=1e-9)


def drawn_anew(score: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """The 95 % interval of a score of images, given by their places, over draws of as many."""
    rng = np.random.default_rng(3)
    found = [score(rng.integers(IMAGES, size=IMAGES)) for _ in range(2000)]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def are_close(found: tuple[float, float], wanted: tuple[float, float]) -> None:
    width = wanted[1] - wanted[0]
    assert found == pytest.approx(wanted, abs=0.12 * width)


def test_differences_of_mean_ap_vary_as_when_images_are_drawn_anew():
    """Two networks' scores of the same images, one of them surer; in each class some images are ignored."""
    rng = np.random.default_rng(1)
    codes = rng.choice([1, 0, -1], size=(CLASSES, IMAGES), p=[0.2, 0.75, 0.05])
    shared = rng.normal(size=(CLASSES, IMAGES))
    networks = [(codes == 1) * sure + shared + 0.5 * rng.normal(size=shared.shape) for sure in (1.6, 1.3)]

    def mean_ap(scores: np.ndarray, images: np.ndarray) -> float:
        of_class = [
            area_ap(row[images][code[images] != -1], code[images][code[images] != -1] == 1)
            for row, code in zip(scores, codes, strict=True)
        ]
        return float(np.mean(of_class))

    every = np.arange(IMAGES)
    moved = []
    for scores in networks:
        counted = [row[code != -1] for row, code in zip(scores, codes, strict=True)]
        moved.append(mean_ap_influences(counted, list(codes), area_ap, lambda *told: None))
        assert moved[-1].mean() == pytest.approx(mean_ap(scores, every))
    found = bootstrapped(moved[0] - moved[1])
    are_close((found.low, found.high), drawn_anew(lambda at: mean_ap(networks[0], at) - mean_ap(networks[1], at)))


def test_miou_varies_as_when_images_are_drawn_anew():
    rng = np.random.default_rng(2)
    base = np.hstack([30 * np.eye(CLASSES) + 3, np.ones((CLASSES, 1))])
    counts = rng.poisson(base * rng.gamma(2.0, 0.5, size=(IMAGES, 1, 1)) * rng.integers(0, 2, (IMAGES, CLASSES, 1)))

    def miou(images: np.ndarray) -> float:
        return float(np.nanmean(iou_per_class(counts[images].sum(axis=0))))

    every = np.arange(IMAGES)
    moved = influences(miou(every), np.array([miou(np.delete(every, i)) for i in every]))
    found = bootstrapped(moved)
    are_close((found.low, found.high), drawn_anew(miou))


def test_an_image_that_is_a_classs_only_positive_does_not_move_it():
    codes = np.array([1, 0, 0, 0])
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    assert mean_ap_influences([scores], [codes], area_ap, lambda *told: None).tolist() == [100.0] * 4


def test_progress_is_told_class_by_class():
    codes, told = np.array([1, 1, 0]), []

    def report(what: str, done: int, total: int, figures: dict[str, float]) -> None:
        told.append((done, total))

    mean_ap_influences([np.array([3.0, 2.0, 1.0])] * 3, [codes] * 3, area_ap, report)
    assert told == [(1, 3), (2, 3), (3, 3)]
