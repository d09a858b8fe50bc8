"""The whole network fine-tuned on 1 % or 10 % of ImageNet's labels.

Misra & van der Maaten, CVPR 2020 (arXiv:1912.01991), section 3.3, who follow Wu et al., CVPR 2018 (arXiv:1805.01978),
section 4.3 [Wu]; what both leave open as in facebookresearch/vissl, eval_resnet_8gpu_transfer_in1k_semi_sup_fulltune
[VISSL]. From scratch a ResNet-50 reaches 22.0 (1 %) and 59.0 (10 %) top-5.

The subset is that of a list file, e.g. one of Chen et al., ICML 2020 (arXiv:2002.05709), where `imagenet/1percent.txt`
or `10percent.txt` lies beside the images; else a class-balanced draw from the seed. Numbers on different subsets are
different numbers: the list is part of the record's data.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.contract import Backbone
from benchmark.core.draws import mix
from benchmark.core.optimisation import SGD, Epochs, Milestones
from benchmark.core.plain import as_plain
from benchmark.core.streams import Stream
from benchmark.data.labels import Classes
from benchmark.data.loader import Views
from benchmark.data.splits import percent_of
from benchmark.recipe.scales import Scale
from benchmark.records.metric import PERCENT
from benchmark.transfers.contract import Context, ProtocolCard, Scores, Transfer, values_at
from benchmark.transfers.features import as_input, backbone_key, classifier_scores, frozen, working_copy
from benchmark.transfers.metrics import topk_scores
from benchmark.transfers.preprocessing import centre_crop, crop_and_flip
from benchmark.transfers.training import Course, build_optimizer, checkpoint_path, fit_together, gaussian, streamed

DESK_BATCH, PHOTOS_BATCH = 20, 32
OPTIMIZER = SGD(lr=0.01, momentum=0.9, weight_decay=0.0, nesterov=True)  # rate Wu; the rest VISSL


def _course(epochs: float, batch_size: int) -> Course:
    """The rate is divided by ten at 30 and 60 of 70 epochs [Wu], and at those fractions of other lengths."""
    return Course(Epochs(epochs), batch_size, Milestones((Epochs(epochs * 3 / 7), Epochs(epochs * 6 / 7))))


class Classifier(nn.Module):
    """The backbone, and a linear classifier on its output."""

    def __init__(self, backbone: Backbone, num_classes: int, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        generator = torch.Generator().manual_seed(mix(seed, Stream.FINE_TUNED_HEAD))
        self.head = gaussian(nn.Linear(backbone.out_channels, num_classes), 0.01, generator)  # VISSL

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


class SemiSupervised(Transfer):
    """`percent` of the labels, and the course of the fine-tuning at each scale."""

    def __init__(self, card: ProtocolCard, percent: int, courses: dict[Scale, Course]) -> None:
        self.card, self.percent, self.courses = card, percent, courses

    def run(self, backbone: Backbone, context: Context) -> Scores:
        with frozen(backbone):  # a copy trains; the backbone that was handed over stays
            return self._run(backbone, context)

    def _run(self, backbone: Backbone, context: Context) -> Scores:
        train, test = self.image_sets(context)
        classes = train.labelled(Classes).names
        labelled = percent_of(train, self.percent, context.seed)
        data = {images.name: images.fingerprint() for images in (labelled, test)}
        course, side = values_at(context.scale, self.courses, self.card), backbone.input.size
        facts = (context.scale, context.seed, backbone_key(backbone), data, as_plain(course), as_plain(OPTIMIZER))
        checkpoint = checkpoint_path(self.card, context, *facts)
        model = Classifier(working_copy(backbone, context.device), len(classes), context.seed).to(context.device)

        views = Views(labelled, crop_and_flip(side), context.seed)

        source = streamed(views, lambda pixels: as_input(backbone, pixels, context.device), context)

        def loss_of(images: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(model(images), labels)

        optimizer = build_optimizer([(model.parameters(), OPTIMIZER)])
        fit_together(model.train(), optimizer, loss_of, course, labelled, source, checkpoint, context)
        told = classifier_scores(model.eval(), model.backbone, test, centre_crop(side), context)
        metrics, kept = topk_scores(*told, ks=(5, 1))
        return Scores(metrics, {"labelled": labelled.name, "labelled_images": len(labelled), **kept}, data)


def _pirl(percent: int, reported: str, photos_epochs: float, desk_epochs: float) -> SemiSupervised:
    card = ProtocolCard(
        id=f"semi_supervised_{percent}pct_pirl",
        version=1,
        title=f"ImageNet, fine-tuned on {percent} % of the labels",
        citation=f"Misra & van der Maaten, CVPR 2020, arXiv:1912.01991, section 3.3; {reported}",
        metrics={"top5": PERCENT, "top1": PERCENT},
        datasets=(("imagenet", "train"), ("imagenet", "val")),
        lists=(f"imagenet/{percent}percent.txt",),
        trains=True,
        frozen="nothing: all weights train, BatchNorm in training mode",
        selected="nothing: the last iterate is scored at every scale",
        departures=(
            "paper: no weight decay and Nesterov momentum, as in VISSL; the papers do not say",
            "paper: the labelled images are not PIRL's, whose list was never published",
            f"photos: batches of {PHOTOS_BATCH}; {photos_epochs:g} epochs, the rate dropping at the same fractions",
            f"desk: batches of {DESK_BATCH}; {desk_epochs:g} epochs, the rate dropping at the same fractions of them",
        ),
    )
    courses: dict[Scale, Course] = {
        "paper": _course(70, 256),  # Wu; the batch VISSL
        "photos": _course(photos_epochs, PHOTOS_BATCH),
        "desk": _course(desk_epochs, DESK_BATCH),
        "smoke": _course(2, 10),
    }
    return SemiSupervised(card, percent, courses)


semi_supervised_1pct_pirl = _pirl(1, "57.2 top-5", photos_epochs=70, desk_epochs=70)
semi_supervised_10pct_pirl = _pirl(10, "83.8 top-5", photos_epochs=20, desk_epochs=28)
