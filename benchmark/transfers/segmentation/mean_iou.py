"""Mean intersection over union from one dataset-wide count (Long et al., CVPR 2015; shelhamer/fcn, score.py)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmark.data.voc import IGNORED

UNDECIDED = IGNORED  # in a prediction: no class scores higher than all others


def most_likely(logits: Tensor) -> Tensor:
    """(C, H, W) scores -> (H, W) uint8 classes; a pixel where several classes share the highest is undecided, as
    otherwise a network that says nothing would be right wherever the first class, the background, is."""
    shared = (logits == logits.amax(dim=0)).sum(dim=0) > 1
    return logits.argmax(dim=0).masked_fill(shared, UNDECIDED).to(torch.uint8)


def confusion(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """truth (H, W) uint8 with 255 where nothing counts, predicted (H, W) of classes, 255 where undecided -> (true
    class, predicted class) int64 pixel counts, (C, C + 1): the last column is of the undecided. Counts of several
    images add up."""
    counted = truth != IGNORED
    columns = num_classes + 1
    pairs = truth[counted].astype(np.int64) * columns + np.minimum(predicted[counted], num_classes)
    return np.bincount(pairs, minlength=num_classes * columns).reshape(num_classes, columns)


def iou_per_class(counts: np.ndarray) -> np.ndarray:
    """(C, C + 1) counts -> (C,) in percent; NaN for a class that neither is there nor was predicted. Their nanmean is
    the mIoU, background included."""
    hits = np.diag(counts).astype(np.float64)
    union = counts[:, :-1].sum(axis=0) + counts.sum(axis=1) - hits
    return 100 * np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)
