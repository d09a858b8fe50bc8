"""Players: which parameters step together, by which optimizer, and how their gradients are averaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmark.core.distributed import GradientAverager
from benchmark.core.errors import UserError
from benchmark.core.optimisation import SGD, Optimizer
from benchmark.method import Method
from benchmark.recipe.contract import Recipe


@dataclass(frozen=True)
class Player:
    """Most methods have one, "main"; adversaries are two."""

    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    averager: GradientAverager


def build_players(method: Method, recipe: Recipe) -> dict[str, Player]:
    """One for each optimizer of the recipe. Raises UserError when the recipe's players are not the method's."""
    players = {name: parameters for name, parameters in method.players().items() if parameters}
    if players.keys() != recipe.optimizers.keys():
        raise UserError(
            f"the recipe has optimizers for {list(recipe.optimizers)}, the method has players {list(players)}"
        )
    return {
        name: Player(parameters, _optimizer(recipe.optimizers[name], parameters), GradientAverager(parameters))
        for name, parameters in players.items()
    }


def _optimizer(values: Optimizer, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": values.weight_decay},
        {
            "params": [p for p in parameters if p.ndim <= 1],  # norm scales, norm shifts and biases
            "weight_decay": values.weight_decay if values.weight_decay_norm_and_bias else 0.0,
        },
    ]
    groups = [group for group in groups if group["params"]]
    # fused: a small network's step on a CPU otherwise spends a tenth of its time between a hundred small tensors
    return optimizer_kind(values)(groups, **optimizer_settings(values), fused=True)


def optimizer_kind(values: Optimizer) -> Callable[..., torch.optim.Optimizer]:
    if isinstance(values, SGD):
        return torch.optim.SGD
    return torch.optim.AdamW if values.decoupled else torch.optim.Adam


def optimizer_settings(values: Optimizer) -> dict[str, Any]:
    """What torch's optimizer of that kind takes beside weight decay."""
    if isinstance(values, SGD):
        return {"lr": values.lr, "momentum": values.momentum, "nesterov": values.nesterov}
    return {"lr": values.lr, "betas": values.betas}


def set_rates(players: dict[str, Player], recipe: Recipe, factor: float) -> None:
    for name, player in players.items():
        for group in player.optimizer.param_groups:
            group["lr"] = recipe.optimizers[name].lr * factor
