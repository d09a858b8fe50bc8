"""The numbers of a run's random streams, all in one place. Imports no torch, since splits draw with NumPy alone."""

from __future__ import annotations

from enum import IntEnum


class Stream(IntEnum):
    """All random streams of a run, listed in one place so that no two share a number."""

    VIEWS = 1
    ORDER = 2
    STEP = 3  # the seed that all processes share at a step
    EPOCH_START = 4
    IN_STEP = 5
    EMBED = 6
    POOL = 7  # the seed of a second pool of images
    SHUFFLE = 8  # the order in which a step's keys are encoded
    PROTOTYPES = 9  # the prototypes that a step draws as negatives
    BANK = 10  # the first rows of a method's second bank
    LINEAR_HEADS = 11
    FINE_TUNED_HEAD = 12
    SEGMENTATION_HEAD = 13
    DETECTION_HEADS = 14
    TRANSFER_STEP = 15  # what a step of a transfer's training draws: dropout
    BEGUN_ANEW = 16  # the first weights of what a transfer trains anew above frozen layers
    MEMBER = 17  # a step's negatives of one of two methods that train at once


class SplitStream(IntEnum):
    """The streams of splits, which NumPy draws. There are two, because otherwise the held-out images would be those
    that a labelled fraction draws first."""

    LABELLED = 1
    HELD_OUT = 2
