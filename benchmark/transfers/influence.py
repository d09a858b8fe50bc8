"""How much each test image moves a score that is no mean over images, such as average precision."""

from __future__ import annotations

import numpy as np


def influences(score: float, without: np.ndarray) -> np.ndarray:
    """(N,) float64, whose mean is the score. without (N,): the score of all test images but that one.

    The jackknife's pseudo-values, moved so that their mean is the score and not the jackknife's corrected one: Efron &
    Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 11. Drawing images anew then moves their mean as it
    moves the score, up to terms that fall with N squared.
    """
    moved = (len(without) - 1) * (score - without)
    return score + moved - moved.mean()
