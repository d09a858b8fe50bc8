"""Supervised ImageNet classification: the ceiling against which self-supervised methods are measured.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385. Length and drops are those of
Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017, arXiv:1706.02677: 90 epochs, with
drops at 30, 60 and 80.

Departures:
- One schedule for the supervised row of every table. The papers' rows come from reference models of several sources.
- BatchNorm's scale and shift decay like all other weights. Goyal et al. spare them (section 5.1), and so do VISSL's
  configuration and the ResNet-50 configurations of facebookresearch/fair_self_supervision_benchmark.
- Five epochs of warm-up from a tenth of the rate. Goyal et al. warm up for larger batches, and not for 256 images.
- Residual branches do not start at zero at paper scale. Those of Goyal et al. do.
- Crops and flips alone. VISSL's configuration also changes colours, and trains 105 epochs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.blocks.accuracy import share_right
from benchmark.core.bounds import Area
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import (
    DESK_RESNET,
    DRAWN_CROPS,
    SGD,
    Change,
    Epochs,
    Given,
    InputSpec,
    Milestones,
    Pool,
    Recipe,
    Settings,
    Warmup,
)
from benchmark.views.crops import flipped_crop


@dataclass(frozen=True)
class Supervised(Settings):
    crop_area: Area = (0.08, 1.0)

    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        return {"image": flipped_crop(image, spec.size, self.crop_area)}  # (3, 224, 224)

    def build(self, backbone: Backbone, given: Given) -> Method:
        return Classifier(backbone, given.classes())


class Classifier(Method):
    accuracy: Tensor

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(backbone.out_channels, classes)

    def classify(self, images: Tensor) -> Tensor:
        x = self.backbone.input.prepare(images)  # (B, 3, 224, 224)
        return self.fc(self.backbone(x.contiguous(memory_format=torch.channels_last))).float()  # (B, classes)

    def loss(self, batch: Batch) -> Tensor:
        assert batch.labels is not None
        scores = self.classify(batch.views["image"])
        self.accuracy = share_right(scores, batch.labels)
        return cross_entropy(scores, batch.labels)

    def scalars(self) -> dict[str, float]:
        return {"accuracy": float(self.accuracy)}


supervised = Recipe(
    title="Supervised ImageNet classification",
    method=Supervised(),
    backbone=ResNet(),
    data=Pool("imagenet", labels=True),
    length=Epochs(90),
    batch_size=256,
    optimizers={"main": SGD(lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)},
    schedule=Milestones(at=(Epochs(30), Epochs(60), Epochs(80)), gamma=0.1, warmup=Warmup(Epochs(5), 0.1)),
    reported="75.9 % ImageNet top-1 in the linear evaluation of PIRL's Table 2",
    desk=(
        *DESK_RESNET,
        DRAWN_CROPS,
        Change(
            "schedule",
            Milestones(at=(Epochs(24), Epochs(34)), warmup=Warmup(Epochs(2), 0.1)),
            "two drops, late in a short training",
        ),
    ),
)
