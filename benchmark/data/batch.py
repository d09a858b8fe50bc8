"""What a loader gives to a method at each step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass
class Batch:
    """One process's share of a step.

    views: what Settings.sample returned, stacked: name -> (B, ...).
    index: (B,) int64, which image of its pool each row is.
    seed:  the same on all processes, another at each step: key for random numbers that must not depend on the rank.
    labels: only for pools with labels=True: (B,) int64 classes, or (B, …) presence or factors (benchmark.data.labels).
    epoch: which pass over the (first) pool this is, from 0. done: how much of the run lies behind, 0 to 1.
    pools: the batch of each pool by name, where the recipe has several; all else is then the first one's.
    """

    views: dict[str, Tensor]
    index: Tensor
    seed: int
    labels: Tensor | None = None
    epoch: int = 0
    done: float = 0.0
    pools: dict[str, Batch] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)

    def pin_memory(self) -> Batch:
        """What the loader calls for a GPU, so that `to` need not wait for the copy."""
        labels = None if self.labels is None else self.labels.pin_memory()
        views = {name: view.pin_memory() for name, view in self.views.items()}
        return replace(self, views=views, index=self.index.pin_memory(), labels=labels)

    def to(self, device: torch.device) -> Batch:
        views = {name: view.to(device, non_blocking=True) for name, view in self.views.items()}
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        pools = {name: batch.to(device) for name, batch in self.pools.items()}
        return replace(self, views=views, index=self.index.to(device, non_blocking=True), labels=labels, pools=pools)

    def at(self, seed: int, epoch: int, done: float) -> Batch:
        """The same where it stands in the run."""
        pools = {name: batch.at(seed, epoch, done) for name, batch in self.pools.items()}
        return replace(self, seed=seed, epoch=epoch, done=done, pools=pools)
