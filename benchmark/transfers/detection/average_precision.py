"""VOC's average precision as detectron2 computes it (facebookresearch/detectron2, pascal_voc_evaluation.py), which is
what the papers after 2019 report: AP50, AP75, and "AP", the mean over ten IoU thresholds.

Its rules, all kept: scores count to three decimals and boxes to one; areas include the last pixel; a match needs an IoU
strictly above the threshold; a detection goes to the object it overlaps most, and is wrong if that one is taken; one
that goes to a difficult object counts neither way. Equal scores stand as numpy's default sort leaves them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.data.annotation import Annotation
from benchmark.transfers.detection.settings import Detections

THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
# detectron2's own points, and not tenths: 0.1 * 3 > 3 / 10, so a recall of exactly 0.3 does not reach the fourth
RECALL_POINTS = np.arange(0.0, 1.1, 0.1)

Interpolation = Callable[[np.ndarray, np.ndarray], float]


def average_precisions(
    truths: Sequence[Annotation], found: Sequence[Detections], num_classes: int, interpolation: Interpolation
) -> np.ndarray:
    """(10 thresholds, classes) in percent; NaN for a class without an object that is not difficult.

    truths and found hold one entry an image, in the same order."""
    aps = np.full((len(THRESHOLDS), num_classes), np.nan)
    for label in range(num_classes):
        objects = sum(int((~truth.ignored[truth.labels == label]).sum()) for truth in truths)
        if objects:
            candidates = _Candidates.of(truths, found, label)
            for row, threshold in enumerate(THRESHOLDS):
                recall, precision = candidates.curve(threshold, objects)
                aps[row, label] = 100 * interpolation(recall, precision)
    return aps


def eleven_points(recall: np.ndarray, precision: np.ndarray) -> float:
    """Mean of the best precision at recall >= 0, 0.1 ... 1 (VOC2007). Both (D,), after each detection."""
    return float(np.mean([precision[recall >= point].max(initial=0.0) for point in RECALL_POINTS]))


def area(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area under the precision envelope (VOC2010 and later)."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


@dataclass(frozen=True)
class _Candidates:
    """Every detection of one class, the surest first: the IoU with the object that it overlaps most (-inf where the
    image has none), that object's number, and whether it is ignored. All (D,)."""

    iou: np.ndarray
    target: np.ndarray
    ignored: np.ndarray

    @classmethod
    def of(cls, truths: Sequence[Annotation], found: Sequence[Detections], label: int) -> _Candidates:
        columns: list[tuple[np.ndarray, ...]] = []
        objects = 0
        for truth, detections in zip(truths, found, strict=True):
            wanted, given = truth.labels == label, detections.labels == label
            iou, nearest = _nearest(truth.boxes[wanted], detections.boxes[given])
            ignored = np.append(truth.ignored[wanted], False)[nearest]
            columns.append((detections.scores[given], iou, objects + nearest, ignored))
            objects += int(wanted.sum())
        scores, *rest = (np.concatenate(column) for column in zip(*columns, strict=True))
        order = np.argsort(-np.round(scores.astype(np.float64), 3))
        return cls(*(column[order] for column in rest))

    def curve(self, threshold: float, objects: int) -> tuple[np.ndarray, np.ndarray]:
        """(recall, precision) after each detection; 0 / 0 is 0, where all so far went to difficult objects."""
        matched = self.iou > threshold
        counted = np.flatnonzero(matched & ~self.ignored)
        hit = np.zeros(len(matched), dtype=bool)
        hit[counted[np.unique(self.target[counted], return_index=True)[1]]] = True
        wrong = ~matched | (~self.ignored & ~hit)
        hits, errors = np.cumsum(hit), np.cumsum(wrong)
        return hits / objects, hits / np.maximum(hits + errors, 1)


def _nearest(objects: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """objects (M, 4), boxes (D, 4) -> the highest IoU of each box (D,) and the object's place (D,): -inf and -1 without
    objects. Boxes are rounded here, in VOC's own coordinates: the first pixel is 1 and the last included."""
    if not len(objects):
        return np.full(len(boxes), -np.inf), np.full(len(boxes), -1)
    first = np.array([1, 1, 0, 0], dtype=np.float32)
    a, b = (objects + first).astype(np.float64)[None], np.round((boxes + first).astype(np.float64), 1)[:, None]
    overlap = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1.0, 0.0)
    shared = overlap[..., 0] * overlap[..., 1]  # (D, M)
    area_a, area_b = ((x[..., 2] - x[..., 0] + 1.0) * (x[..., 3] - x[..., 1] + 1.0) for x in (a, b))
    iou = shared / (area_b + area_a - shared)
    nearest = iou.argmax(axis=1)
    return iou[np.arange(len(boxes)), nearest], nearest
