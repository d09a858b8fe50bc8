"""What a frozen backbone gives to a protocol: stages pooled to a grid, or its output; extracted once and kept where
nothing random is drawn; and the check that it did stay frozen."""

from __future__ import annotations

import copy
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.contract import Backbone
from benchmark.backbones.weights import describe
from benchmark.core import distributed
from benchmark.core.errors import UserError
from benchmark.core.files import write_whole
from benchmark.core.plain import as_plain
from benchmark.data.batch import Batch
from benchmark.data.image_set import ImageSet
from benchmark.data.loader import Position, TrainOrder, Views, batches
from benchmark.transfers.contract import Context
from benchmark.transfers.preprocessing import Preprocessing
from benchmark.transfers.turns import CPU, in_turn

EVALUATION_BATCH = 128
PART = 8192  # images whose features are held in memory, and written as one file
POOLING = 3  # raise it with any change of a pooling: features kept from before are then extracted anew


@dataclass(frozen=True)
class Pooling:
    """Base of what makes less of a map: (B, C, H, H) -> (B, C, cells, cells)."""

    def __call__(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__}.__call__")


@dataclass(frozen=True)
class Mean(Pooling):
    """To a single cell."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3), keepdim=True)


@dataclass(frozen=True)
class TwoCells(Pooling):
    """To two cells with the mean and the mean square of all: their mean, less and plus the standard deviation. In a
    batch, BatchNorm finds in them what it would find in all cells, and what it makes of them has the same average. (The
    correction that its running variance has for small samples is that for so few.)"""

    def __call__(self, x: Tensor) -> Tensor:
        spread, mean = torch.std_mean(x, dim=(2, 3), keepdim=True, correction=0)
        return torch.cat([mean - spread, mean + spread], dim=3)


@dataclass(frozen=True)
class Grid(Pooling):
    """To `cells` x `cells` from `side` x `side`, which is the map's size on 224 px. A smaller map gets cells of as many
    pixels as there, as smaller cells would hand a small image's layout to the classifier; a larger one the same grid.
    """

    side: int
    cells: int

    def cells_on(self, x: Tensor) -> int:
        return min(max(round(self.cells * x.shape[-1] / self.side), 1), self.cells)


@dataclass(frozen=True)
class AverageGrid(Grid):
    kernel: int
    stride: int
    padding: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[-1] == self.side:
            return F.avg_pool2d(x, self.kernel, self.stride, self.padding)
        return F.adaptive_avg_pool2d(x, self.cells_on(x))


@dataclass(frozen=True)
class AdaptiveMaxGrid(Grid):
    def __call__(self, x: Tensor) -> Tensor:
        return F.adaptive_max_pool2d(x, self.cells_on(x))


@dataclass(frozen=True)
class BilinearGrid(Grid):
    """The map resized as in Krähenbühl's Caffe (philkr/caffe, branch future, resize_layer.cpp): blurred along each axis
    by a tent that reaches as far as cells lie apart, then read bilinearly. The outer cells lie on the map's border.
    Where there is only one cell, as on small images, that layer divides by zero; here it is the mean of the map."""

    def __call__(self, x: Tensor) -> Tensor:
        shares = _shares(x.shape[-1], self.cells_on(x)).to(x)
        return shares @ x @ shares.T


@cache
def _shares(side: int, cells: int) -> Tensor:
    """(cells, side) float64: what each row of a map counts in each row of cells."""
    if cells == 1:
        return torch.full((1, side), 1 / side, dtype=torch.float64)
    apart = (side - 1) / (cells - 1)
    rows, reach = torch.arange(side), int(apart)
    blur = torch.zeros(side, side, dtype=torch.float64)
    for off in range(-reach, reach + 1):  # beyond the border lies what is on it
        blur[rows, (rows + off).clamp(0, side - 1)] += apart - abs(off)
    places = apart * torch.arange(cells, dtype=torch.float64)
    read = (1 - (places[:, None] - rows).abs()).clamp_min(0)
    return read @ blur / blur[0].sum()


@dataclass(frozen=True)
class Tap:
    """One feature of a backbone: a stage and what becomes of its map; without a pooling, all of it."""

    stage: str
    pooling: Pooling | None = None

    @property
    def name(self) -> str:
        return f"{self.stage}_average" if isinstance(self.pooling, Mean) else self.stage

    def read(self, maps: dict[str, Tensor]) -> Tensor:
        """-> (B, channels, cells, cells)"""
        x = maps[self.stage]
        if self.pooling:
            return self.pooling(x)
        return x if x.ndim == 4 else x[:, :, None, None]


# A ResNet's stages at about 9,000 numbers each: Goyal et al., "Scaling and Benchmarking Self-Supervised Visual
# Representation Learning", ICCV 2019, as in facebookresearch/fair_self_supervision_benchmark,
# resnet_supervised_finetune_linear.py.
GOYAL_TAPS = (
    Tap("conv1", AverageGrid(112, 12, kernel=10, stride=10, padding=4)),  # 64 x 12 x 12 = 9,216
    Tap("res2", AverageGrid(56, 6, kernel=16, stride=8)),  # 256 x 6 x 6 = 9,216
    Tap("res3", AverageGrid(28, 4, kernel=13, stride=5)),  # 512 x 4 x 4 = 8,192
    Tap("res4", AverageGrid(14, 3, kernel=8, stride=3)),  # 1024 x 3 x 3 = 9,216
    Tap("res5", AverageGrid(7, 2, kernel=6, stride=1)),  # 2048 x 2 x 2 = 8,192
)
GOYAL_TAKES = ("ResNet", "ResNeXt", "SplitResNet", "ResNetEnsemble", "Descriptors")  # what has these stages


def output_tap(backbone: Backbone, pooling: Pooling | None = None) -> Tap:
    """What any backbone has, whatever its stages are: its output; where it is a map, pooled, or averaged over space."""
    is_map = backbone.stages[backbone.output].stride is not None
    return Tap(backbone.output, pooling or Mean() if is_map else None)


def taps_on(backbone: Backbone, protocols: tuple[Tap, ...]) -> tuple[Tap, ...]:
    """The protocol's own; where no stage is a map, there is nothing to pool, and each is taken as it is."""
    if any(stage.stride is not None for stage in backbone.stages.values()):
        return protocols
    return tuple(Tap(stage) for stage in backbone.stages)


def tapped(backbone: Backbone, taps: tuple[Tap, ...], x: Tensor) -> dict[str, Tensor]:
    """Tap name -> (B, channels, cells, cells) of images as the backbone takes them, which run no further than the last
    tap needs."""
    stages = list(backbone.stages)
    for tap in taps:
        if tap.stage not in stages:
            raise UserError(f"there is no stage {tap.stage} in {type(backbone).__name__}; it has {', '.join(stages)}")
        if tap.pooling and backbone.stages[tap.stage].stride is None:
            raise UserError(f"stage {tap.stage} of {type(backbone).__name__} is a vector; the protocol pools a map")
    maps = backbone.forward_stages(x, max((tap.stage for tap in taps), key=stages.index))
    return {tap.name: tap.read(maps) for tap in taps}


class NotFrozenError(RuntimeError):
    """A backbone that a protocol calls frozen has changed. A fault of the program, not of its user."""


@contextmanager
def frozen(backbone: nn.Module) -> Iterator[None]:
    """Check that every parameter and buffer, BatchNorm's running statistics too, ends with the bits it began with."""
    before = state_hash(backbone)
    yield
    if state_hash(backbone) != before:
        raise NotFrozenError("the backbone's parameters or buffers changed while it should have been frozen")


def state_hash(module: nn.Module) -> str:
    """Twelve hex digits over names, shapes and bits of the whole state."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def backbone_key(backbone: Backbone) -> dict[str, object]:
    """What of a backbone decides its features: the architecture, which is all that one without weights has, the
    weights and the meaning of its input."""
    return {**describe(backbone), "state": state_hash(backbone)}


def digest(facts: object) -> str:
    """Sixteen hex digits of JSON-ready facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def working_copy(backbone: Backbone, device: torch.device) -> Backbone:
    """A copy on `device`, channels last: a third faster there on a CPU, and the caller's backbone stays untouched."""
    return copy.deepcopy(backbone).to(device).to(memory_format=torch.channels_last)


def as_input(backbone: Backbone, images: Tensor, device: torch.device) -> Tensor:
    """uint8 (B, 3, H, W) -> what the backbone takes, on `device`."""
    return backbone.input.prepare(images.to(device, memory_format=torch.channels_last, non_blocking=True))


def once(last: int, first: int = 0, epoch: int = 0) -> list[list[Position]]:
    """The images from `first` up to `last`, each once, in the set's order."""
    starts = range(first, last, EVALUATION_BATCH)
    return [[(epoch, i) for i in range(start, min(start + EVALUATION_BATCH, last))] for start in starts]


def at_positions(
    views: Views, positions: TrainOrder | list[list[Position]], workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """(uint8 images, labels), a pair for each list of positions; the label is -1 where the set has none."""
    for batch in batches(views, positions, workers, labels=True):
        assert batch.labels is not None
        yield batch.views["image"], batch.labels


def scores_of(
    scored: Callable[[Tensor], Tensor], images: ImageSet, view: Preprocessing, context: Context
) -> tuple[Tensor, Tensor]:
    """What `scored` makes of uint8 views, and the labels, of the whole set: (N, ...) each, on the CPU. Processes take
    batches in turn, and all have all."""
    found, done = [], 0
    views = Views(images, view, context.seed, wanted=())  # of images that are seen once

    def made(batch: Batch) -> list[Tensor]:
        assert batch.labels is not None
        with torch.inference_mode():
            return [scored(batch.views["image"]).cpu(), batch.labels]

    for scores, labels in in_turn(views, once(len(images)), context.workers, made, CPU):
        found.append((scores, labels))
        done += len(labels)
        context.report(f"classes of {images.name}", done, len(images), {})
    scores, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    return scores, labels


def classifier_scores(
    model: nn.Module, backbone: Backbone, images: ImageSet, view: Preprocessing, context: Context
) -> tuple[Tensor, Tensor]:
    """`scores_of` a model that takes what its backbone does, (B, channels, H, W): (N, classes) and (N,)."""
    return scores_of(lambda pixels: model(as_input(backbone, pixels, context.device)), images, view, context)


def extract(
    backbone: Backbone, images: ImageSet, preprocessing: Preprocessing, taps: tuple[Tap, ...], context: Context
) -> dict[str, np.ndarray]:
    """Tap name -> (N, dimensions) float32 features of every image, from one pass over the images.

    They are kept below the workspace by (pooling, backbone, data, preprocessing, tap, part of the set), so another
    protocol that needs the same finds them, and a killed extraction goes on after its last whole part. Several
    processes share the work; the first one keeps what all of them then read.
    """
    facts = (POOLING, backbone_key(backbone), images.fingerprint(), preprocessing.name)
    folder = {tap: context.workspace / "features" / digest([*facts, as_plain(tap)]) for tap in taps}
    starts = range(0, len(images), PART)
    missing = {s: [tap for tap in taps if not (folder[tap] / f"{s:08d}.npy").is_file()] for s in starts}
    todo = {start: absent for start, absent in distributed.decided(missing).items() if absent}
    if todo:
        trunk = working_copy(backbone, context.device)
        views = Views(images.without_labels(), preprocessing, context.seed, wanted=())  # of images that are seen once
        with frozen(trunk):
            for start, absent in todo.items():
                _extract_part(trunk, views, start, {tap: folder[tap] for tap in absent}, context)
    return {tap.name: _read_parts(folder[tap], starts) for tap in taps}


def _extract_part(trunk: Backbone, views: Views, start: int, folders: dict[Tap, Path], context: Context) -> None:
    end, done = min(start + PART, len(views.images)), start
    rows: dict[Tap, list[Tensor]] = {tap: [] for tap in folders}

    def made(batch: Batch) -> list[Tensor]:
        with torch.inference_mode():
            found = tapped(trunk, tuple(folders), as_input(trunk, batch.views["image"], context.device))
            return [found[tap.name].flatten(1).cpu() for tap in folders]

    for found in in_turn(views, once(end, start), context.workers, made, CPU, labels=False):
        for tap, features in zip(folders, found, strict=True):
            rows[tap].append(features)
        done += len(found[0])
        context.report(f"features of {views.images.name}", done, len(views.images), {})
    with distributed.together():
        for tap, folder in folders.items():
            _keep(torch.cat(rows[tap]), folder / f"{start:08d}.npy", f"{views.images.name} at {tap.name}")


def _keep(features: Tensor, path: Path, what: str) -> None:
    if not features.isfinite().all():
        raise UserError(f"the features of {what} are not finite; the backbone's weights may hold NaN: see its log")
    if distributed.rank() == 0:
        content = io.BytesIO()
        np.save(content, features.numpy())
        write_whole(path, content.getvalue())


def _read_parts(folder: Path, starts: range) -> np.ndarray:
    return np.concatenate([np.load(folder / f"{start:08d}.npy", mmap_mode="r") for start in starts])
