"""Players: which parameters step together, by which optimizer, and how their gradients are averaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import nn

from benchmark.core.distributed import GradientAverager
from benchmark.core.errors import UserError
from benchmark.core.optimisation import Optimizer, ParameterKind
from benchmark.method import Method
from benchmark.recipe.contract import Recipe

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class Player:
    """Most methods have one, "main"; adversaries are two, and layers with a rate of their own are one too."""

    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    averager: GradientAverager
    values: Optimizer

    def step(self) -> None:
        if self.values.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.values.clip)
        self.optimizer.step()

    def set_rate(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor


def build_players(method: Method, recipe: Recipe) -> dict[str, Player]:
    """One for each optimizer of the recipe. Raises UserError when the recipe's players are not the method's."""
    players = {name: _parameters(name, given, method) for name, given in method.players().items()}
    players = {name: parameters for name, parameters in players.items() if parameters}
    _check_disjoint(players, method)
    if players.keys() != recipe.optimizers.keys():
        raise UserError(
            f"the recipe has optimizers for {list(recipe.optimizers)}, the method has players {list(players)}"
        )
    if isinstance(recipe.schedule, Mapping) and recipe.schedule.keys() != players.keys():
        raise UserError(f"the recipe has schedules for {list(recipe.schedule)}, the method has players {list(players)}")
    kinds = kinds_of(method)
    return {
        name: Player(
            parameters,
            optimizer_for(recipe.optimizers[name], parameters, kinds),
            GradientAverager(parameters),
            recipe.optimizers[name],
        )
        for name, parameters in players.items()
    }


def _parameters(name: str, given: Any, method: Method) -> list[nn.Parameter]:
    parameters = list(given) if isinstance(given, Iterable) else [given]
    if all(isinstance(parameter, nn.Parameter) for parameter in parameters):
        return parameters
    kind = next(type(one).__name__ for one in parameters if not isinstance(one, nn.Parameter))
    raise UserError(f"{type(method).__name__}.players: {name!r} must be a list of parameters, not of {kind}")


def _check_disjoint(players: Mapping[str, list[nn.Parameter]], method: Method) -> None:
    owner: dict[nn.Parameter, str] = {}
    for name, parameters in players.items():
        for parameter in parameters:
            if (other := owner.setdefault(parameter, name)) != name:
                raise UserError(f"{type(method).__name__}.players: {other!r} and {name!r} share a parameter")


def kinds_of(module: nn.Module) -> dict[nn.Parameter, ParameterKind]:
    norms = {p for part in module.modules() if isinstance(part, NORMS) for p in part.parameters(recurse=False)}
    return {p: "norm" if p in norms else "bias" if p.ndim <= 1 else "weight" for p in module.parameters()}


def optimizer_for(
    values: Optimizer, parameters: Sequence[nn.Parameter], kinds: Mapping[nn.Parameter, ParameterKind]
) -> torch.optim.Optimizer:
    """kinds: of parameters, as `kinds_of`; one that is in none of its modules is taken for what its shape says."""
    groups = []
    for kind in get_args(ParameterKind):
        own = [p for p in parameters if kinds.get(p, "bias" if p.ndim <= 1 else "weight") == kind]
        rate, decays = values.rate_of(kind), values.decays_on(kind)
        decay = values.weight_decay if decays else 0.0
        if own:
            # LARS adapts what decays, even when the decay is 0
            groups.append({"params": own, "lr": rate, "initial_lr": rate, "weight_decay": decay, "decays": decays})
    return values.torch_class()(groups, **values.arguments())


def set_rates(players: Mapping[str, Player], recipe: Recipe, step: int, total: int, steps_per_epoch: int) -> None:
    for name, player in players.items():
        player.set_rate(recipe.schedule_of(name).factor(step, total, steps_per_epoch))
