"""`python tests/compare_chunk_memory.py`: the memory that SimCLR's forward and backward pass needs at most, of a large
batch in chunks against one chunk alone, and against the whole batch at once.

On a GPU the allocator tells it (`--device cuda`). On a CPU nothing does, so the bytes of tensors are counted, in a pass
over tensors that have shapes and no numbers. That knows nothing of the room that an operation needs for itself. The
optimizer is left out: what it remembers is as large with chunks as without.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import tyro
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmark.backbones.resnet import ResNet
from benchmark.data.batch import Batch
from benchmark.engine.train import build_method
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Architecture
from benchmark.recipe.pools import Given


@dataclass(frozen=True)
class Trial:
    """images: of the batch, each with two views. chunk: views that are encoded at a time, the batch of half as many
    images that it is alone."""

    images: int = 512
    chunk: int = 32
    norm: Literal["group", "batch"] = "group"
    width: float = 1.0
    size: int = 224
    device: str = "cpu"


class Counting(TorchDispatchMode):
    """Bytes of all storages that the operations under it make, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: dict[int, Any] = {}

    def count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.live += size
        self.peak = max(self.peak, self.live)

        def gone(_: object) -> None:
            self.live -= size
            del self.known[key]

        self.known[key] = weakref.ref(storage, gone)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, Tensor):
                self.count(one)
        return made


def peak_bytes(trial: Trial, images: int, chunk: int | None) -> int:
    """Weights and images included."""
    backbone = ResNet(norm=trial.norm, width=trial.width, over="all")
    return peak_bytes_of(backbone, images, chunk, trial.size, trial.device)


def peak_bytes_of(backbone: Architecture, images: int, chunk: int | None, size: int, device: str = "cpu") -> int:
    recipe = find_recipes()["simclr"]
    recipe = replace(recipe, backbone=backbone, method=replace(recipe.method, chunk=chunk))  # type: ignore[type-var]
    with _counted(device) as found:
        method = build_method(recipe, Given(images))
        if device != "cpu":  # tensors without numbers cannot be moved
            method.to(device).to(memory_format=torch.channels_last)
        pixels = torch.zeros(2, images, 3, size, size, dtype=torch.uint8, device=device)
        batch = Batch({"x_i": pixels[0], "x_j": pixels[1]}, torch.arange(images, device=device), seed=0)
        method.loss(batch).backward()
    return found[0]


@contextmanager
def _counted(device: str) -> Iterator[list[int]]:
    found: list[int] = []
    if device == "cpu":
        with FakeTensorMode(), Counting() as counting:
            yield found
        found.append(counting.peak)
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    yield found
    found.append(torch.cuda.max_memory_allocated(device))


def main(trial: Trial) -> None:
    print(f"ResNet-50 x{trial.width:g}, {trial.norm} norm, {trial.size} px, {trial.device}")
    alone = None
    for images, chunk in ((trial.chunk // 2, None), (trial.images, trial.chunk), (trial.images, None)):
        what = f"{images} images {f'in chunks of {chunk} views' if chunk else 'at once'}"
        try:
            peak = peak_bytes(trial, images, chunk)
        except torch.OutOfMemoryError:
            print(f"{what:<40} do not fit")
            continue
        alone = alone or peak
        print(f"{what:<40} {peak / 2**20:>10,.0f} MiB, {peak / alone:.2f} of the first")


if __name__ == "__main__":
    main(tyro.cli(Trial, description=__doc__))
