"""SimCLR v2's third step: a student learns from all images what a large fine-tuned network says of them.

Chen, Kornblith, Swersky, Norouzi & Hinton, "Big Self-Supervised Models are Strong Semi-Supervised Learners", NeurIPS
2020, arXiv:2006.10029, sections 2 and 3.1, and where the paper leaves it open, the released code
(google-research/simclr).

No label is seen. With P(y | x) = exp(f(x)_y / tau) / sum over y' of exp(f(x)_y' / tau) for teacher T and student S,

    L = - sum over images of sum over y of P_T(y | x) log P_S(y | x)            (2)

The teacher is what recipes/simclr_v2_fine_tuned.py left behind, and does not change. It sees the same crop. Schedule,
batch and decay are those of recipes/simclr_v2.py.

Departures:
- The loss is the mean over the batch's images. The equation prints the sum over all.
- The student begins anew, its classifier with N(0, 0.01), as the released code's do where they do not begin at zero.
  The paper does not say how it begins.
- The teacher is in evaluation mode. The paper says that it is fixed.
- The paper's third row of Table 2, which mixes in a loss of the labels, is not here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.with_head import at_last_stage, width_at_last_stage
from benchmark.core.bounds import Area, Positive
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import DESK, DRAWN_CROPS, LARS, Change, Epochs, Given, InputSpec, Pool, Settings
from benchmark.views.crops import flipped_crop
from recipes.simclr_v2 import simclr_v2
from recipes.simclr_v2_fine_tuned import Classifier


@dataclass(frozen=True)
class Distilled(Settings):
    tau: Positive = 1.0  # from a large network to a small one
    crop_area: Area = (0.08, 1.0)

    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        return {"image": flipped_crop(image, spec.size, self.crop_area)}  # (3, 224, 224)

    def build(self, backbone: Backbone, given: Given) -> Method:
        return Student(self, backbone, given.backbones["teacher"])


class Student(Classifier):
    def __init__(self, settings: Distilled, backbone: Backbone, teacher: Backbone) -> None:
        if [*teacher.stages][-1] != "classes":
            raise UserError(f"a teacher must end with classes, and {teacher.architecture.title} has none")
        super().__init__(backbone, width_at_last_stage(teacher))
        nn.init.normal_(self.classifier.weight, std=0.01)
        self.settings, self.teacher = settings, teacher.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Student:
        super().train(mode)
        self.teacher.eval()
        return self

    def loss(self, batch: Batch) -> Tensor:
        images = batch.views["image"]
        with torch.no_grad():
            x = self.teacher.input.prepare(images).contiguous(memory_format=torch.channels_last)
            taught = at_last_stage(self.teacher, x).float()  # (B, classes)
        return distillation(self.classify(images), taught, self.settings.tau)


def distillation(told: Tensor, taught: Tensor, tau: float) -> Tensor:
    """Equation 2, the mean over images, a scalar. told, taught: (B, classes) scores of the student and the teacher."""
    return cross_entropy(told / tau, (taught / tau).softmax(dim=1))


simclr_v2_distilled_10pct = replace(
    simclr_v2,
    title="SimCLR v2, distilled from 10 % of the labels",
    method=Distilled(),
    backbone=ResNet(over="all", zero_init_residual=True),
    data=Pool("imagenet"),
    after={"teacher": "simclr_v2_10pct"},
    length=Epochs(400),
    optimizers={
        **simclr_v2.optimizers,
        "classifier": LARS(lr=6.4, momentum=0.9, trust=1e-3, decays="none"),
    },
    reported="74.3 % ImageNet top-1 (SimCLR v2, Table 2)",
    desk=(
        *DESK,
        DRAWN_CROPS,
        Change("optimizers.classifier", DESK[-1].value, "needs far fewer steps"),
    ),
)

simclr_v2_distilled_1pct = replace(
    simclr_v2_distilled_10pct,
    title="SimCLR v2, distilled from 1 % of the labels",
    after={"teacher": "simclr_v2_1pct"},
    reported="68.9 % ImageNet top-1 (SimCLR v2, Table 2)",
)
