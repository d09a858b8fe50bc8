"""The numbers the protocols report, in percent. Computed in float64.

Equal scores decide nothing: where a class stands among the classes, or an image among the images, must not make an
answer right. Of classes with equal scores none is ahead of another, so an answer is right only if it would be in every
order of them; images with equal scores enter a curve together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.core.errors import UserError
from benchmark.records.per_image import kept_per_image


def topk_accuracy(scores: Tensor, labels: Tensor, k: int) -> float:
    """Percentage, 0 to 100, of images whose own class is among the k that score highest.

    scores (N, C) floating point, the higher the likelier; labels (N,) int64 in 0 ... C - 1, on the same device; N and k
    at least 1. Classes with the own class's score count as ahead of it (`ranked_within`). Raises ValueError for no
    images or a k below 1, RuntimeError (on a CPU) for a label that is not a class, UserError for a score that is not
    finite, since nothing is above it.

    Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015 (arXiv:1409.0575):
    100 less its error; the rule for equal scores is ours.
    """
    return percentage(topk_right(scores, labels, k))


def topk_right(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """(N,) bool: which of the images `topk_accuracy` counts as right; it raises the same."""
    if len(scores) == 0 or k < 1:
        raise ValueError(f"top-{k} accuracy of {len(scores)} images is undefined")
    _check_finite(bool(scores.isfinite().all()))
    return ranked_within(scores, labels, k)


def topk_scores(scores: Tensor, labels: Tensor, ks: Sequence[int] = (1, 5)) -> tuple[dict[str, float], dict[str, Any]]:
    """(topk_accuracy of each k, by metric; the part of a record's detail that keeps which images are right)."""
    right = {f"top{k}": topk_right(scores, labels, k) for k in ks}
    kept = kept_per_image({name: each.cpu().numpy() for name, each in right.items()})
    return {name: percentage(each) for name, each in right.items()}, kept


def percentage(right: Tensor) -> float:
    """(N,) bool -> how many of a hundred."""
    return 100 * right.double().mean().item()


def ranked_within(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """(..., N) bool: whether fewer than k other classes score as high as the own one, or higher. scores (..., N, C),
    labels (N,). A score that is not a number is never right while there are more than k classes."""
    own = scores.gather(-1, labels.expand(scores.shape[:-1])[..., None])  # (..., N, 1)
    return (~(scores < own)).sum(dim=-1) <= k  # which counts the own class, too


def over_crops(scored: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """(..., B, C) scores of images (B, 3, H, W), as `scored` gives them; of several crops of each, (B, crops, 3, H, W),
    the mean over the crops of what softmax makes of them."""
    if images.ndim == 4:
        return scored(images)
    # one after the other: all at once would need the memory for ten batches
    return mean_over_crops([scored(crop) for crop in images.unbind(dim=1)])


def mean_over_crops(scores: Sequence[Tensor]) -> Tensor:
    """(..., B, C) scores of each crop -> those of the images: of several, the mean of what softmax makes of them."""
    if len(scores) == 1:
        return scores[0]
    return torch.stack([each.softmax(dim=-1) for each in scores]).mean(dim=0)


def area_ap(scores: np.ndarray, positive: np.ndarray) -> float:
    """Average precision of one class, in percent, 0 to 100: the area under the envelope of the precision-recall curve.

    scores (N,) floating point, the higher the likelier; positive (N,) bool, in the same order. Images with equal scores
    enter the curve together. Raises ValueError where nothing is positive, UserError for a score that is not finite.

    Source: the VOC development kit since 2010 (VOCap.m), and tools/svm of facebookresearch/
    fair_self_supervision_benchmark, which scores VOC2007 by it.
    """
    precision, recall, _ = _curve(scores, positive)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # the best precision at this recall or a higher one
    return 100 * float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def step_ap(scores: np.ndarray, positive: np.ndarray) -> float:
    """Average precision of one class, in percent, 0 to 100: the area under the precision-recall curve itself, whose
    precision at a recall is not raised to that at a higher one. Takes and raises what `area_ap` does.

    Source: scikit-learn's average_precision_score, which philkr/voc-classification scores VOC2007 by.
    """
    precision, recall, _ = _curve(scores, positive)
    return 100 * float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _curve(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and number of hits at every distinct score, from the highest; equal scores enter together."""
    if not positive.any():
        raise ValueError("average precision needs a positive")
    _check_finite(bool(np.isfinite(scores).all()))
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.cumsum(positive[order])[ends].astype(np.float64)
    return hits / (ends + 1), hits / positive.sum(), hits


def _check_finite(is_finite: bool) -> None:
    if not is_finite:  # no score is above NaN, so every image would count as right
        raise UserError(
            "the scores are not finite, so they cannot be ranked; the backbone's weights may hold NaN: see its log"
        )
