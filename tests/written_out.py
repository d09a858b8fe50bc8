"""One step of a smoke recipe in float64, and a copy of its method from before the step, of which tests compute what the
step should have lost."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from shares import numbers_of
from torch import Tensor

from benchmark.data.batch import Batch
from benchmark.engine.players import build_players
from benchmark.engine.train import build_method, train_step
from benchmark.method import Method
from benchmark.recipe.contract import Recipe
from benchmark.recipe.pools import Given

IMAGES, BATCH = 24, 8


@dataclass
class Step:
    """before, after: the method then. x: the images as it takes them. losses: of the players."""

    before: Method
    after: Method
    batch: Batch
    x: Tensor
    losses: dict[str, float]


def one_step(recipe: Recipe, epoch: int = 0) -> Step:
    with numbers_of(torch.float64):
        torch.manual_seed(1)
        method = build_method(recipe, Given(IMAGES))
        images = torch.randint(0, 256, (BATCH, 3, 64, 64), dtype=torch.uint8)
        batch = Batch({"image": images}, torch.randperm(IMAGES)[:BATCH], seed=5, epoch=epoch)
        before = copy.deepcopy(method)
        figures = train_step(method, batch, build_players(method, recipe), "fp32")
        x = method.backbone.input.prepare(images)
    return Step(before, method, batch, x, {name.removeprefix("loss/"): float(one) for name, one in figures.items()})


def numbers(x: Tensor) -> np.ndarray:
    return x.detach().numpy()


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0.0, -x)
