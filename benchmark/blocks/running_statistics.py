"""How much chosen passes through a network count in its BatchNorm layers' running statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from benchmark.data.batch import Batch


@contextmanager
def running_statistics_kept(module: nn.Module, keep: bool = True) -> Iterator[None]:
    """While the block runs, BatchNorm layers normalise by the batch as always but leave their running statistics alone,
    and their count of batches, so that evaluation later uses the statistics of the other passes."""
    with _momenta(module, lambda momentum: 0.0 if keep else momentum, counts=not keep):
        yield


@contextmanager
def running_statistics_of_part(module: nn.Module, number: int, count: int) -> Iterator[None]:
    """For a pass over the `number`-th of `count` equal parts of a batch, one after the other. After the last, running
    statistics have moved once, by the mean of all parts' statistics, as if each part had been on a process of its own,
    and one batch more is counted."""

    def share(momentum: float) -> float:
        # of the last part momentum / count is left to take; of one before it more, as those behind it take from it
        return momentum / (count - momentum * (count - 1 - number))

    with _momenta(module, share, counts=number == count - 1):
        yield


@contextmanager
def _momenta(module: nn.Module, changed: Callable[[float], float], counts: bool) -> Iterator[None]:
    """counts: whether num_batches_tracked goes on."""
    layers = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer, (momentum, counted) in zip(layers, before, strict=True):
        layer.momentum = changed(momentum or 0.0)
        if not counts and counted is not None:
            layer.num_batches_tracked = counted.clone()  # which is thrown away
    try:
        yield
    finally:
        for layer, (momentum, counted) in zip(layers, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, counted


def as_in_training(module: nn.Module, embed: Callable[[Batch], Tensor]) -> Callable[[Batch], Tensor]:
    """`embed` with each batch's own statistics: before the first step, no image has gone into the running ones."""

    def run(batch: Batch) -> Tensor:
        module.train()
        with running_statistics_kept(module):
            return embed(batch)

    return run
