"""What a loader gives to a method at each step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Batch:
    """One process's share of a step.

    views: what Settings.views returned, stacked: name -> (B, ...).
    index: (B,) int64, which image of the pretraining set each row is.
    seed:  the same on all processes, another at each step: key for random numbers that must not depend on the rank.
    labels: (B,) int64 only for recipes with labels=True.
    """

    views: dict[str, Tensor]
    index: Tensor
    seed: int
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    def pin_memory(self) -> Batch:
        """What the loader calls for a GPU, so that `to` need not wait for the copy."""
        labels = None if self.labels is None else self.labels.pin_memory()
        views = {name: view.pin_memory() for name, view in self.views.items()}
        return Batch(views, self.index.pin_memory(), self.seed, labels)

    def to(self, device: torch.device) -> Batch:
        move = {name: view.to(device, non_blocking=True) for name, view in self.views.items()}
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        return Batch(move, self.index.to(device, non_blocking=True), self.seed, labels)
