"""RotNet: learning by predicting how an image was rotated, with ResNet-50.

Gidaris, Singh & Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018,
arXiv:1803.07728. Pipeline and schedule for ResNet-50 are those of the configuration in facebookresearch/vissl, by the
authors of PIRL.

A network that can tell by how many quarter turns a photograph was rotated must know which way up its objects stand. The
turn moves whole pixels. Interpolation would leave traces that give the angle away.

Departures:
- ResNet-50 with VISSL's pipeline and schedule. The paper trains AlexNet.
- One angle is drawn for each image, as in VISSL's configuration. The AlexNet runs show all four rotations of an image
  in one batch, which their authors found better, and so do the ResNet-50 runs of Kolesnikov et al., CVPR 2019,
  arXiv:1901.09005.
- The whole picture is turned before it is cropped, so that a quarter turn swaps its width and height. VISSL also turns
  before it crops, but inside the old frame: unless the picture is square, a quarter turn cuts its ends off and leaves
  black bars. The AlexNet code crops first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.transforms import v2

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.core.bounds import Area
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import (
    DESK_RESNET,
    DRAWN_CROPS,
    SGD,
    Adam,
    Change,
    Epochs,
    Given,
    InputSpec,
    Milestones,
    Pool,
    Recipe,
    Settings,
)
from benchmark.views.crops import random_crop

FLIP = v2.RandomHorizontalFlip()
QUARTERS = 4  # 0, 90, 180 and 270 degrees


@dataclass(frozen=True)
class Rotation(Settings):
    crop_area: Area = (0.08, 1.0)

    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        y = torch.randint(QUARTERS, ())
        pixels = torch.rot90(v2.functional.pil_to_tensor(image), int(y), dims=(1, 2))  # g(X | y), before any cropping
        crop = random_crop(spec.size, self.crop_area)(pixels)
        return {"rotated": FLIP(crop), "y": y}  # (3, 224, 224), ()

    def build(self, backbone: Backbone, given: Given) -> Method:
        return RotNet(backbone)


class RotNet(Method):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(backbone.out_channels, QUARTERS)

    def loss(self, batch: Batch) -> Tensor:
        x = self.backbone.input.prepare(batch.views["rotated"])  # (B, 3, 224, 224)
        logits = self.fc(self.backbone(x.contiguous(memory_format=torch.channels_last)))  # F(g(X | y)): (B, 4)
        return cross_entropy(logits.float(), batch.views["y"])


rotation = Recipe(
    title="Rotation prediction (RotNet)",
    method=Rotation(),
    backbone=ResNet(),
    data=Pool("imagenet"),
    length=Epochs(105),
    batch_size=256,
    optimizers={"main": SGD(lr=0.1, momentum=0.9, weight_decay=1e-4, decays="not_norms")},
    schedule=Milestones(at=(Epochs(30), Epochs(60), Epochs(90), Epochs(100)), gamma=0.1),
    reported="48.9 % ImageNet top-1 linear (PIRL, Table 2)",
    desk=(
        *DESK_RESNET,
        DRAWN_CROPS,
        Change("optimizers.main", Adam(lr=5e-4, weight_decay=1e-4, decoupled=True), "needs far fewer steps"),
        Change("schedule", Milestones(at=(Epochs(24), Epochs(34))), "two drops, late in a short training"),
    ),
)
