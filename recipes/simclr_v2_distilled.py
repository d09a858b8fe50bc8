"""SimCLR v2's third step: a student learns from all images what a large fine-tuned network says of them.

Chen, Kornblith, Swersky, Norouzi & Hinton, "Big Self-Supervised Models are Strong Semi-Supervised Learners", NeurIPS
2020, arXiv:2006.10029, sections 2 and 3.1, and where the paper leaves it open, the released code
(google-research/simclr).

With P(y | x) = exp(f(x)_y / tau) / sum over y' of exp(f(x)_y' / tau) for teacher T and student S,

    L = - sum over all images of sum over y of P_T(y | x) log P_S(y | x)                    (2)

needs no label, and with them

    L = - (1 - alpha) sum over labelled images of log P_S(y | x), with tau = 1, + alpha times (2)    (3)

Table 2 compares both with (3) on the labelled images alone, and with the labels alone, which have no teacher. The
teacher is what recipes/simclr_v2_fine_tuned.py left behind, and does not change. It sees the same crop. Schedule, batch
and decay are those of recipes/simclr_v2.py.

Departures:
- The loss is the equations' divided by the number of images that the student trains on, as means over batches estimate
  it.
- alpha is 0.5, which gives an image's label the weight of its teacher. The paper does not say.
- With labels and all images, a step takes 512 or 64 labelled images beside its 4,096, somewhat more than their share of
  all, for which the loss makes up. Both go through the student at once, so BatchNorm's statistics are of both. The
  paper does not say how they are drawn.
- The paper says of students that they train for 400 epochs; here, the two rows without other images do too, though
  their epochs are shorter.
- The student begins anew, its classifier with N(0, 0.01), as the released code's do where they do not begin at zero.
  The paper does not say how it begins.
- The teacher is in evaluation mode. The paper says that it is fixed.
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
from benchmark.core.bounds import Area, Positive, Probability
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import DESK, DRAWN_CROPS, LARS, Change, Epochs, Given, InputSpec, Pool, Settings
from benchmark.views.crops import flipped_crop
from recipes.simclr_v2 import simclr_v2
from recipes.simclr_v2_fine_tuned import Classifier, FineTuned


@dataclass(frozen=True)
class Distilled(Settings):
    tau: Positive = 1.0  # from a large network to a small one
    crop_area: Area = (0.08, 1.0)

    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        return {"image": flipped_crop(image, spec.size, self.crop_area)}  # (3, 224, 224)

    def build(self, backbone: Backbone, given: Given) -> Method:
        return Student(self, backbone, given.backbones["teacher"])


@dataclass(frozen=True)
class DistilledWithLabels(Distilled):
    alpha: Probability = 0.5  # the teacher's; the labels have the rest

    def build(self, backbone: Backbone, given: Given) -> Method:
        return StudentOfBoth(self, backbone, given.backbones["teacher"], given)


@dataclass(frozen=True)
class LabelsAlone(FineTuned):
    def build(self, backbone: Backbone, given: Given) -> Method:
        return Beginner(backbone, given.classes())


class Beginner(Classifier):
    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__(backbone, classes)
        nn.init.normal_(self.classifier.weight, std=0.01)


class Student(Beginner):
    def __init__(self, settings: Distilled, backbone: Backbone, teacher: Backbone) -> None:
        if [*teacher.stages][-1] != "classes":
            raise UserError(f"a teacher must end with classes, and {teacher.architecture.title} has none")
        super().__init__(backbone, width_at_last_stage(teacher))
        self.settings, self.teacher = settings, teacher.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Student:
        super().train(mode)
        self.teacher.eval()
        return self

    def loss(self, batch: Batch) -> Tensor:
        images = batch.views["image"]
        return distillation(self.classify(images), self.taught(images), self.settings.tau)

    @torch.no_grad()
    def taught(self, images: Tensor) -> Tensor:
        x = self.teacher.input.prepare(images).contiguous(memory_format=torch.channels_last)  # (B, 3, 224, 224)
        return at_last_stage(self.teacher, x).float()  # (B, classes)


class StudentOfBoth(Student):
    """Of pools "all" and "labelled", or of one, whose images all have labels."""

    settings: DistilledWithLabels

    def __init__(self, settings: DistilledWithLabels, backbone: Backbone, teacher: Backbone, given: Given) -> None:
        super().__init__(settings, backbone, teacher)
        beside = "labelled" in given.pools
        classes, known = given.classes("labelled" if beside else ""), self.classifier.out_features
        if classes != known:
            raise UserError(f"the labels are of {classes} classes and the teacher's of {known}: use the same for both")
        self.share = given.pools["labelled"].num_images / given.num_images if beside else 1.0  # of images with labels

    def loss(self, batch: Batch) -> Tensor:
        images, labelled = batch.views["image"], batch.pools.get("labelled", batch)
        if labelled is batch:
            told = told_labelled = self.classify(images)  # (B, classes)
        else:
            both = self.classify(torch.cat([images, labelled.views["image"]]))
            told, told_labelled = both.split([len(images), len(labelled)])  # (B, classes), (L, classes)
        assert labelled.labels is not None
        alpha, of_labels = self.settings.alpha, cross_entropy(told_labelled, labelled.labels)
        of_teacher = distillation(told, self.taught(images), self.settings.tau)
        return (1 - alpha) * self.share * of_labels + alpha * of_teacher  # (3)


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

simclr_v2_distilled_mixed_10pct = replace(
    simclr_v2_distilled_10pct,
    title="SimCLR v2, distilled from 10 % of the labels, with them",
    method=DistilledWithLabels(),
    data={"all": Pool("imagenet"), "labelled": Pool("imagenet", percent=10, labels=True, batch_size=512)},
    reported="75.1 % ImageNet top-1 (SimCLR v2, Table 2)",
    desk=(
        *simclr_v2_distilled_10pct.desk,
        Change("data.labelled.batch_size", 4, "an eighth of the others, as in the paper-scale recipe"),
    ),
)

simclr_v2_distilled_mixed_1pct = replace(
    simclr_v2_distilled_mixed_10pct,
    title="SimCLR v2, distilled from 1 % of the labels, with them",
    after={"teacher": "simclr_v2_1pct"},
    data={"all": Pool("imagenet"), "labelled": Pool("imagenet", percent=1, labels=True, batch_size=64)},
    reported="69.0 % ImageNet top-1 (SimCLR v2, Table 2)",
    desk=(
        *simclr_v2_distilled_10pct.desk,
        Change("data.labelled.batch_size", 1, "the fewest: their share, 1 % of 32, would be a third of an image"),
    ),
)

FEW = (
    *simclr_v2_distilled_10pct.desk,
    Change("batch_size", 20, "ten steps an epoch on 200 images"),
    Change("length", Epochs(248), "2,480 steps, as for students of all images"),
)
FEWER = (
    *simclr_v2_distilled_10pct.desk,
    Change("batch_size", 20, "all 20 images"),
    Change("length", Epochs(2480), "2,480 steps, as for students of all images"),
)

simclr_v2_distilled_labelled_10pct = replace(
    simclr_v2_distilled_10pct,
    title="SimCLR v2, distilled on 10 % of the images, with their labels",
    method=DistilledWithLabels(),
    data=Pool("imagenet", percent=10, labels=True),
    reported="66.2 % ImageNet top-1 (SimCLR v2, Table 2)",
    desk=FEW,
)

simclr_v2_distilled_labelled_1pct = replace(
    simclr_v2_distilled_labelled_10pct,
    title="SimCLR v2, distilled on 1 % of the images, with their labels",
    after={"teacher": "simclr_v2_1pct"},
    data=Pool("imagenet", percent=1, labels=True),
    reported="23.6 % ImageNet top-1 (SimCLR v2, Table 2)",
    desk=FEWER,
)

simclr_v2_labels_10pct = replace(
    simclr_v2_distilled_labelled_10pct,
    title="SimCLR v2's student, 10 % of the labels alone",
    method=LabelsAlone(),
    after={},
    reported="52.0 % ImageNet top-1 (SimCLR v2, Table 2)",
)

simclr_v2_labels_1pct = replace(
    simclr_v2_distilled_labelled_1pct,
    title="SimCLR v2's student, 1 % of the labels alone",
    method=LabelsAlone(),
    after={},
    reported="12.3 % ImageNet top-1 (SimCLR v2, Table 2)",
)
