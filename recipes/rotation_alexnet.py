"""RotNet: learning by predicting how an image was rotated, with AlexNet as in the paper.

Gidaris, Singh & Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018,
arXiv:1803.07728. What the paper leaves open is as in the authors' gidariss/FeatureLearningRotNet. The ResNet-50 of
later papers is in recipes/rotation.py.

A network that can tell by how many quarter turns a photograph was rotated must know which way up its objects stand. All
four rotations of an image stand in one batch, so that nothing but the turn tells them apart:

    L = 1/N sum_i 1/K sum_y -log F^y(g(X_i | y)),    K = 4

The turn is a transpose and a flip of the array: interpolation would leave traces that give the angle away.

Departures:
- 30 epochs, as for the paper's numbers. The released configuration has 50, with drops after 15, 30 and 45, which a user
  of it found better by 3 points on a non-linear probe.
- BatchNorm's statistics are those of the whole batch on any number of processes, as on the authors' one GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmark.backbones.alexnet import ROTNET
from benchmark.backbones.contract import Backbone
from benchmark.blocks.accuracy import share_right
from benchmark.core.bounds import Area
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import DESK, DRAWN_CROPS, SGD, Epochs, Given, InputSpec, Milestones, Part, Pool, Recipe, Settings
from benchmark.views.crops import flipped_crop

K = 4  # 0, 90, 180 and 270 degrees


@dataclass(frozen=True)
class FourRotations(Settings):
    crop_area: Area = (0.08, 1.0)

    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        return {"X": flipped_crop(image, spec.size, self.crop_area)}  # (3, 224, 224)

    def build(self, backbone: Backbone, given: Given) -> Method:
        return AllRotations(backbone)


class AllRotations(Method):
    accuracy: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(backbone.out_channels, K)

    def loss(self, batch: Batch) -> Tensor:
        X = self.backbone.input.prepare(batch.views["X"])  # (B, 3, 224, 224)
        g = torch.cat([X.rot90(y, dims=(2, 3)) for y in range(K)])  # (4 B, 3, 224, 224)
        F = self.fc(self.backbone(g.contiguous(memory_format=torch.channels_last)))  # (4 B, 4)
        y = torch.arange(K, device=F.device).repeat_interleave(len(X))
        self.accuracy = share_right(F, y)
        return cross_entropy(F.float(), y)

    def scalars(self) -> dict[str, float]:
        return {"accuracy": float(self.accuracy)}


rotation_alexnet = Recipe(
    title="Rotation prediction (RotNet), AlexNet",
    method=FourRotations(),
    backbone=replace(ROTNET, over="all"),  # one GPU held the whole batch
    data=Pool("imagenet"),
    length=Epochs(30),
    batch_size=192,  # images; four times as many rows
    optimizers={"main": SGD(lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)},
    schedule=Milestones(
        at=(Part(1 / 3), Part(2 / 3)), gamma=0.1
    ),  # NOTE: the rate's drops after 10 and 20 epochs could not be checked in print
    reported="38.7 % ImageNet top-1 linear at conv3 (RotNet, Table 5); about 89 % of rotations told (its authors)",
    desk=(*DESK, DRAWN_CROPS),
)
