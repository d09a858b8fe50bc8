"""Supervised classification with AlexNet: the ceilings of the AlexNet tables, on ImageNet and on Places205.

Krizhevsky, Sutskever & Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012. The papers
compare themselves with BVLC's reference for Caffe (Jia et al., 2014, arXiv:1408.5093), whose values these are; it is
the released network's 310,000th step. For scenes they take the network of Zhou, Lapedriza, Xiao, Torralba & Oliva,
"Learning Deep Features for Scene Recognition using Places Database", NIPS 2014, which has the same architecture.

Departures:
- From all pixels one mean colour is subtracted, the same for both. Each released network subtracts a mean image of its
  own data.
- fc8 starts with PyTorch's weights. Their spread at this size is 0.009; Caffe's is 0.01.
- Images are squashed to 256 x 256 when they are read. In Caffe's example it is done before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from PIL.Image import Image
from torch import Tensor

from benchmark.backbones.alexnet import CAFFENET
from benchmark.backbones.contract import Backbone
from benchmark.method import Method
from benchmark.recipe import (
    BGR,
    DESK,
    SGD,
    UNNORMALISED,
    Given,
    InputSpec,
    Milestones,
    Part,
    Pool,
    Recipe,
    Settings,
    Steps,
)
from benchmark.views.crops import squashed_crop
from recipes.supervised import Classifier


@dataclass(frozen=True)
class CaffesReference(Settings):
    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        return {"image": squashed_crop(image, spec.size)}  # (3, 227, 227)

    def build(self, backbone: Backbone, given: Given) -> Method:
        return Classifier(backbone, given.classes())


supervised_alexnet = Recipe(
    title="Supervised ImageNet classification, AlexNet",
    method=CaffesReference(),
    backbone=CAFFENET,
    input=InputSpec(227, BGR()),
    data=Pool("imagenet", labels=True),
    length=Steps(310_000),  # the solver goes on to 450,000 and drops the rate once more
    batch_size=256,
    optimizers={"main": SGD(lr=0.01, momentum=0.9, weight_decay=5e-4, decays="weights", bias_rate=2.0)},
    schedule=Milestones(at=(Part(10 / 31), Part(20 / 31), Part(30 / 31)), gamma=0.1),  # every 100,000 steps
    reported="57.4 % ImageNet top-1 on the centre crop (its authors); 50.5 linear at conv5 (Split-Brain, Table 2)",
    desk=(*DESK, UNNORMALISED),
)

supervised_places = replace(
    supervised_alexnet,
    title="Supervised Places205 classification, AlexNet",
    data=Pool("places205", labels=True),
    # NOTE: 300,000 steps could not be checked in print; all other values are those of ImageNet's
    length=Steps(300_000),
    schedule=Milestones(at=(Part(1 / 3), Part(2 / 3)), gamma=0.1),
    reported="44.6 % Places205 top-1 linear at conv5 (Split-Brain, Table 3)",
)
