"""Classifiers with one hidden layer on three frozen stages of Deep InfoMax's encoder, on Tiny ImageNet.

Hjelm et al., "Learning Deep Representations by Mutual Information Estimation and Maximization", ICLR 2019
(arXiv:1808.06670), section 4.1 and Table 2. What the paper leaves open is as in the authors' rdevon/DIM,
cortex_DIM/evaluation_models/classification_eval.py [DIM].

The paper's number is the average of the test accuracies after each of the last 100 epochs. Beside it stands another
protocol, in which held-out images choose one epoch of each classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.backbones.contract import Backbone
from benchmark.core.draws import mix
from benchmark.core.optimisation import Adam, Epochs, Milestones
from benchmark.core.plain import as_plain
from benchmark.core.streams import Stream
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes
from benchmark.data.loader import TrainOrder
from benchmark.data.splits import held_out
from benchmark.recipe.scales import Scale
from benchmark.records.metric import PERCENT
from benchmark.records.per_image import kept_per_image
from benchmark.transfers.contract import Context, ProtocolCard, Scores, Transfer, values_at
from benchmark.transfers.features import Tap, backbone_key, extract, taps_on
from benchmark.transfers.linear import HELD_OUT, probe_course
from benchmark.transfers.metrics import percentage, ranked_within
from benchmark.transfers.preprocessing import whole_image
from benchmark.transfers.training import Batches, Course, build_optimizer, checkpoint_path, fit, summed_cross_entropy

TAPS = (Tap("conv"), Tap("fc"), Tap("y"))  # DIM: 192 x 7 x 7 = 9,408 numbers, 4,096 and 64
HEADLINE = "fc"  # the best column of the paper's best row
AT_ONCE = 2048  # images that are classified together


@dataclass(frozen=True)
class MLPProbe:
    """units:    of the hidden layer.
    dropout:  before its BatchNorm.
    averaged: over the accuracies after each of so many last epochs; None where held-out images choose one of all.
    """

    units: int
    dropout: float
    optimizer: Adam
    course: Course
    averaged: int | None

    @property
    def epochs(self) -> int:
        assert isinstance(self.course.length, Epochs)
        return round(self.course.length.epochs)


class LastEpochs(nn.Module):
    """How often each test image was right after the last epochs. times: (taps, images)."""

    times: Tensor

    def __init__(self, taps: int, images: int, epochs: int, averaged: int) -> None:
        super().__init__()
        self.first, self.averaged = epochs - averaged + 1, averaged
        self.register_buffer("times", torch.zeros(taps, images, dtype=torch.int32))

    def note(self, epoch: int, right: Callable[[str], Tensor]) -> None:
        """epoch: from 1. right: on "test", (taps, images) bool."""
        if epoch >= self.first:
            self.times += right("test")

    def right(self) -> Tensor:
        """(taps, images), in float64: in what percentage of the averaged epochs each image was right."""
        return 100 * self.times.double() / self.averaged

    def chosen(self, taps: Iterable[str]) -> dict[str, Any]:
        return {}


class ChosenEpoch(nn.Module):
    """Which test images were right after the epoch after which most of the images that choose were, for each tap the
    first such epoch. best: (taps,) images that choose and were right then. epoch: (taps,)."""

    best: Tensor
    epoch: Tensor
    kept: Tensor

    def __init__(self, taps: int, images: int) -> None:
        super().__init__()
        self.register_buffer("best", torch.full((taps,), -1))
        self.register_buffer("epoch", torch.zeros(taps, dtype=torch.int64))
        self.register_buffer("kept", torch.zeros(taps, images, dtype=torch.bool))

    def note(self, epoch: int, right: Callable[[str], Tensor]) -> None:
        count = right("choosing").sum(dim=1)
        is_better = count > self.best
        if is_better.any():
            self.kept.copy_(torch.where(is_better[:, None], right("test"), self.kept))
            self.best.copy_(torch.where(is_better, count, self.best))
            self.epoch.masked_fill_(is_better, epoch)

    def right(self) -> Tensor:
        return self.kept

    def chosen(self, taps: Iterable[str]) -> dict[str, Any]:
        return {"epoch": dict(zip(taps, self.epoch.tolist(), strict=True))}


class Classifiers(nn.Module):
    """One of each tap, begun by the seed, and what is kept of how right they were."""

    def __init__(self, features: dict[str, Tensor], classes: int, values: MLPProbe, images: int, seed: int) -> None:
        super().__init__()
        self.of_taps = nn.ModuleDict()
        for place, (tap, x) in enumerate(features.items()):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(mix(seed, Stream.BEGUN_ANEW, place))
                self.of_taps[tap] = nn.Sequential(
                    nn.Linear(x.shape[1], values.units),
                    nn.Dropout(values.dropout),  # DIM: in this order
                    nn.BatchNorm1d(values.units),
                    nn.ReLU(inplace=True),
                    nn.Linear(values.units, classes),
                )
        taps = len(features)
        self.kept = (
            LastEpochs(taps, images, values.epochs, values.averaged) if values.averaged else ChosenEpoch(taps, images)
        )

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """-> (taps, B, classes)"""
        return torch.stack([classifier(features[tap]) for tap, classifier in self.of_taps.items()])

    def loss(self, features: dict[str, Tensor], labels: Tensor) -> Tensor:
        """Summed over classifiers, which share nothing that trains."""
        return summed_cross_entropy(self(features), labels)


@dataclass(frozen=True)
class LabelledFeatures:
    """What is known of some images on the device: features by tap (all images, numbers), labels (all images,), and
    which rows of them are meant."""

    features: dict[str, Tensor]
    labels: Tensor
    rows: Tensor

    def at(self, places: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        rows = self.rows[places]
        return {tap: x[rows] for tap, x in self.features.items()}, self.labels[rows]

    def right(self, classifiers: Classifiers) -> Tensor:
        """(taps, images) bool"""
        classifiers.eval()
        found = []
        with torch.inference_mode():
            for places in torch.arange(len(self.rows), device=self.rows.device).split(AT_ONCE):
                features, labels = self.at(places)
                found.append(ranked_within(classifiers(features), labels, 1))
        classifiers.train()
        return torch.cat(found, dim=1)

    def source(self, order: TrainOrder) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        for batch in order:
            yield self.at(torch.tensor([index for _, index in batch], device=self.rows.device))


class MLPProbeTransfer(Transfer):
    """One way to come to a number, and its values at each scale."""

    depends_on_processes = False

    def __init__(self, card: ProtocolCard, values: dict[Scale, MLPProbe]) -> None:
        self.card, self.values = card, values

    def run(self, backbone: Backbone, context: Context) -> Scores:
        values = values_at(context.scale, self.values, self.card)
        train, test = self.image_sets(context)
        data = {images.name: images.fingerprint() for images in (train, test)}
        fitting, choosing = (train, None) if values.averaged else held_out(train, HELD_OUT, context.seed)
        of_train, of_test = (_features(backbone, images, context) for images in (train, test))
        sets = {"test": of_test, "fitting": replace(of_train, rows=_rows(fitting, train, context))}
        if choosing:
            sets["choosing"] = replace(of_train, rows=_rows(choosing, train, context))
        classes = len(train.labelled(Classes).names)
        model = Classifiers(of_train.features, classes, values, len(test), context.seed).to(context.device)
        self._fit(model, values, fitting, sets, (data, backbone_key(backbone)), context)
        headline = HEADLINE if HEADLINE in backbone.stages else backbone.output
        return _scores(model, headline, data, choosing)

    def _fit(
        self,
        model: Classifiers,
        values: MLPProbe,
        fitting: ImageSet,
        sets: dict[str, LabelledFeatures],
        of_what: tuple[object, ...],
        context: Context,
    ) -> None:
        per_epoch = values.course.steps_per_epoch(len(fitting))

        def note(steps_done: int) -> None:
            if steps_done % per_epoch == 0:
                model.kept.note(steps_done // per_epoch, lambda name: sets[name].right(model))

        source: Batches = sets["fitting"].source
        checkpoint = checkpoint_path(self.card, context, context.scale, context.seed, *of_what, as_plain(values))
        optimizer = build_optimizer([(model.of_taps.parameters(), values.optimizer)])
        fit(model, optimizer, model.loss, values.course, fitting, source, checkpoint, context, note)


def _scores(model: Classifiers, headline: str, data: dict[str, str], choosing: ImageSet | None) -> Scores:
    right = dict(zip(model.of_taps, model.kept.right(), strict=True))
    per_stage = {
        tap: percentage(each) if each.dtype == torch.bool else each.mean().item() for tap, each in right.items()
    }
    chosen = {"stage": headline, **({"on": choosing.name} if choosing else {}), **model.kept.chosen(model.of_taps)}
    kept = kept_per_image({tap: each.cpu().numpy() for tap, each in right.items()})
    return Scores({"top1": per_stage[headline]}, {"per_stage": per_stage, "selected": chosen, **kept}, data)


def _features(backbone: Backbone, images: ImageSet, context: Context) -> LabelledFeatures:
    found = extract(backbone, images, whole_image(backbone.input.size), taps_on(backbone, TAPS), context)
    features = {tap: torch.from_numpy(x).to(context.device) for tap, x in found.items()}
    labels = torch.as_tensor(images.labelled(Classes).values, device=context.device)
    return LabelledFeatures(features, labels, torch.arange(len(images), device=context.device))


def _rows(part: ImageSet, whole: ImageSet, context: Context) -> Tensor:
    """Where the part's images stand in the whole set, whose features are there already."""
    place = {file: number for number, file in enumerate(whole.files)}
    return torch.tensor([place[file] for file in part.files], device=context.device)


def _values(averaged: bool) -> dict[Scale, MLPProbe]:
    """averaged: over the last 100 epochs at paper scale, and over the second half of all at the others."""
    course = Course(Epochs(1000), 64, Milestones((Epochs(50), Epochs(100))))  # DIM
    paper = MLPProbe(200, 0.1, Adam(lr=1e-4), course, 100 if averaged else None)  # DIM

    def at(epochs: int, batch_size: int) -> MLPProbe:
        shorter = probe_course(epochs, batch_size, 1 / 2, 3 / 4)
        return replace(paper, optimizer=Adam(lr=1e-3), course=shorter, averaged=epochs // 2 if averaged else None)

    return {"paper": paper, "photos": at(10, 64), "desk": at(40, 64), "smoke": at(2, 16)}


def _card(suffix: str, how: str, selected: str, departures: tuple[str, ...]) -> ProtocolCard:
    return ProtocolCard(
        id=f"tiny_imagenet_dim{suffix}",
        version=1,
        title=f"Tiny ImageNet, a hidden layer of 200 units on conv, fc and Y, {how}",
        citation="Hjelm et al., ICLR 2019, arXiv:1808.06670, section 4.1 and Table 2; 36.9 top-1 at fc",
        metrics={"top1": PERCENT},
        datasets=(("tiny_imagenet", "train"), ("tiny_imagenet", "val")),
        takes=("Alex64", "Descriptors"),
        frozen="everything, BatchNorm's running statistics too",
        selected=selected,
        departures=(
            *departures,
            "paper: one rate for all stages and methods, with its drops and its 1,000 epochs, as in the released code; "
            "the paper's rates were not the same for all of its classifiers, and it does not give them",
            "paper: images are seen as they are, in training too; neither the paper nor the code says otherwise",
            "desk: ImageNet's drawn pictures, of 96 pixels, since Tiny ImageNet's are a fifth as many",
            "desk: 40 epochs at a rate of 0.001, dropping after half and three quarters of them",
            "photos: as desk, but 10 epochs, on Tiny ImageNet itself",
        ),
    )


tiny_imagenet_dim = MLPProbeTransfer(
    _card(
        "",
        "averaged over the last epochs",
        "nothing: test accuracies are averaged, over the last 100 epochs at paper scale, and over the second half of "
        "all epochs at the others; the headline is fc",
        (),
    ),
    _values(averaged=True),
)

tiny_imagenet_dim_held_out = MLPProbeTransfer(
    _card(
        "_held_out",
        "the epoch chosen",
        "each stage's epoch, on a fifth of the training images, held out, at every scale; the headline is fc",
        (
            "every scale: the best epoch of each classifier by held-out images; the paper averages test accuracies "
            "over the last 100 epochs",
            "every scale: four fifths of the training images train",
        ),
    ),
    _values(averaged=False),
)
