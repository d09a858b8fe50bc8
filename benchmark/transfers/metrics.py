"""The numbers the protocols report, in percent. Computed in float64; equal scores are never ordered by luck."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def topk_accuracy(scores: Tensor, labels: Tensor, k: int) -> float:
    """scores (N, C), labels (N,). An image counts when fewer than k classes score above its own; of equal scores the
    lower class index is ahead."""
    own = scores.gather(1, labels[:, None])  # (N, 1)
    earlier = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]  # (N, C)
    ahead = (scores > own) | ((scores == own) & earlier)
    return 100 * (ahead.sum(dim=1) < k).double().mean().item()


def area_ap(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the precision envelope of the precision-recall curve (VOC2010 and later, and FAIR's SVM benchmark).

    scores (N,), positive (N,) bool with at least one True."""
    precision, recall, _ = _curve(scores, positive)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # the best precision at this recall or a higher one
    return 100 * float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def eleven_point_ap(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mean of the best precision at recall >= 0, 0.1 ... 1 (VOC2007's own)."""
    precision, _, hits = _curve(scores, positive)
    # in whole numbers, since 0.1 * 3 > 3 / 10 in floating point
    reached = [precision[10 * hits >= tenth * positive.sum()].max() for tenth in range(11)]
    return 100 * float(np.mean(reached))


def _curve(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and number of hits at every distinct score, from the highest; equal scores enter together."""
    if not positive.any():
        raise ValueError("average precision needs a positive")
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.cumsum(positive[order])[ends].astype(np.float64)
    return hits / (ends + 1), hits / positive.sum(), hits
