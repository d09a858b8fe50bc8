"""Random initialisation: the floor of every table, and a measure of how much a protocol learns by itself.

He et al., "Delving Deep into Rectifiers", ICCV 2015, arXiv:1502.01852, for the ResNet's initialisation. One AlexNet is
RotNet's and starts as its authors' does. The other is CaffeNet with Caffe's Gaussian weights: the random row of the
tables before RotNet's. Nothing is trained.

Departures:
- Papers rarely say how their random network was initialised. Our ResNet follows He et al.
- The random rows of AlexNet tables come from several AlexNets. Ours are RotNet's, with PyTorch's own initial weights,
  and CaffeNet.
- Deep InfoMax's table has no random row. Ours is its encoder with PyTorch's initial weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmark.backbones.alex64 import Alex64
from benchmark.backbones.alexnet import CAFFENET, ROTNET
from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.method import Method
from benchmark.recipe import (
    BGR,
    DESK_NETWORK,
    DESK_SIZE,
    Constant,
    Given,
    InputSpec,
    Pool,
    Recipe,
    Settings,
    Steps,
    without,
)
from recipes.dim import IMAGES, INPUT


@dataclass(frozen=True)
class Untrained(Settings):
    def build(self, backbone: Backbone, given: Given) -> Method:
        method = Method()
        method.backbone = backbone
        return method


random_init = Recipe(
    title="Random initialisation",
    method=Untrained(),
    backbone=ResNet(),
    data=Pool("imagenet"),
    length=Steps(0),
    batch_size=256,
    optimizers={},
    schedule=Constant(),
    desk=DESK_NETWORK,
)

random_init_alexnet = replace(random_init, title="Random initialisation, AlexNet", backbone=ROTNET)

random_init_alex64 = replace(
    random_init,
    title="Random initialisation, AlexNet for 64 px",
    backbone=Alex64(),
    input=INPUT,
    data=IMAGES,
    desk=without(DESK_NETWORK, DESK_SIZE.key),
)

random_alexnet = replace(
    random_init,
    title="Random initialisation, CaffeNet",
    backbone=CAFFENET,
    input=InputSpec(227, BGR()),
    reported="17.1 % ImageNet top-1 linear at conv2, the best layer (Split-Brain, Table 2)",
)
