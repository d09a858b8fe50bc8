"""Mean intersection over union from one dataset-wide count (Long et al., CVPR 2015; shelhamer/fcn, score.py)."""

from __future__ import annotations

import numpy as np

from benchmark.data.voc import IGNORED


def confusion(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """truth (H, W) uint8 with 255 where nothing counts, predicted (H, W) of classes -> (true class, predicted class)
    int64 pixel counts. Counts of several images add up."""
    counted = truth != IGNORED
    pairs = truth[counted].astype(np.int64) * num_classes + predicted[counted]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def iou_per_class(counts: np.ndarray) -> np.ndarray:
    """(C, C) counts -> (C,) in percent; NaN for a class that neither is there nor was predicted. Their nanmean is the
    mIoU, background included."""
    hits = np.diag(counts).astype(np.float64)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    return 100 * np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)
