"""The whole network fine-tuned on a part of ImageNet's labels, as the papers of SimCLR do it.

*_simclr:    Chen, Kornblith, Norouzi & Hinton, ICML 2020 (arXiv:2002.05709), appendix B.5, and what the paper leaves
             open as in google-research/simclr [SIM]. From scratch a ResNet-50 reaches 25.4 (1 %) and 56.4 (10 %) top-1.
*_simclr_v2: Chen, Kornblith, Swersky, Norouzi & Hinton, NeurIPS 2020 (arXiv:2006.10029), section 3.1: from the last
             stage that the pretraining left behind. For SimCLR v2 this is the first layer of its head, for others the
             output. With all labels it is always the output.

Subsets are those of the lists beside the images, as in benchmark/transfers/semi_supervised.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.contract import Backbone
from benchmark.backbones.with_head import at_last_stage, width_at_last_stage
from benchmark.core.optimisation import LARS, SGD, Cosine, Epochs, Optimizer, Steps
from benchmark.core.plain import as_plain
from benchmark.data.labels import Classes
from benchmark.data.loader import Views
from benchmark.data.splits import percent_of
from benchmark.recipe.scales import Scale
from benchmark.records.metric import PERCENT
from benchmark.transfers.contract import Context, ProtocolCard, Scores, Transfer, values_at
from benchmark.transfers.features import as_input, backbone_key, classifier_scores, frozen, working_copy
from benchmark.transfers.metrics import topk_scores
from benchmark.transfers.preprocessing import centre_crop, crop_and_flip
from benchmark.transfers.training import Course, build_optimizer, checkpoint_path, fit_together, streamed


@dataclass(frozen=True)
class SimCLRTuning:
    """network, classifier: the optimizers of the two. from_last: the classifier sees the backbone's last stage, and not
    its output."""

    course: Course
    network: Optimizer
    classifier: Optimizer
    from_last: bool


class FineTuned(nn.Module):
    """The backbone as far as the classifier needs it, and the classifier, which starts at zero [SIM]."""

    def __init__(self, backbone: Backbone, num_classes: int, from_last: bool) -> None:
        super().__init__()
        self.backbone, self.from_last = backbone, from_last
        self.classifier = nn.Linear(width_at_last_stage(backbone) if from_last else backbone.out_channels, num_classes)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(at_last_stage(self.backbone, images) if self.from_last else self.backbone(images))


class SemiSupervisedSimCLR(Transfer):
    """`percent` of the labels, and the values at each scale."""

    def __init__(self, card: ProtocolCard, percent: int, values: dict[Scale, SimCLRTuning]) -> None:
        self.card, self.percent, self.values = card, percent, values

    def run(self, backbone: Backbone, context: Context) -> Scores:
        with frozen(backbone):  # a copy trains; the backbone that was handed over stays
            return self._run(backbone, context)

    def _run(self, backbone: Backbone, context: Context) -> Scores:
        values, side = values_at(context.scale, self.values, self.card), backbone.input.size
        train, test = self.image_sets(context)
        labelled = percent_of(train, self.percent, context.seed)
        data = {images.name: images.fingerprint() for images in (labelled, test)}
        trunk, classes = working_copy(backbone, context.device), len(train.labelled(Classes).names)
        model = FineTuned(trunk, classes, values.from_last).to(context.device)
        facts = (context.scale, context.seed, backbone_key(backbone), data, as_plain(values))
        fit_together(
            model.train(),
            build_optimizer([(trunk.parameters(), values.network), (model.classifier.parameters(), values.classifier)]),
            lambda images, truth: F.cross_entropy(model(images), truth),
            values.course,
            labelled,
            streamed(
                Views(labelled, crop_and_flip(side), context.seed),
                lambda pixels: as_input(backbone, pixels, context.device),
                context,
            ),
            checkpoint_path(self.card, context, *facts),
            context,
        )
        told = classifier_scores(model.eval(), trunk, test, centre_crop(side), context)
        metrics, kept = topk_scores(*told, ks=(1, 5))
        return Scores(metrics, {"labelled": labelled.name, "labelled_images": len(labelled), **kept}, data)


def _scales(paper: SimCLRTuning, percent: int) -> dict[Scale, SimCLRTuning]:
    """Below paper scale both optimizers are SGD, for batches of another size and far fewer steps."""
    sgd = SGD(lr=0.01, momentum=0.9, nesterov=True)  # as benchmark/transfers/semi_supervised.py has it there
    desk = replace(paper, course=Course(Epochs(DESK_EPOCHS[percent]), 20, Cosine()), network=sgd, classifier=sgd)
    photos = replace(desk, course=Course(Epochs(PHOTOS_EPOCHS[percent]), 32, Cosine()))
    smoke = replace(desk, course=Course(Steps(4), 10, Cosine()))
    return {"paper": paper, "photos": photos, "desk": desk, "smoke": smoke}


EPOCHS = {1: 60, 10: 30, 100: 30}
DESK_EPOCHS = {1: 60, 10: 30, 100: 6}
PHOTOS_EPOCHS = {1: 60, 10: 15, 100: 1}
NESTEROV = SGD(lr=0.8, momentum=0.9, nesterov=True)  # 0.05 x batch / 256
# 0.005 x the root of the batch. What does not decay is not adapted either: norms, and all of the classifier [SIM].
LAYERWISE = LARS(lr=0.16, momentum=0.9, decays="weights")
NOT_ADAPTED = replace(LAYERWISE, decays="none")
V1_TOP1 = {1: "48.3", 10: "65.6"}
V2_TOP1 = {1: "57.9", 10: "68.4", 100: "76.3"}
V1_CITATION = "Chen et al., ICML 2020, arXiv:2002.05709, section B.5; {} top-1"
V2_CITATION = "Chen et al., NeurIPS 2020, arXiv:2006.10029, section 3.1; {} top-1"
COSINE = "paper: the rate falls by half a cosine, and the classifier starts at zero, as in the released code"


def _card(id: str, percent: int, citation: str, what: str, *departures: str) -> ProtocolCard:
    return ProtocolCard(
        id=id,
        version=1,
        title=f"ImageNet, fine-tuned on {percent} % of the labels, {what}",
        citation=citation,
        metrics={"top1": PERCENT, "top5": PERCENT},
        datasets=(("imagenet", "train"), ("imagenet", "val")),
        lists=() if percent == 100 else (f"imagenet/{percent}percent.txt",),
        trains=True,
        frozen="nothing: all weights train, BatchNorm in training mode",
        selected="nothing: the last iterate is scored at every scale",
        departures=(
            COSINE,
            *departures,
            f"photos: as desk, but batches of 32 and epochs: {PHOTOS_EPOCHS[percent]}",
            f"desk: SGD with Nesterov momentum at 0.01, batches of 20, epochs: {DESK_EPOCHS[percent]}",
        ),
    )


def _v1(percent: int) -> SemiSupervisedSimCLR:
    paper = SimCLRTuning(Course(Epochs(EPOCHS[percent]), 4096, Cosine()), NESTEROV, NESTEROV, from_last=False)
    card = _card(
        f"semi_supervised_{percent}pct_simclr", percent, V1_CITATION.format(V1_TOP1[percent]), "without regularisation"
    )
    return SemiSupervisedSimCLR(card, percent, _scales(paper, percent))


def _v2(percent: int) -> SemiSupervisedSimCLR:
    few = percent < 100
    paper = SimCLRTuning(Course(Epochs(EPOCHS[percent]), 1024, Cosine()), LAYERWISE, NOT_ADAPTED, from_last=few)
    card = _card(
        f"semi_supervised_{percent}pct_simclr_v2",
        percent,
        V2_CITATION.format(V2_TOP1[percent]),
        "from inside the head" if few else "LARS",
        "paper: one rate for all networks, a ResNet-50's; whether larger ones have another was not checked",
    )
    return SemiSupervisedSimCLR(card, percent, _scales(paper, percent))


semi_supervised_1pct_simclr = _v1(1)
semi_supervised_10pct_simclr = _v1(10)
semi_supervised_1pct_simclr_v2 = _v2(1)
semi_supervised_10pct_simclr_v2 = _v2(10)
semi_supervised_100pct_simclr_v2 = _v2(100)
