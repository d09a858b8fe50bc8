"""What a frozen backbone gives to a protocol: each stage pooled to about 9,000 numbers, or the last stage averaged;
extracted once and kept where nothing random is drawn; and the check that it did stay frozen.

Pools: Goyal et al., "Scaling and Benchmarking Self-Supervised Visual Representation Learning", ICCV 2019, as in
facebookresearch/fair_self_supervision_benchmark, resnet_supervised_finetune_linear.py.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.contract import Backbone, Stage
from benchmark.core.errors import UserError
from benchmark.core.files import write_whole
from benchmark.core.plain import as_plain
from benchmark.data.image_set import ImageSet
from benchmark.data.loader import Position, TrainOrder, Views, batches
from benchmark.transfers.contract import Context
from benchmark.transfers.preprocessing import Preprocessing

EVALUATION_BATCH = 128
PART = 8192  # images whose features are held in memory, and written as one file
DIMENSIONS = 9216  # what the pools aim at
POOLING = 2  # raise it with any change of `pooled`: features kept from before are then extracted anew


@dataclass(frozen=True)
class Pool:
    """An average pool on a map of `side` cells, and the side of the grid that comes out."""

    side: int
    kernel: int
    stride: int
    padding: int
    grid: int


POOLS = {  # of a ResNet on 224 px
    "conv1": Pool(112, 10, 10, 4, 12),  # 64 x 12 x 12 = 9,216
    "res2": Pool(56, 16, 8, 0, 6),  # 256 x 6 x 6 = 9,216
    "res3": Pool(28, 13, 5, 0, 4),  # 512 x 4 x 4 = 8,192
    "res4": Pool(14, 8, 3, 0, 3),  # 1024 x 3 x 3 = 9,216
    "res5": Pool(7, 6, 1, 0, 2),  # 2048 x 2 x 2 = 8,192
}


@dataclass(frozen=True)
class Tap:
    """One feature of a backbone: a stage, pooled to its grid or averaged over space."""

    stage: str
    averaged: bool = False

    @property
    def name(self) -> str:
        return f"{self.stage}_average" if self.averaged else self.stage

    def read(self, maps: dict[str, Tensor], stages: dict[str, Stage]) -> Tensor:
        """-> (B, channels, grid, grid)"""
        if stages[self.stage].stride is None:
            return maps[self.stage][:, :, None, None]
        if self.averaged:
            return maps[self.stage].mean(dim=(2, 3), keepdim=True)
        return pooled(maps[self.stage], self.stage, stages[self.stage])


def stage_taps(backbone: Backbone) -> tuple[Tap, ...]:
    return tuple(Tap(stage) for stage in backbone.stages)


def last_average(backbone: Backbone) -> Tap:
    return Tap(next(reversed(backbone.stages)), averaged=True)


def pooled(x: Tensor, name: str, stage: Stage) -> Tensor:
    """(B, C, H, H) -> (B, C, grid, grid). The listed pool on a map of the listed size. On a smaller map, adaptive
    pooling to cells of as many pixels as there, as smaller cells would hand a small image's layout to the classifier;
    on a larger one, to the same grid. A stage without a listed pool gets the grid that comes nearest to 9,216 numbers.
    """
    pool, side = POOLS.get(name), x.shape[-1]
    if pool is None or pool.side * (stage.stride or 0) != 224:
        grid = round(math.sqrt(DIMENSIONS / x.shape[1]))
    elif side == pool.side:
        return F.avg_pool2d(x, pool.kernel, pool.stride, pool.padding)
    else:
        grid = min(round(pool.grid * side / pool.side), pool.grid)
    return F.adaptive_avg_pool2d(x, min(max(grid, 1), side))


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
    """What of a backbone decides its features: the weights and the meaning of its input."""
    return {"state": state_hash(backbone), "input": as_plain(backbone.input)}


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


def extract(
    backbone: Backbone, images: ImageSet, preprocessing: Preprocessing, taps: tuple[Tap, ...], context: Context
) -> dict[str, np.ndarray]:
    """Tap name -> (N, dimensions) float32 features of every image, from one pass over the images.

    They are kept below the workspace by (pooling, backbone, data, preprocessing, tap, part of the set), so another
    protocol that needs the same finds them, and a killed extraction goes on after its last whole part.
    """
    facts = (POOLING, backbone_key(backbone), images.fingerprint(), preprocessing.name)
    folder = {tap: context.workspace / "features" / digest([*facts, tap.name]) for tap in taps}
    starts = range(0, len(images), PART)
    missing = [(s, [tap for tap in taps if not (folder[tap] / f"{s:08d}.npy").is_file()]) for s in starts]
    if any(absent for _, absent in missing):
        trunk = working_copy(backbone, context.device)
        views = Views(images.without_labels(), preprocessing, context.seed)
        with frozen(trunk):
            for start, absent in missing:
                if absent:
                    _extract_part(trunk, views, start, {tap: folder[tap] for tap in absent}, context)
    return {tap.name: _read_parts(folder[tap], starts) for tap in taps}


def _extract_part(trunk: Backbone, views: Views, start: int, folders: dict[Tap, Path], context: Context) -> None:
    end, done = min(start + PART, len(views.images)), start
    rows: dict[Tap, list[Tensor]] = {tap: [] for tap in folders}
    for pixels, _ in at_positions(views, once(end, start), context.workers):
        with torch.inference_mode():
            maps = trunk.forward_stages(as_input(trunk, pixels, context.device))
            for tap in folders:
                rows[tap].append(tap.read(maps, trunk.stages).flatten(1).cpu())
        done += len(pixels)
        context.report(f"features of {views.images.name}", done, len(views.images), {})
    for tap, folder in folders.items():
        features = torch.cat(rows[tap])
        if not features.isfinite().all():
            raise UserError(
                f"the features of {views.images.name} at {tap.name} are not finite; the backbone's weights may hold "
                "NaN: see its log"
            )
        content = io.BytesIO()
        np.save(content, features.numpy())
        write_whole(folder / f"{start:08d}.npy", content.getvalue())


def _read_parts(folder: Path, starts: range) -> np.ndarray:
    return np.concatenate([np.load(folder / f"{start:08d}.npy", mmap_mode="r") for start in starts])
