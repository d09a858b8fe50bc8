"""Random initialisation: the floor of every table, and a measure of how much a protocol learns by itself.

He et al., "Delving Deep into Rectifiers", ICCV 2015, arXiv:1502.01852, for the initialisation. Nothing is trained.

Departures:
- Papers rarely say how their random network was initialised. Ours follows He et al.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL.Image import Image
from torch import Tensor

from benchmark.backbones.contract import Backbone
from benchmark.method import Method
from benchmark.recipe import Architecture, Change, Constant, Recipe, Settings, Steps


@dataclass(frozen=True)
class Untrained(Settings):
    def views(self, image: Image) -> dict[str, Tensor]:
        return {}

    def build(self, backbone: Backbone, num_images: int) -> Method:
        method = Method()
        method.backbone = backbone
        return method


random_init = Recipe(
    title="Random initialisation",
    method=Untrained(),
    backbone=Architecture("resnet50"),
    data="imagenet",
    length=Steps(0),
    batch_size=256,
    optimizers={},
    schedule=Constant(),
    desk=(
        Change("backbone.width", 0.25, "a quarter of the width, as in every desk recipe"),
        Change("image_size", 64, "the image size of every desk recipe"),
    ),
)
