"""What a transfer trains with, and its damaged checkpoint: one line naming the file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmark.core.errors import UserError
from benchmark.core.optimisation import SGD, Adam, Optimizer
from benchmark.core.sgd import ZeroStartSGD
from benchmark.engine.checkpoint import write_state
from benchmark.transfers import training

DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no optimizer": lambda state: state.pop("optimizer"),
    "optimizer in words": lambda state: state.update(optimizer="none"),
    "no parameter groups": lambda state: state["optimizer"].pop("param_groups"),
    "one group fewer": lambda state: state["optimizer"]["param_groups"].pop(),
    "groups of other sizes": lambda state: state["optimizer"]["param_groups"][0].update(params=[0]),
    "a group without its rate": lambda state: state["optimizer"]["param_groups"][0].pop("initial_lr"),
    "model in words": lambda state: state.update(model="none"),
    "a weight in words": lambda state: state["model"].update(weight="none"),
    "other dtype": lambda state: state["model"].update(weight=state["model"]["weight"].double()),
    "steps in words": lambda state: state.update(done="many"),
}


def made() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(2, 3)
    optimizer = training.build_optimizer(
        [([model.weight, model.bias], SGD(0.1)), ([nn.Parameter(torch.zeros(1))], SGD(1.0))]
    )
    return model, optimizer


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {"done": 7, "model": model.state_dict(), "optimizer": optimizer.state_dict()}


def test_a_whole_checkpoint_is_gone_on_from(tmp_path: Path):
    write_state(tmp_path / "x.pt", state_of(*made()))
    assert training._restore(tmp_path / "x.pt", *made()) == 7


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: Callable[[dict[str, Any]], object]):
    state = state_of(*made())
    damage(state)
    write_state(tmp_path / "x.pt", state)
    with pytest.raises(UserError, match=r"x\.pt"):
        training._restore(tmp_path / "x.pt", *made())


def test_a_checkpoint_that_is_no_dictionary_is_named(tmp_path: Path):
    torch.save([1, 2], tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"x\.pt"):
        training._restore(tmp_path / "x.pt", *made())


@pytest.mark.parametrize(
    ("values", "kind", "own"),
    [
        (SGD(0.1, momentum=0.8, nesterov=True), ZeroStartSGD, {"momentum": 0.8, "nesterov": True, "fused": True}),
        (Adam(0.1, betas=(0.8, 0.9)), torch.optim.Adam, {"betas": (0.8, 0.9), "fused": True}),
        (Adam(0.1, betas=(0.8, 0.9), decoupled=True), torch.optim.AdamW, {"betas": (0.8, 0.9), "fused": True}),
    ],
)
def test_each_group_has_its_own_values(values: Optimizer, kind: type, own: dict[str, Any]):
    model = nn.Linear(2, 3)
    other = dataclasses.replace(values, lr=1.0, weight_decay=0.5)
    optimizer = training.build_optimizer([([model.weight], values), ([model.bias], other)])
    assert type(optimizer) is kind
    for group, parameter, rate, decay in zip(
        optimizer.param_groups, (model.weight, model.bias), (0.1, 1.0), (0.0, 0.5), strict=True
    ):
        assert group["params"] == [parameter]
        assert (group["lr"], group["initial_lr"], group["weight_decay"]) == (rate, rate, decay)
        assert {name: group[name] for name in own} == own


def test_groups_of_two_kinds_are_refused():
    model = nn.Linear(2, 3)
    with pytest.raises(ValueError, match="too many values"):
        training.build_optimizer([([model.weight], SGD(0.1)), ([model.bias], Adam(0.1))])
