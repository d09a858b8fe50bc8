"""mIoU against torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from benchmark.transfers.segmentation.mean_iou import UNDECIDED, confusion, iou_per_class, most_likely

CLASSES = 21


def test_it_is_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    missing = 0
    for _ in range(300):
        shape = (int(rng.integers(1, 4)), *rng.integers(1, 12, 2))
        kinds = rng.permutation(CLASSES)[: rng.integers(1, CLASSES + 1)]
        truth = rng.choice(np.append(kinds, 255), shape).astype(np.uint8)
        predicted = np.where(rng.random(shape) < 0.5, truth % 255, rng.choice(kinds, shape)).astype(np.int64)
        counts = sum(confusion(*pair, CLASSES) for pair in zip(truth, predicted, strict=True))
        if not counts.sum():
            continue  # nothing but void
        ours, theirs = iou_per_class(counts), {}
        for average in ("none", "macro"):
            metric = MulticlassJaccardIndex(CLASSES, average=average, ignore_index=255)
            theirs[average] = (
                100 * metric(torch.from_numpy(predicted), torch.from_numpy(truth.astype(np.int64))).numpy()
            )
        assert np.nan_to_num(ours) == pytest.approx(theirs["none"], abs=1e-4)
        assert np.nanmean(ours) == pytest.approx(theirs["macro"], abs=1e-4)
        missing += bool(np.isnan(ours).any())
    assert missing > 100


def test_void_counts_nowhere() -> None:
    truth, predicted = np.array([[0, 1, 255]], dtype=np.uint8), np.array([[0, 0, 1]])
    iou = iou_per_class(confusion(truth, predicted, 3))
    assert iou[:2].tolist() == [50, 0]
    assert np.isnan(iou[2])


def test_a_network_that_says_nothing_is_right_nowhere() -> None:
    truth = np.array([[0, 0, 2]], dtype=np.uint8)
    logits = torch.zeros(3, 1, 3)

    def ious() -> list[float]:
        return iou_per_class(confusion(truth, most_likely(logits).numpy(), 3))[[0, 2]].tolist()

    assert ious() == [0, 0]
    logits[0, 0, 1] = 1
    assert most_likely(logits).tolist() == [[UNDECIDED, 0, UNDECIDED]]
    assert ious() == [50, 0]


def test_else_it_is_the_highest() -> None:
    logits = torch.randn(5, 20, 30, generator=torch.Generator().manual_seed(0))
    assert (most_likely(logits) == logits.argmax(dim=0)).all()
