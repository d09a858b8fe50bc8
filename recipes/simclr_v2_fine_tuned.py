"""SimCLR v2's second step: its largest networks, fine-tuned on a part of the labels, so that they can teach.

Chen, Kornblith, Swersky, Norouzi & Hinton, "Big Self-Supervised Models are Strong Semi-Supervised Learners", NeurIPS
2020, arXiv:2006.10029, sections 2 and 3.1, and where the paper leaves it open, the released code
(google-research/simclr).

The network that recipes/simclr_v2.py left behind, its head's first layer included, gets a classifier and trains on with
the labels of 1 % or 10 % of the images: crops and flips alone, no warm-up, no weight decay. What it leaves behind has a
last stage "classes", from which recipes/simclr_v2_distilled.py learns. The protocols semi_supervised_*pct_simclr_v2
(benchmark/transfers) fine-tune any network in this way.

Departures:
- One rate for all networks, 0.005 times the root of the batch. Whether larger ones have another was not checked.
- The labelled images are those of a list beside the images, else a draw of this suite's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmark.backbones.contract import Backbone
from benchmark.backbones.with_head import (
    WithClassifier,
    WithProjection,
    assembled,
    at_last_stage,
    width_at_last_stage,
)
from benchmark.core.bounds import Area
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import (
    DESK,
    DRAWN_CROPS,
    LARS,
    Adam,
    Change,
    Epochs,
    Given,
    InputSpec,
    Pool,
    Recipe,
    Settings,
    Warmup,
    WarmupCosine,
    without,
)
from benchmark.views.crops import flipped_crop
from recipes.simclr_v2 import simclr_v2_2x_sk


@dataclass(frozen=True)
class FineTuned(Settings):
    crop_area: Area = (0.08, 1.0)

    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        return {"image": flipped_crop(image, spec.size, self.crop_area)}  # (3, 224, 224)

    def build(self, backbone: Backbone, given: Given) -> Method:
        pretrained = given.backbones["pretrained"]
        if pretrained.architecture != WithProjection(backbone.architecture):
            raise UserError(
                f"what was pretrained is a {pretrained.architecture}, and this recipe goes on with a "
                f"{backbone.architecture} and a layer of its head: set --recipe.backbone alike in both"
            )
        return Classifier(pretrained, given.classes())


class Classifier(Method):
    """Of a network's last stage, which for one that SimCLR v2 left behind is the first layer of its head."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(width_at_last_stage(backbone), classes)
        nn.init.zeros_(self.classifier.weight)  # as released
        nn.init.zeros_(self.classifier.bias)

    def players(self) -> dict[str, list[nn.Parameter]]:
        return {"main": [*self.backbone.parameters()], "classifier": [*self.classifier.parameters()]}

    def classify(self, images: Tensor) -> Tensor:
        x = self.backbone.input.prepare(images).contiguous(memory_format=torch.channels_last)  # (B, 3, 224, 224)
        return self.classifier(at_last_stage(self.backbone, x)).float()  # (B, classes)

    def losses(self, batch: Batch) -> Iterator[tuple[str | tuple[str, ...], Tensor]]:
        yield ("main", "classifier"), self.loss(batch)

    def loss(self, batch: Batch) -> Tensor:
        assert batch.labels is not None
        return cross_entropy(self.classify(batch.views["image"]), batch.labels)

    def export(self) -> Backbone:
        both = WithClassifier(self.backbone.architecture, self.classifier.out_features)
        return assembled(both, self.backbone, self.classifier)


# Of the optimizers: what does not decay is not adapted either, and as released nothing of the classifier is.
ADAM = Adam(lr=1e-4, weight_decay=1e-4, decoupled=True)
SMALL = (
    *without(DESK, "length", "optimizers.main", "batch_size"),
    DRAWN_CROPS,
    Change("optimizers.main", ADAM, "needs far fewer steps; a tenth of the pretraining's rate"),
    Change("optimizers.classifier", replace(ADAM, lr=1e-3), "starts at zero, and has as few steps"),
)

simclr_v2_10pct = Recipe(
    title="SimCLR v2, ResNet-50 (2x) with selective kernels, fine-tuned on 10 % of the labels",
    method=FineTuned(),
    backbone=simclr_v2_2x_sk.backbone,
    input=simclr_v2_2x_sk.input,
    data=Pool("imagenet", percent=10, labels=True),
    after={"pretrained": "simclr_v2_2x_sk"},
    length=Epochs(30),
    batch_size=1024,
    optimizers={
        "main": LARS(lr=0.16, momentum=0.9, trust=1e-3, decays="weights"),
        "classifier": LARS(lr=0.16, momentum=0.9, trust=1e-3, decays="none"),
    },
    schedule=WarmupCosine(Warmup(Epochs(0), start_factor=1.0)),  # no warm-up
    reported="77.0 % ImageNet top-1 (SimCLR v2, Table 1)",
    desk=(*SMALL, Change("batch_size", 20, "ten steps an epoch on 200 images")),
)

simclr_v2_1pct = replace(
    simclr_v2_10pct,
    title="SimCLR v2, ResNet-50 (2x) with selective kernels, fine-tuned on 1 % of the labels",
    data=Pool("imagenet", percent=1, labels=True),
    length=Epochs(60),
    reported="70.6 % ImageNet top-1 (SimCLR v2, Table 1)",
    desk=(*SMALL, Change("batch_size", 20, "all 20 images")),
)
