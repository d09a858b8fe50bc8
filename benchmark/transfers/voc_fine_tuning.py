"""VOC2007 classification by a fine-tuned AlexNet: the column that most tables before 2019 begin with.

Krähenbühl et al., "Data-dependent Initializations of Convolutional Neural Networks", ICLR 2016 (arXiv:1511.06856),
section 4, as in their philkr/voc-classification [VOCC], in which other authors score their networks too. A network
trained with ImageNet's labels reaches 79.9 mAP, and 78.9 where conv1 to conv5 do not train (Split-Brain, Table 4).

Ten crops are not the corners and the centre here, and the AP is neither the 11-point one nor the area under the
precision envelope: see `drawn_ten_times` and `step_ap`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.alexnet import KERNELS, AlexNetwork
from benchmark.backbones.contract import Backbone
from benchmark.core.draws import mix
from benchmark.core.optimisation import SGD, Epochs, Milestones, Optimizer, Part, Steps
from benchmark.core.plain import as_plain
from benchmark.core.streams import Stream
from benchmark.data.image_set import ImageSet
from benchmark.data.loader import Views
from benchmark.recipe.scales import Scale
from benchmark.records.metric import PERCENT
from benchmark.records.per_image import kept_per_image
from benchmark.transfers.contract import Context, ProtocolCard, Scores, Transfer, values_at
from benchmark.transfers.features import as_input, backbone_key, frozen, scores_of
from benchmark.transfers.metrics import step_ap
from benchmark.transfers.preprocessing import drawn_ten_times, scale_place_and_flip
from benchmark.transfers.presence import IGNORED, PRESENT, mean_ap_influences, scorable
from benchmark.transfers.training import (
    Course,
    build_optimizer,
    checkpoint_path,
    fit_together,
    freeze,
    gaussian,
    streamed,
)
from benchmark.transfers.whole_alexnet import begun_anew, whole_alexnet

BEHIND = 1e-5  # so much is taken from the scores of positives, that no tie is decided in their favour [VOCC]


@dataclass(frozen=True)
class FineTuning:
    course: Course
    optimizer: Optimizer


class PresenceClassifier(nn.Module):
    """conv1 ... fc7, and a score for each class. trains_convolutions: else conv1 ... conv5 stay as they are."""

    def __init__(self, network: AlexNetwork, num_classes: int, trains_convolutions: bool, seed: int) -> None:
        super().__init__()
        self.network = network
        if not trains_convolutions:
            freeze(network, len(KERNELS), norms=())
        generator = torch.Generator().manual_seed(mix(seed, Stream.FINE_TUNED_HEAD))
        self.fc8 = gaussian(nn.Linear(network.out_channels, num_classes), 0.01, generator)  # VOCC
        nn.init.constant_(self.fc8.bias, 0.1)  # VOCC

    def forward(self, images: Tensor) -> Tensor:
        """-> (B, classes)"""
        return self.fc8(self.network(images))


def presence_loss(scores: Tensor, codes: Tensor) -> Tensor:
    """Sigmoid cross-entropy, added up over the classes and averaged over the images, both (B, classes). What is ignored
    adds nothing."""
    counted = codes != IGNORED
    targets = (codes == PRESENT).to(scores.dtype)
    return F.binary_cross_entropy_with_logits(scores[counted], targets[counted], reduction="sum") / len(scores)


def ap_with_ties_against(scores: np.ndarray, positive: np.ndarray) -> float:
    """`step_ap`, in percent, where positives score a little less than the network says."""
    return step_ap(scores - BEHIND * positive, positive)


class VocFineTuning(Transfer):
    """One protocol, and its values at each scale."""

    def __init__(self, card: ProtocolCard, trains_convolutions: bool, values: dict[Scale, FineTuning]) -> None:
        self.card, self.trains_convolutions, self.values = card, trains_convolutions, values

    def run(self, backbone: Backbone, context: Context) -> Scores:
        values = values_at(context.scale, self.values, self.card)
        train, test = self.image_sets(context)
        classes = scorable(train, test)
        data = {images.name: images.fingerprint() for images in (train, test)}
        with frozen(backbone):  # what trains is another network, with its weights
            network = whole_alexnet(backbone, context.seed)
            model = PresenceClassifier(network, len(train.classes), self.trains_convolutions, context.seed)
            model = model.to(context.device).to(memory_format=torch.channels_last)
            facts = (context.scale, context.seed, backbone_key(backbone), data, as_plain(values))
            self._train(model.train(), values, train, facts, context)
            found = _scores(model.eval(), test, context)  # (N, classes)
        places = {name: train.classes.index(name) for name in classes}
        codes = [tested for _, tested in classes.values()]
        kept = [found[each != IGNORED, at] for at, each in zip(places.values(), codes, strict=True)]
        positives = [each[each != IGNORED] == PRESENT for each in codes]
        aps = dict(zip(classes, map(ap_with_ties_against, kept, positives), strict=True))
        detail = {
            "per_class": aps,
            "classes_without_a_positive": [name for name in train.classes if name not in classes],
            "begun_anew": [*begun_anew(backbone)],
        }
        moved = mean_ap_influences(kept, codes, ap_with_ties_against, context.report)
        return Scores({"map": float(np.mean([*aps.values()]))}, {**detail, **kept_per_image({"map": moved})}, data)

    def _train(
        self,
        model: PresenceClassifier,
        values: FineTuning,
        images: ImageSet,
        facts: tuple[object, ...],
        context: Context,
    ) -> None:
        views = Views(images, scale_place_and_flip(model.network.input.size), context.seed)
        fit_together(
            model,
            build_optimizer([([one for one in model.parameters() if one.requires_grad], values.optimizer)]),
            lambda pixels, codes: presence_loss(model(pixels), codes),
            values.course,
            images,
            streamed(views, lambda pixels: as_input(model.network, pixels, context.device), context),
            checkpoint_path(self.card, context, *facts),
            context,
            clip=values.optimizer.clip,
        )


def _scores(model: PresenceClassifier, images: ImageSet, context: Context) -> np.ndarray:
    """(N, classes) float64: of every image the sum over its crops."""
    view = drawn_ten_times(scale_place_and_flip(model.network.input.size))
    scores, _ = scores_of(lambda pixels: summed_over_crops(model, pixels, context.device), images, view, context)
    return scores.double().numpy()


def summed_over_crops(model: PresenceClassifier, crops: Tensor, device: torch.device) -> Tensor:
    """uint8 (B, crops, 3, side, side) -> (B, classes)"""
    return torch.stack([model(as_input(model.network, crop, device)) for crop in crops.unbind(dim=1)]).sum(dim=0)


def _card(name: str, what: str, frozen: str, reported: str) -> ProtocolCard:
    return ProtocolCard(
        id=name,
        version=1,
        title=f"VOC2007, classification by an AlexNet with {what} fine-tuned",
        citation=f"Krähenbühl et al., ICLR 2016, arXiv:1511.06856, section 4; released code; {reported}",
        metrics={"map": PERCENT},
        datasets=(("voc2007", "trainval"), ("voc2007", "test")),
        takes=("AlexNet",),
        trains=True,
        frozen=frozen,
        selected="nothing: the last iterate is scored at every scale",
        departures=(
            "paper: the window is placed to a fraction of a pixel; whether the released layer rounds was not checked",
            "every scale: dropout comes after fc6 and fc7 on every network, as in CaffeNet; authors bring their own",
            "every scale: BatchNorm is folded into the weights wherever there is some, as RotNet's and colorization's "
            "authors do; DeepCluster's keep it in their code for PyTorch",
            "every scale: a network without fc6 and fc7 begins them with Caffe's weights; the authors' start depends "
            "on the data, and they rescale all other layers to match. A row that is rescaled says so",
            "desk, smoke: a class without a positive image in trainval or test is left out of the mean and named",
            "desk: 60 epochs, the rate halved after each eighth of them; the paper has 255",
        ),
    )


def _course(length: Steps | Epochs, batch_size: int) -> Course:
    """The rate is halved after each eighth of the training."""
    return Course(length, batch_size, Milestones(tuple(Part(eighth / 8) for eighth in range(1, 8)), gamma=0.5))


PAPER = FineTuning(
    _course(Steps(80_000), 16),  # VOCC
    SGD(lr=1e-3, momentum=0.9, weight_decay=1e-6, bias_rate=2, clip=10),  # VOCC
)
DESK = replace(PAPER, course=_course(Epochs(60), 16))
VALUES: dict[Scale, FineTuning] = {"paper": PAPER, "desk": DESK, "smoke": replace(DESK, course=_course(Epochs(2), 8))}

voc07_cls_krahenbuhl = VocFineTuning(
    _card("voc07_cls_krahenbuhl", "all layers", "nothing", "79.9 mAP with ImageNet's labels, 53.3 from scratch"),
    trains_convolutions=True,
    values=VALUES,
)
voc07_cls_fc6_8_krahenbuhl = VocFineTuning(
    _card("voc07_cls_fc6_8_krahenbuhl", "fc6 to fc8", "conv1 to conv5", "78.9 mAP with ImageNet's labels"),
    trains_convolutions=False,
    values=VALUES,
)
