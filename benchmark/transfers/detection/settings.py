"""What a detector is, whichever engine builds it: the values of its protocol, what it learns from and what it finds.

Defaults are detectron2's (facebookresearch/detectron2, config/defaults.py and Base-RCNN-C4.yaml), which all protocols
keep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor, nn


@dataclass(frozen=True)
class DetectorSettings:
    """norm:          "frozen": BatchNorm keeps statistics, scale and shift; "trained": it is in training mode.
    frozen_stages: so many of the first stages do not train.
    extra_norm:    a BatchNorm follows the last stage in the head.
    anchor_sides:  square roots of the anchors' areas, in pixels of the network's input.
    anchors, anchors_positive: sampled an image, and the most of them that may be positive, as a fraction.
    regions, regions_positive: the same of the head's regions.
    proposals_train, proposals_test: the best before and after suppression of those that overlap.
    pooled_side:   cells of a region, before the last stage halves them. A mask has as many.
    mask_channels: of the layer before the masks; 0 where no masks are learned.
    """

    norm: Literal["frozen", "trained"]
    frozen_stages: int = 2
    extra_norm: bool = False
    anchor_sides: tuple[int, ...] = (32, 64, 128, 256, 512)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    anchors: int = 256
    anchors_positive: float = 0.5
    regions: int = 512
    regions_positive: float = 0.25
    proposals_train: tuple[int, int] = (12_000, 2_000)
    proposals_test: tuple[int, int] = (6_000, 1_000)
    proposals_overlap: float = 0.7
    pooled_side: int = 14
    least_score: float = 0.05
    overlap: float = 0.5
    detections: int = 100
    mask_channels: int = 0


@dataclass(frozen=True)
class RegionSettings:
    """Of a detector that is given its proposals. Fast R-CNN's, as in rbgirshick/fast-rcnn, lib/fast_rcnn/config.py.

    cells:      on each side, that what is in a region is pooled to.
    regions, regions_positive: sampled an image, and the most of them that may be positive, as a fraction.
    positive:   from this IoU with an object on, a region is positive; from `background` on it is negative, and below
                it is not trained on.
    overlap:    of boxes of one class, so that the less sure is dropped.
    detections: of a class in an image, the surest, before the others are dropped.
    """

    cells: int = 6
    regions: int = 64
    regions_positive: float = 0.25
    positive: float = 0.5
    background: float = 0.1
    overlap: float = 0.3
    detections: int = 100


FROZEN = DetectorSettings(norm="frozen")
TRAINED = DetectorSettings(norm="trained", frozen_stages=0, extra_norm=True)


@dataclass(frozen=True)
class Target:
    """The objects of a training image: boxes (M, 4) float32 in its pixels, labels (M,) int64; M > 0. masks: where masks
    are learned, of each object its polygons, (K, 2) float64 x, y. proposals: (P, 4) float32, where they are given."""

    boxes: Tensor
    labels: Tensor
    masks: tuple[tuple[np.ndarray, ...], ...] = ()
    proposals: Tensor | None = None


@dataclass(frozen=True)
class Found:
    """boxes (D, 4) in the input image's pixels, scores (D,), labels (D,); the surest first. masks: where they are
    learned, (D, side, side), for cells of the box the probability of belonging to the object."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None


@dataclass(frozen=True)
class Detections:
    """What was found in one image.

    boxes:  (D, 4) float32 x1, y1, x2, y2 in the image's pixels, 0-based and half-open as in Annotation.
    scores: (D,) float32 in [0, 1].
    labels: (D,) int64 places in the set's classes.
    masks:  COCO's compressed run lengths, where masks are learned.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: tuple[str, ...] = ()


class Detector(nn.Module):
    """What an engine makes. Parameters and buffers are its whole state. Images are uint8 (3, H, W), of any sizes."""

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the layers that are drawn here, and not the backbone's."""
        raise NotImplementedError

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """-> classes, region_boxes; of a detector that proposes, objectness and anchor_boxes; masks where they are
        learned. What is sampled follows from torch's random numbers."""
        raise NotImplementedError

    def detect(self, images: list[Tensor], proposals: Sequence[Tensor] = ()) -> list[Found]:
        """proposals: (P, 4) boxes for each image, for a detector that does not propose."""
        raise NotImplementedError

    def propose(self, images: list[Tensor]) -> list[Tensor]:
        """(P, 4) boxes that the head looks at in the test, of each image."""
        raise NotImplementedError
