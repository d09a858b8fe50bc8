"""Work on images divided over processes, so that every image keeps the bits of one process.

What a network makes of an image may depend, in the last bits, on the other images of its batch. So processes take whole
batches in turn, those that one process would make, and send each other what came of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice, zip_longest
from typing import Any, TypeVar

import torch
from torch import Tensor

from benchmark.core import distributed
from benchmark.data.batch import Batch
from benchmark.data.image_set import ImageSet
from benchmark.data.loader import Position, TrainOrder, Views, batches
from benchmark.transfers.preprocessing import Preprocessing

Piece = TypeVar("Piece")
_NONE: Any = object()  # where the last round has none for a process
CPU = torch.device("cpu")
TURNS_BETWEEN = 8  # of a process, before all send each other what came of them
Positions = TrainOrder | Sequence[list[Position]]


def views_in_turn(images: ImageSet, view: Preprocessing, seed: int, positions: Positions) -> Views:
    """Of which this process decodes only what its turns at these positions need."""
    wanted = None
    if not isinstance(positions, TrainOrder):
        wanted = {index for batch in own_turns(positions) for _, index in batch}
    with distributed.together():
        return Views(images, view, seed, wanted=wanted)


def in_turn(
    views: Views,
    positions: Positions,
    workers: int,
    made: Callable[[Batch], Sequence[Tensor]],
    device: torch.device,
    labels: bool = True,
) -> Iterator[list[Tensor]]:
    """What `made` gives of each batch, on `device`, in order and on all processes. Each of these calls it for its own
    turns alone, and it must not communicate. Of several processes each holds up to TURNS_BETWEEN results. labels:
    whether batches have them.

    Raises UserError, on all processes, for an image that cannot be read, or what `made` raises."""
    if isinstance(positions, TrainOrder):
        positions = replace(positions, divided=False)
    with closing(batches(views, _Turns(positions), workers, labels)) as loaded:
        yield from tensors_of_all_turns(map(made, loaded), len(positions), device)


def tensors_of_all_turns(own: Iterator[Sequence[Tensor]], count: int, device: torch.device) -> Iterator[list[Tensor]]:
    """What each process makes of its own_turns, of `count` pieces: that of all, on `device`, in order and on all."""
    # processes that waited for each other at every piece would all be as slow as the slowest is at each
    processes = distributed.world_size()
    turns = 1 if processes == 1 else TURNS_BETWEEN
    for _ in range(0, count, turns * processes):
        with distributed.together():
            found = deque(islice(own, turns))
        yield from distributed.tensors_of_all(found, device)


def own_turns(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Of pieces of work, those that this process does."""
    return islice(pieces, distributed.rank(), None, distributed.world_size())


def turns_of_all(own: Sequence[Piece]) -> list[Piece]:
    """What each process made of its own_turns, plain values: that of all, in order, on all."""
    rounds = zip_longest(*distributed.of_all(own), fillvalue=_NONE)
    return [piece for each in rounds for piece in each if piece is not _NONE]


class _Turns:
    """As the loader takes them: this process's own."""

    def __init__(self, positions: Positions) -> None:
        self.positions = positions

    def __iter__(self) -> Iterator[list[Position]]:
        return own_turns(self.positions)
