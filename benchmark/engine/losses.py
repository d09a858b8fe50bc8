"""What a method gives as losses, checked; and what they were in a run, which its backbone file stores. They show that a
method is broken long before any transfer could."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.core.errors import UserError
from benchmark.engine.players import Player
from benchmark.method import Method

PARTS = 20  # of a run, whose mean losses are kept


def checked_loss(given: Any, players: Mapping[str, Player], method: Method) -> tuple[tuple[str, ...], Tensor]:
    """(names of the players that step by it, the loss) of what `Method.losses` yielded. Raises UserError for what is
    not such a pair."""
    who = f"{type(method).__name__}.losses"
    if not isinstance(given, tuple) or len(given) != 2:
        raise UserError(
            f"{who} must yield pairs of a player, or a tuple of players, and a loss; it gave {_kind(given)}"
        )
    names = (given[0],) if isinstance(given[0], str) else given[0]
    loss = given[1]
    if not isinstance(names, tuple) or not names or len(set(names)) < len(names):
        raise UserError(f"{who} must name a player, or several different ones, before the loss; it gave {given[0]!r}")
    if unknown := [name for name in names if name not in players]:
        raise UserError(f"{who} gave a loss for player {unknown[0]!r}; its players are {', '.join(players)}")
    if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
        raise UserError(
            f"{who} must give a scalar that depends on what trains, for player {names[0]}; it gave {_kind(loss)}"
        )
    return names, loss


def _kind(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"a tensor of shape {tuple(value.shape)}{'' if value.requires_grad else ' without a gradient'}"


def check_all_stepped(players: Mapping[str, Player], method: Method) -> None:
    """At the end of a run. Raises UserError for a player that never stepped: its gradients were never made."""
    idle = [name for name, player in players.items() if all(p.grad is None for p in player.parameters)]
    if idle:
        raise UserError(f"{type(method).__name__}.losses gave no loss for player {idle[0]!r} in the whole run")


class LossMeans(nn.Module):
    """The mean of each player's loss over each part of a run, PARTS equal ones, and over its last steps: as many as an
    epoch has, or all if there are fewer. It is a module so that a resumed run restores these sums like any other
    state."""

    def __init__(self, players: Iterable[str], total_steps: int, steps_per_epoch: int) -> None:
        super().__init__()
        self.names = [f"loss/{name}" for name in players]
        self.total, self.first_of_last = total_steps, total_steps - steps_per_epoch
        self.sums: Tensor
        # sum, number of steps; of each part, then of the last steps
        self.register_buffer("sums", torch.zeros(len(self.names), PARTS + 1, 2, dtype=torch.float64))

    def note(self, step: int, figures: Mapping[str, Tensor]) -> None:
        """figures: the losses of a step by name, each the mean over processes."""
        rows = [part_of(step, self.total), *([PARTS] if step >= self.first_of_last else [])]
        for sums, name in zip(self.sums, self.names, strict=True):
            if name in figures:
                sum_and_count = torch.stack([figures[name], torch.ones_like(figures[name])])
                for row in rows:
                    sums[row] += sum_and_count

    def last(self) -> dict[str, float]:
        """name -> mean over the last steps, for every loss that was noted; JSON-ready."""
        return {name: means[PARTS] for name, means in self._means().items() if means[PARTS] is not None}

    def course(self) -> dict[str, list[float | None]]:
        """name -> mean over each part, None where it has no step that noted that loss; JSON-ready."""
        return {name: means[:PARTS] for name, means in self._means().items()}

    def _means(self) -> dict[str, list[Any]]:
        sums = zip(self.names, self.sums.tolist(), strict=True)
        return {name: [total / steps if steps else None for total, steps in rows] for name, rows in sums}


def part_of(step: int, total_steps: int) -> int:
    """In which of a run's PARTS a step lies, both from 0."""
    return step * PARTS // total_steps
