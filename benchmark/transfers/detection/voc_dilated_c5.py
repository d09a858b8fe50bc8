"""Detection on VOC2007 test by Faster R-CNN on all stages of a ResNet-50, the last one dilated ("R50-dilated-C5").

He et al., CVPR 2020 (arXiv:1911.05722), section 4.2.1 and appendix A.1: conv5 has a dilation of 2 and a stride of 1, a
3x3 convolution with BatchNorm brings its channels to 512, and two fully-connected layers read each region. There a
supervised ResNet-50 reaches an AP of 54.0 and MoCo 54.6.

What the paper leaves open is the C4 detector's, benchmark.transfers.detection.voc, or detectron2's default for a
dilated C5 (configs/Base-RCNN-DilatedC5.yaml): regions of 7 x 7 cells, layers of 1,024.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.backbones.contract import Backbone
from benchmark.backbones.dilation import dilate_last_stage
from benchmark.backbones.norms import BatchNorm2d
from benchmark.core.draws import mix
from benchmark.core.streams import Stream
from benchmark.data.annotation import Annotated
from benchmark.transfers.contract import Context
from benchmark.transfers.detection.c4 import Detection
from benchmark.transfers.detection.desk import at_scales
from benchmark.transfers.detection.faster_rcnn import FasterRcnn, Size
from benchmark.transfers.detection.settings import TRAINED, Detector, DetectorSettings
from benchmark.transfers.detection.voc import VOC, moco_detection_card, moco_values


class DilatedC5(FasterRcnn):
    """The map is the last stage's, and regions are read by two layers of the head's own. Their sizes are parts of the
    network's width: 512 and 1,024 of a ResNet-50's 2,048."""

    def __init__(self, backbone: Backbone, num_classes: int, settings: DetectorSettings, seed: int) -> None:
        dilate_last_stage(backbone)
        super().__init__(backbone, num_classes, settings, seed)
        channels, outputs = self.widths(backbone)
        self.reduction = nn.Sequential(
            nn.Conv2d(backbone.stages[self.map].channels, channels, 3, padding=1, bias=False),
            BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * settings.pooled_side**2, outputs),
            nn.ReLU(inplace=True),
            nn.Linear(outputs, outputs),
            nn.ReLU(inplace=True),
        )
        generator = torch.Generator().manual_seed(mix(seed, Stream.DETECTION_HEADS, 1))
        for layer in (*self.reduction, *self.layers):
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            elif isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, a=1, generator=generator)
                nn.init.zeros_(layer.bias)

    def map_and_last(self, backbone: Backbone) -> tuple[str, str]:
        last = next(reversed(backbone.stages))
        return last, last

    def widths(self, backbone: Backbone) -> tuple[int, int]:
        channels = backbone.stages[self.map].channels
        return channels // 4, channels // 2

    def _maps(self, images: list[Tensor]) -> tuple[Tensor, list[Size]]:
        """(B, 512, h, w) at stride 16."""
        maps, sizes = super()._maps(images)
        return self.reduction(maps), sizes

    def _read_regions(self, maps: Tensor, regions: list[Tensor]) -> Tensor:
        """(R, 1024, 1, 1)"""
        return self.layers(self._pooled(maps, regions))[:, :, None, None]


class DilatedC5Detection(Detection):
    engines = ()

    def detector(self, trunk: Backbone, train: Annotated, values: Any, context: Context) -> Detector:
        return DilatedC5(trunk, len(train.classes), values.settings, context.seed)


voc0712_det_dilated_c5_moco = DilatedC5Detection(
    moco_detection_card(
        "voc0712_det_dilated_c5_moco",
        1,
        "dilated C5",
        "section 4.2.1, appendix A.1; 54.6 AP, 81.1 AP50, 59.9 AP75",
        (
            "paper: the head was not released; regions of 7 x 7 cells, layers of 1,024 and how they start are "
            "detectron2's defaults, and a ReLU follows the 3x3 convolution",
        ),
    ),
    at_scales(moco_values(replace(TRAINED, extra_norm=False, pooled_side=7)), frozen_stages=0),
    VOC,
)
