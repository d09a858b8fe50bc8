"""The last losses of a run, which its backbone file stores. They show that a method is broken long before any transfer
could."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class LastLosses(nn.Module):
    """The mean of each player's loss over the last steps of a run: as many as an epoch has, or all if there are fewer.
    It is a module so that a resumed run restores these sums like any other state."""

    def __init__(self, players: Iterable[str], total_steps: int, steps_per_epoch: int) -> None:
        super().__init__()
        self.names = [f"loss/{name}" for name in players]
        self.first = total_steps - steps_per_epoch
        self.sums: Tensor
        self.register_buffer("sums", torch.zeros(len(self.names), 2, dtype=torch.float64))  # sum, number of steps

    def note(self, step: int, figures: Mapping[str, Tensor]) -> None:
        """figures: the losses of a step by name, each the mean over processes."""
        if step >= self.first:
            for row, name in zip(self.sums, self.names, strict=True):
                if name in figures:
                    row += torch.stack([figures[name], torch.ones_like(figures[name])])

    def means(self) -> dict[str, float]:
        """name -> mean, for every loss that was noted; JSON-ready."""
        rows = zip(self.names, self.sums.tolist(), strict=True)
        return {name: total / steps for name, (total, steps) in rows if steps}
