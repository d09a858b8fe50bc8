"""Linear classifiers on a frozen backbone: stages pooled to about 9,000 numbers each, all of them trained in one pass.

*_goyal: Goyal et al., "Scaling and Benchmarking Self-Supervised Visual Representation Learning", ICCV 2019
         (arXiv:1905.01235), as released in facebookresearch/fair_self_supervision_benchmark [FSSB].
*_pirl:  Misra & van der Maaten, CVPR 2020 (arXiv:1912.01991), section 3.2 and supplement C; what the paper leaves open
         as in its authors' facebookresearch/vissl [VISSL].
*_moco:  He et al., CVPR 2020 (arXiv:1911.05722), section 4.1, as in facebookresearch/moco, main_lincls.py [MOCO]: one
         classifier on the averaged last stage.

A supervised ResNet-50 reaches 75.9 on ImageNet, 51.5 on Places205 and 45.4 on iNaturalist under the second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from benchmark.backbones.contract import Backbone
from benchmark.core import distributed
from benchmark.core.draws import mix
from benchmark.core.optimisation import SGD, Epochs, Milestones, Optimizer, Span, Steps
from benchmark.core.plain import as_plain
from benchmark.core.streams import Stream
from benchmark.data.batch import Batch
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes
from benchmark.data.loader import Position, TrainOrder, Views
from benchmark.data.splits import held_out
from benchmark.recipe.scales import Scale
from benchmark.records.metric import PERCENT
from benchmark.records.per_image import kept_per_image
from benchmark.transfers.contract import Context, ProtocolCard, Scores, Transfer, values_at
from benchmark.transfers.features import (
    GOYAL_TAKES,
    GOYAL_TAPS,
    Mean,
    Tap,
    TwoCells,
    as_input,
    backbone_key,
    frozen,
    once,
    output_tap,
    tapped,
    taps_on,
    working_copy,
)
from benchmark.transfers.metrics import mean_over_crops, ranked_within
from benchmark.transfers.preprocessing import Preprocessing, centre_crop, crop_and_flip, crop_flip_and_colour
from benchmark.transfers.training import (
    Batches,
    Course,
    build_optimizer,
    checkpoint_path,
    fit,
    gaussian,
    summed_cross_entropy,
)
from benchmark.transfers.turns import in_turn, views_in_turn

Maps = dict[str, Tensor]  # tap -> (B, C, grid, grid)

PHOTOS_VIEWS = 2  # of 80,000 images they take 0.8 GB; of the descriptors, 3.4 GB
DESK_VIEWS = 8  # 40 epochs over these score as 24 over views that are all new, for a third of the backbone's time
HELD_OUT = 0.2  # of the training images, at all scales but paper, for choosing stage and regularisation


def small_weights(linear: nn.Linear, generator: torch.Generator) -> None:
    gaussian(linear, 0.01, generator)


@dataclass(frozen=True)
class Probe:
    """taps:        the features that get a head each; None: the backbone's output alone.
    batch_norm:  without scale and shift, before each head; "cells": of all cells of the output, before their average.
    optimizers:  one head of each tap for each of these; more than one only where held-out images choose.
    track_every: None scores the last iterate; a span scores the best of the iterates it visits, on the test images.
    held_out:    part of the training images kept for choosing; 0 chooses on the test images, as the protocols do.
    views:       None augments anew in every epoch; a number draws so many views of each image and uses them in turn.
    test_view:   of the images that choose and those that are scored; several crops of each are averaged.
    start:       gives the heads their first weights.
    """

    taps: tuple[Tap, ...] | None
    batch_norm: bool | Literal["cells"]
    augment: Callable[[int], Preprocessing]
    optimizers: tuple[Optimizer, ...]
    course: Course
    track_every: Span | None = None
    held_out: float = 0.0
    views: int | None = None
    test_view: Callable[[int], Preprocessing] = centre_crop
    start: Callable[[nn.Linear, torch.Generator], object] = small_weights  # FSSB, MOCO


class Heads(nn.Module):
    """For each tap a BatchNorm without scale and shift, and one linear classifier per optimizer; of all these heads,
    tap by tap, the ones that this process trains.

    variants: of each tap that has such heads, which optimizers are theirs.
    best: (heads, N) bool, which of the images that choose were right at the best of the iterates so far.
    """

    best: Tensor

    def __init__(self, maps: Maps, num_classes: int, probe: Probe, seed: int, choosing: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(mix(seed, Stream.LINEAR_HEADS))
        self.averages = probe.batch_norm == "cells"
        self.norms, self.linears = nn.ModuleDict(), nn.ModuleDict()
        count = len(probe.optimizers)
        own = distributed.own_part(len(maps) * count)
        self.variants: dict[str, list[int]] = {}
        for place, (tap, x) in enumerate(maps.items()):  # (B, C, grid, grid)
            inputs = x.shape[1] if self.averages else x[0].numel()
            heads = [_linear(inputs, num_classes, probe, generator) for _ in range(count)]
            if variants := [v for v in range(count) if place * count + v in own]:
                self.norms[tap] = nn.BatchNorm2d(x.shape[1], affine=False) if probe.batch_norm else nn.Identity()
                self.linears[tap] = nn.ModuleList(heads[v] for v in variants)
                self.variants[tap] = variants
        self.register_buffer("best", torch.zeros(len(own), choosing, dtype=torch.bool))

    def forward(self, maps: Maps) -> Tensor:
        """tap -> (B, C, grid, grid) to (heads, B, classes)"""
        rows = []
        for tap, linears in self.linears.items():
            x = self.norms[tap](maps[tap])
            x = x.mean(dim=(2, 3)) if self.averages else x.flatten(1)
            rows += [linear(x) for linear in cast(nn.ModuleList, linears)]
        return torch.stack(rows)

    def loss(self, maps: Maps, labels: Tensor) -> Tensor:
        """Summed over heads, which share no parameter."""
        return summed_cross_entropy(self(maps), labels)


def _linear(inputs: int, outputs: int, probe: Probe, generator: torch.Generator) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    probe.start(linear, generator)
    return linear


class LinearTransfer(Transfer):
    """One dataset, one protocol, and the protocol's values at each scale."""

    depends_on_processes = False

    def __init__(self, card: ProtocolCard, values: dict[Scale, Probe]) -> None:
        self.card, self.values = card, values

    def run(self, backbone: Backbone, context: Context) -> Scores:
        probe = values_at(context.scale, self.values, self.card)
        train, test = self.image_sets(context)
        trunk = working_copy(backbone, context.device)
        with frozen(trunk):
            return _Run(self.card, probe, trunk, context).scores(train, test)


class _Run:
    """One backbone under one probe."""

    def __init__(self, card: ProtocolCard, probe: Probe, trunk: Backbone, context: Context) -> None:
        self.card, self.probe, self.trunk, self.context = card, probe, trunk, context
        output = output_tap(trunk, TwoCells() if probe.batch_norm == "cells" else None)
        self.taps = taps_on(trunk, probe.taps) if probe.taps else (output,)
        self.augment = probe.augment(trunk.input.size)
        self.test_view = probe.test_view(trunk.input.size)

    def scores(self, train: ImageSet, test: ImageSet) -> Scores:
        data = {images.name: images.fingerprint() for images in (train, test)}
        seed, part = self.context.seed, self.probe.held_out
        fitting, choosing = held_out(train, part, seed) if part else (train, test)
        choice = self._tested(choosing)
        heads = self._heads(len(train.labelled(Classes).names), len(choosing))
        checkpoint = self._checkpoint(data)
        self._fit(heads, fitting, choice, checkpoint)
        chosen_by = self._of_all(_better(heads.best, self._right(heads, choice)))  # (taps, optimizers, N)
        final = self._of_all(self._right(heads, self._tested(test))) if part else chosen_by
        return replace(self._choose(chosen_by, final, choosing.name), data=data)

    def _heads(self, num_classes: int, choosing: int) -> Heads:
        side = self.trunk.input.size
        maps = self._maps(torch.zeros(2, 3, side, side, dtype=torch.uint8))
        return Heads(maps, num_classes, self.probe, self.context.seed, choosing).to(self.context.device)

    def _tested(self, images: ImageSet) -> Views:
        return views_in_turn(images, self.test_view, self.context.seed, once(len(images)))

    def _fit(self, heads: Heads, images: ImageSet, choice: Views, checkpoint: Path) -> None:
        probe = self.probe
        groups = [
            (linear.parameters(), probe.optimizers[variant])
            for tap, linears in heads.linears.items()
            for linear, variant in zip(cast(nn.ModuleList, linears), heads.variants[tap], strict=True)
        ]
        every = probe.track_every and probe.track_every.steps(probe.course.steps_per_epoch(len(images)))

        def track(steps_done: int) -> None:
            if every and steps_done % every == 0:
                heads.best.copy_(_better(heads.best, self._right(heads, choice)))

        source = self._stored(images, heads, probe.views) if probe.views else self._streamed(images)
        optimizer = build_optimizer(groups)
        fit(heads, optimizer, heads.loss, probe.course, images, source, checkpoint, self.context, track)

    def _streamed(self, images: ImageSet) -> Batches:
        """Of views drawn anew at every step."""
        views = Views(images, self.augment, self.context.seed)

        def source(order: TrainOrder) -> Iterator[tuple[Maps, Tensor]]:
            for (maps,), labels in self._seen(views, order):
                yield maps, labels

        return source

    def _stored(self, images: ImageSet, heads: Heads, count: int) -> Batches:
        """The maps of `count` views of every image, in memory: epoch e trains on the views of epoch e % count."""
        num_images = len(images)
        positions = [batch for epoch in range(count) for batch in once(num_images, epoch=epoch)]
        views = views_in_turn(images, self.augment, self.context.seed, positions)
        store: Maps = {}
        row = 0
        for (maps,), found in self._seen(views, positions):
            for tap in heads.variants:
                x = maps[tap]
                if tap not in store:
                    store[tap] = x.new_empty(count * num_images, *x.shape[1:])
                store[tap][row : row + len(x)] = x
            row += len(found)
            self.context.report(f"views of {images.name}", row, count * num_images, {})
        labels = torch.as_tensor(images.labelled(Classes).values, device=self.context.device)

        def source(order: TrainOrder) -> Iterator[tuple[Maps, Tensor]]:
            for batch in order:
                rows = torch.tensor([epoch % count * num_images + i for epoch, i in batch], device=labels.device)
                yield {tap: maps.index_select(0, rows) for tap, maps in store.items()}, labels[rows % num_images]

        return source

    def _maps(self, pixels: Tensor) -> Maps:
        with torch.no_grad():
            return tapped(self.trunk, self.taps, as_input(self.trunk, pixels, self.context.device))

    def _seen(self, views: Views, positions: TrainOrder | list[list[Position]]) -> Iterator[tuple[list[Maps], Tensor]]:
        """(the maps of each crop, labels) of each batch, computed by one process and known to all."""
        device, names = self.context.device, [tap.name for tap in self.taps]

        def made(batch: Batch) -> list[Tensor]:
            assert batch.labels is not None
            pixels = batch.views["image"]
            crops = [self._maps(crop) for crop in (pixels.unbind(dim=1) if pixels.ndim == 5 else [pixels])]
            return [*(maps[name] for maps in crops for name in names), batch.labels.to(device)]

        for found in in_turn(views, positions, self.context.workers, made, device):
            *tensors, labels = found
            starts = range(0, len(tensors), len(names))
            yield [dict(zip(names, tensors[start:], strict=False)) for start in starts], labels

    def _right(self, heads: Heads, views: Views) -> Tensor:
        """Which images every head of this process classifies rightly: (heads, N) bool, on the heads' device."""
        heads.eval()
        parts = []
        with torch.inference_mode():
            for crops, labels in self._seen(views, once(len(views.images))):
                parts.append(ranked_within(mean_over_crops([heads(maps) for maps in crops]), labels, 1))
        heads.train()
        return torch.cat(parts, dim=1)

    def _of_all(self, right: Tensor) -> Tensor:
        """Of the heads of all processes: (heads, N) -> (taps, optimizers, N)."""
        count = len(self.taps) * len(self.probe.optimizers)
        parts = distributed.tensors_of_all(deque([[right]]), right.device)
        found = zip(distributed.parts_of_all(count), parts, strict=True)
        rows = {place: row for part, (own,) in found for place, row in zip(part, own, strict=True)}
        return torch.stack([rows[place] for place in range(count)]).view(len(self.taps), -1, right.shape[-1])

    def _choose(self, chosen_by: Tensor, final: Tensor, chosen_on: str) -> Scores:
        """Of each tap the optimizer, then of all taps the one, that is best by `chosen_by`; scored by `final`. Both are
        (taps, optimizers, images) bool."""
        on_choosing = _percent(chosen_by)
        variants = on_choosing.argmax(dim=1).tolist()
        names = [tap.name for tap in self.taps]
        chosen = dict(zip(names, on_choosing.amax(dim=1).tolist(), strict=True))
        right = {name: final[t, v] for t, (name, v) in enumerate(zip(names, variants, strict=True))}
        per_stage = {name: _percent(each).item() for name, each in right.items()}
        optimizers = {name: as_plain(self.probe.optimizers[v]) for name, v in zip(names, variants, strict=True)}
        stage = max(names, key=lambda name: chosen[name])
        detail = {
            "per_stage": per_stage,
            "selected": {"stage": stage, "on": chosen_on, "top1": chosen, "optimizer": optimizers},
            **kept_per_image({name: each.cpu().numpy() for name, each in right.items()}),
        }
        return Scores({"top1": per_stage[stage]}, detail)

    def _checkpoint(self, data: dict[str, str]) -> Path:
        context, probe = self.context, self.probe
        read = (context.scale, context.seed, data, self.augment.name, probe.views)
        trained = (backbone_key(self.trunk), as_plain(probe.course), as_plain(probe.optimizers))
        heads = len(self.taps) * len(probe.optimizers)
        return checkpoint_path(self.card, context, *read, *trained, [*distributed.own_part(heads)])


def _percent(right: Tensor) -> Tensor:
    """(..., N) bool -> (...,) float64"""
    return 100 * right.sum(dim=-1).double() / right.shape[-1]


def _better(one: Tensor, other: Tensor) -> Tensor:
    """Of every head, (..., N) bool, the one of more right images; of two with as many, the first."""
    return torch.where((other.sum(dim=-1) > one.sum(dim=-1))[..., None], other, one)


READER = {"imagenet": "imagenet", "places205": "places205", "inat18": "inat2018"}
TITLES = {"imagenet": "ImageNet", "places205": "Places205", "inat18": "iNaturalist 2018"}
CHOSEN_ON_TEST = "paper: the best stage{}, on the test images, as the protocol does. "
CHOSEN_ON_HELD_OUT = (
    "Elsewhere: {}, on a fifth of the training images, held out; the test images only give the final number"
)
FIFTH_CHOOSES = "desk: four fifths of the training images train, the last fifth chooses"
VIEWS_IN_TURN = "desk: eight augmented views of each image, used in turn, instead of a new one in every epoch"
LAST_ITERATE = "desk: the last iterate is scored"
DEPARTURES = (
    FIFTH_CHOOSES,
    "desk: 40 epochs in batches of 64, with the rate dropping at the same fractions of the training",
    VIEWS_IN_TURN,
    LAST_ITERATE,
)
ON_PHOTOS = "photos: as desk, but 10 epochs, and two views of each image, since eight would take 3.9 GiB of memory"
WEIGHT_DECAYS = "desk: one of three weight decays is chosen, since 2,000 images need another than a million"


def probe_course(epochs: float, batch_size: int, *drops: float, gamma: float = 0.1) -> Course:
    """`drops`: the fractions of the training at which the rate falls to `gamma` of what it was."""
    return Course(Epochs(epochs), batch_size, Milestones(tuple(Epochs(epochs * drop) for drop in drops), gamma))


def probe_scales(
    paper: Probe, optimizers: tuple[Optimizer, ...], *drops: float, gamma: float = 0.1
) -> dict[Scale, Probe]:
    """A protocol's values at every scale, from those of its paper and what is the desk's own."""
    desk = replace(
        paper,
        optimizers=optimizers,
        course=probe_course(40, 64, *drops, gamma=gamma),
        track_every=None,
        held_out=HELD_OUT,
        views=DESK_VIEWS,
    )
    photos = replace(desk, course=probe_course(10, 64, *drops, gamma=gamma), views=PHOTOS_VIEWS)
    smoke = replace(desk, course=probe_course(2, 16, *drops, gamma=gamma), views=2)
    return {"paper": paper, "photos": photos, "desk": desk, "smoke": smoke}


def _pirl(dataset: str, epochs: float, reported: str) -> LinearTransfer:
    card = ProtocolCard(
        id=f"linear_{dataset}_pirl",
        version=2,
        title=f"{TITLES[dataset]}, linear on the best frozen stage",
        citation=f"Misra & van der Maaten, CVPR 2020, arXiv:1912.01991, section 3.2, supplement C; {reported}",
        metrics={"top1": PERCENT},
        datasets=((READER[dataset], "train"), (READER[dataset], "val")),
        takes=GOYAL_TAKES,
        frozen="everything, BatchNorm's running statistics too",
        selected=CHOSEN_ON_TEST.format("") + CHOSEN_ON_HELD_OUT.format("stage and weight decay"),
        departures=(
            "paper: Nesterov momentum, as in VISSL; the paper does not mention it",
            "paper: the rate drops twice, as the paper says; VISSL's drops three times",
            "paper: BatchNorm has no scale and shift, as in Goyal et al.; VISSL's learns them",
            *DEPARTURES,
            WEIGHT_DECAYS,
            *([ON_PHOTOS] if dataset == "imagenet" else []),
        ),
    )
    sgd = SGD(lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)  # PIRL supplement C; VISSL
    paper = Probe(
        taps=GOYAL_TAPS,
        batch_norm=True,  # FSSB
        augment=crop_and_flip,  # VISSL
        optimizers=(sgd,),
        course=probe_course(epochs, 256, 1 / 3, 2 / 3),  # PIRL supplement C: two equally spaced drops; VISSL has three
    )
    return LinearTransfer(card, probe_scales(paper, three_decays(sgd), 1 / 3, 2 / 3))


def _goyal(dataset: str) -> LinearTransfer:
    card = ProtocolCard(
        id=f"linear_{dataset}_goyal",
        version=2,
        title=f"{TITLES[dataset]}, linear on the best frozen stage, 140,000 steps",
        citation="Goyal et al., ICCV 2019, arXiv:1905.01235",
        metrics={"top1": PERCENT},
        datasets=((READER[dataset], "train"), (READER[dataset], "val")),
        takes=GOYAL_TAKES,
        frozen="everything, BatchNorm's running statistics too",
        selected=CHOSEN_ON_TEST.format(" and the best of the iterates visited every 5,000 steps")
        + CHOSEN_ON_HELD_OUT.format("stage and weight decay"),
        departures=(
            "paper: no head on the max-pooled conv1, which is not a stage here",
            *DEPARTURES,
            WEIGHT_DECAYS,
            *([ON_PHOTOS] if dataset == "imagenet" else []),
        ),
    )
    sgd = SGD(lr=0.01, momentum=0.9, weight_decay=1e-4, nesterov=True)  # FSSB
    paper = Probe(
        taps=(*GOYAL_TAPS, Tap("res5", Mean())),  # FSSB
        batch_norm=True,  # FSSB: SpatialBN, scale and shift not learned
        augment=crop_flip_and_colour,  # FSSB: lighting 0.1, jitter 0.4
        optimizers=(sgd,),
        course=Course(Steps(140_000), 256, Milestones((Steps(40_000), Steps(80_000), Steps(120_000)))),  # FSSB
        track_every=Steps(5_000),  # FSSB
    )
    return LinearTransfer(card, probe_scales(paper, three_decays(sgd), 2 / 7, 4 / 7, 6 / 7))


def _moco() -> LinearTransfer:
    card = ProtocolCard(
        id="linear_imagenet_moco",
        version=1,
        title="ImageNet, linear on the averaged last stage, rate 30",
        citation="He et al., CVPR 2020, arXiv:1911.05722, section 4.1",
        metrics={"top1": PERCENT},
        datasets=(("imagenet", "train"), ("imagenet", "val")),
        frozen="everything, BatchNorm's running statistics too",
        selected="paper: the best epoch, on the test images, as the released code prints it. "
        + CHOSEN_ON_HELD_OUT.format("the rate"),
        departures=(
            *DEPARTURES,
            "desk: the rate is one of 30, 3 and 0.3, since features of another width have another size",
            ON_PHOTOS,
        ),
    )
    paper = Probe(
        taps=None,
        batch_norm=False,
        augment=crop_and_flip,  # MOCO
        optimizers=(SGD(lr=30.0, momentum=0.9),),  # MOCO
        course=probe_course(100, 256, 0.6, 0.8),  # MOCO
        track_every=Epochs(1),  # MOCO
    )
    rates = tuple(SGD(lr, momentum=0.9) for lr in (30.0, 3.0, 0.3))
    return LinearTransfer(card, probe_scales(paper, rates, 0.6, 0.8))


def three_decays(protocol: SGD) -> tuple[SGD, ...]:
    """What the desk chooses from: the protocol's weight decay, ten times and a hundred times that."""
    return tuple(replace(protocol, weight_decay=protocol.weight_decay * factor) for factor in (1, 10, 100))


linear_imagenet_pirl = _pirl("imagenet", epochs=28, reported="63.6 top-1")
linear_places205_pirl = _pirl("places205", epochs=14, reported="49.8 top-1")
linear_inat18_pirl = _pirl("inat18", epochs=84, reported="34.1 top-1")
linear_imagenet_goyal = _goyal("imagenet")
linear_places205_goyal = _goyal("places205")
linear_imagenet_moco = _moco()
