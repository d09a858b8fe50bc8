"""What training on one process and on two comes to. They must agree in float64, where nothing depends on how a batch is
shared out: BatchNorm over a process's own images becomes GroupNorm, and nothing drops out. BatchNorm over groups stays.

Two processes add up in another order than one. In float32 the first steps of a small network, Adam's above all, blow
the last bits up to the size of the steps themselves; in float64 what remains is a difference in meaning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import Processes, on_cpu, run
from torch import nn

from benchmark.data.image_set import ImageSet
from benchmark.engine import train
from benchmark.method import Method
from benchmark.recipe.contract import Recipe
from recipes.moco_end_to_end import EndToEnd

State = dict[str, np.ndarray]


@dataclass
class Trained:
    """states: hashes of what all processes share, after each step. start, end: parameters and buffers, each process's
    own rows of those that are sharded. losses: the means of the last ones, by player."""

    local: str = ""
    trainable: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    start: State = field(default_factory=dict)
    end: State = field(default_factory=dict)
    losses: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Compared:
    """difference: the largest between any number of two processes and of one. moved: how far training took any."""

    one: Trained
    two: list[Trained]
    difference: float
    moved: float

    def faults(self, most: float = 1e-9) -> list[str]:
        """What is wrong with a recipe of which this came out. most: the largest difference that rounding makes."""
        first, second = (each.states for each in self.two)
        has_other_losses = self.two[0].losses != pytest.approx(self.one.losses, rel=1e-4)
        must_agree = not self.one.local
        found = {
            "the two processes hold different weights": first != second,
            "a step changed nothing": len(set(first)) < len(first),
            "training moved nothing": self.moved < 1e-4,
            "there are no losses": not self.one.losses,
            f"two processes and one differ by {self.difference:.1e}": must_agree and self.difference > most,
            f"two processes lose {self.two[0].losses}, one {self.one.losses}": must_agree and has_other_losses,
        }
        return [what for what, is_so in found.items() if is_so]


def one_against_two(
    alone: Processes,
    pair: Processes,
    recipe: Recipe,
    images: ImageSet,
    folder: Path,
    on_pair: Recipe | None = None,
    dtype: torch.dtype = torch.float64,
) -> Compared:
    """on_pair: what two train, if not the same."""
    outcomes = [
        *alone.run(trained, recipe, images, folder / "one", dtype),
        *pair.run(trained, on_pair or recipe, images, folder / "two", dtype),
    ]
    faults = [outcome.error for outcome in outcomes]
    assert faults == [None] * 3, faults
    one, *two = (outcome.value for outcome in outcomes)
    difference = largest_difference(one.end, _whole(two, one.end))
    start, end = ({name: state[name] for name in one.trainable} for state in (one.start, one.end))
    return Compared(one, two, difference, largest_difference(start, end))


def trained(recipe: Recipe, images: ImageSet, folder: Path, dtype: torch.dtype) -> Trained:
    """What each process does."""
    seen, methods = Trained(), []
    build, step = train.build_method, train.train_step

    def built(*arguments: Any) -> Method:
        methods.append(build(*arguments))
        depends, replaced = methods[-1].depends_on_processes(), _see_no_share(methods[-1])
        assert replaced == (set(depends) - {methods[-1].local} != set()), f"says of processes: {depends}"
        object.__setattr__(methods[-1], "export", lambda: None)  # made from norms that are not there now
        seen.trainable = [name for name, p in methods[-1].named_parameters() if p.requires_grad]
        seen.local, seen.start = methods[-1].local, _numbers(methods[-1])
        return methods[-1]

    def noted(method: Method, *arguments: Any) -> Any:
        figures = step(method, *arguments)
        seen.states.append(shared_state(method))
        return figures

    def saved(path: Path, _: object, origin: dict[str, Any]) -> None:
        seen.losses = origin["losses"]
        path.touch()

    with numbers_of(dtype), pytest.MonkeyPatch.context() as patch:
        for name, other in (("build_method", built), ("train_step", noted), ("save_backbone", saved)):
            patch.setattr(train, name, other)
        run(recipe, images, folder, on_cpu(checkpoint_seconds=60))
    seen.end = _numbers(methods[-1])
    return seen


@contextmanager
def numbers_of(dtype: torch.dtype) -> Iterator[None]:
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        if dtype == torch.float64:
            patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


def _see_no_share(method: Method) -> bool:
    """Whether there was anything to replace."""
    replaced = False
    for parent in list(method.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and getattr(child, "over", "process") == "process":
                setattr(parent, name, nn.GroupNorm(1, child.num_features, affine=child.affine))
                replaced = True
            if isinstance(child, nn.modules.dropout._DropoutNd):
                setattr(parent, name, nn.Identity())
                replaced = replaced or child.p > 0
    return replaced


def _numbers(method: Method) -> State:
    return {key: value.numpy().copy() for key, value in method.state_dict().items()}


def shared_state(method: Method) -> str:
    digest, divided = hashlib.sha256(), method.sharded_buffers()
    for key, value in method.state_dict().items():
        if key not in divided:
            digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def _whole(processes: list[Trained], wanted: State) -> State:
    """Sharded rows one process's behind the other's; a last one may stand for no image."""
    return {
        key: value
        if value.shape == wanted[key].shape
        else np.concatenate([each.end[key] for each in processes])[: len(wanted[key])]
        for key, value in processes[0].end.items()
    }


def rounding(recipe: Recipe) -> float:
    """The largest difference that the order of sums makes. End-to-end MoCo moves by 1e-9 on one process when its first
    weights differ in the last bit, other methods by less."""
    return 1e-8 if isinstance(recipe.method, EndToEnd) else 1e-9


def largest_difference(one: State, two: State) -> float:
    """As a part of the largest number, where that is more than 1: of NPID's constant Z, 10 million, the last bit is
    more than all differences that would matter elsewhere."""
    assert one.keys() == two.keys()
    return max(float(np.abs(one[key].astype(float) - two[key]).max() / max(1, np.abs(one[key]).max())) for key in one)
