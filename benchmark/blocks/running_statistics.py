"""Keeps chosen passes through a network out of its BatchNorm layers' running statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from benchmark.data.batch import Batch


@contextmanager
def running_statistics_kept(module: nn.Module, keep: bool = True) -> Iterator[None]:
    """While the block runs, BatchNorm layers normalise by the batch as always but leave their running statistics alone,
    so that evaluation later uses the statistics of the other passes."""
    layers = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)] if keep else []
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def as_in_training(module: nn.Module, embed: Callable[[Batch], Tensor]) -> Callable[[Batch], Tensor]:
    """`embed` with each batch's own statistics: before the first step, no image has gone into the running ones."""

    def run(batch: Batch) -> Tensor:
        module.train()
        with running_statistics_kept(module):
            return embed(batch)

    return run
