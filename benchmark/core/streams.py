"""The numbers of a run's random streams, all in one place. Imports no torch, since splits draw with NumPy alone."""

from __future__ import annotations

from enum import IntEnum


class Stream(IntEnum):
    """Which of a run's random streams: every one there is, so that no two ever share their numbers."""

    VIEWS = 1
    ORDER = 2
    STEP = 3  # the seed that all processes share at a step
    EPOCH_START = 4
    IN_STEP = 5
    EMBED = 6
    LINEAR_HEADS = 11
    FINE_TUNED_HEAD = 12
    SEGMENTATION_HEAD = 13
    DETECTION_HEADS = 14


class SplitStream(IntEnum):
    """Of splits, which NumPy draws: what is held out must not be what a labelled fraction draws first."""

    LABELLED = 1
    HELD_OUT = 2
