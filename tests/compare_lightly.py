"""`python tests/compare_lightly.py`: images per second of SimCLR and MoCo v2, here and with the library lightly.

lightly is no dependency. Install it into an environment of its own that has this project too. Its side is written as
its examples are: https://docs.lightly.ai/self-supervised-learning/examples/models.html

Both sides have a ResNet-50, the same batch of random images, the same optimizer, one process, BatchNorm over its batch
and tensors in channels_last. They take turns of a few steps each, so that whatever else the machine does meets both.
Two things are timed: the training step, and one thread that makes two views of a picture. Here bytes become floats on
the device, as part of the step. In lightly that is part of the views, and its step is given floats.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import tyro
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead, SimCLRProjectionHead
from lightly.models.utils import batch_shuffle, batch_unshuffle, deactivate_requires_grad, update_momentum
from lightly.transforms import MoCoV2Transform, SimCLRTransform
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet50

from benchmark.core.optimisation import SGD
from benchmark.data.batch import Batch
from benchmark.engine.players import build_players
from benchmark.engine.train import build_method, train_step
from benchmark.method import Method
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Recipe
from benchmark.recipe.inputs import InputSpec
from benchmark.recipe.pools import Given

Action = Callable[[], object]

VALUES = SGD(lr=0.03, momentum=0.9, weight_decay=1e-4)
WIDTH, DIM = 2048, 128
PICTURE = (500, 375)  # pixels, as many of ImageNet's


@dataclass(frozen=True)
class Trial:
    """What to compare. steps: of each turn. repeats: turns of each side. pictures: whose views are made in a turn."""

    batch: int = 32
    size: int = 224
    K: int = 65_536
    steps: int = 5
    repeats: int = 5
    pictures: int = 50
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "cpu"

    def autocast(self) -> AbstractContextManager[Any]:
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bf16")


class TheirSimCLR(nn.Module):
    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self.backbone, self.projection_head = _their_backbone(), SimCLRProjectionHead(WIDTH, WIDTH, DIM)
        self.criterion = NTXentLoss(temperature=0.1)

    def loss(self, x0: Tensor, x1: Tensor) -> Tensor:
        return self.criterion(*(self.projection_head(self.backbone(x)) for x in (x0, x1)))


class TheirMoCo(nn.Module):
    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self.backbone, self.projection_head = _their_backbone(), MoCoProjectionHead(WIDTH, WIDTH, DIM)
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)
        self.criterion = NTXentLoss(temperature=0.2, memory_bank_size=(trial.K, DIM))

    def loss(self, x_q: Tensor, x_k: Tensor) -> Tensor:
        update_momentum(self.backbone, self.backbone_momentum, m=0.999)
        update_momentum(self.projection_head, self.projection_head_momentum, m=0.999)
        query = self.projection_head(self.backbone(x_q))
        shuffled, order = batch_shuffle(x_k)
        key = self.projection_head_momentum(self.backbone_momentum(shuffled)).detach()
        return self.criterion(query, batch_unshuffle(key, order))


def _their_backbone() -> nn.Module:
    network = resnet50()
    network.fc = nn.Identity()
    return network


def our_step(method: Method, recipe: Recipe, pixels: Tensor, names: tuple[str, str], trial: Trial) -> Action:
    """pixels: (2, batch, 3, size, size), the views of the batch by these names."""
    players = build_players(method, recipe)
    index = torch.arange(trial.batch, device=trial.device)
    batch = Batch(dict(zip(names, pixels, strict=True)), index, seed=0)
    return lambda: train_step(method, batch, players, trial.precision)


def their_step(model: nn.Module, pixels: Tensor, trial: Trial) -> Action:
    views = [InputSpec(trial.size).prepare(view).contiguous(memory_format=torch.channels_last) for view in pixels]
    trained = [p for p in model.parameters() if p.requires_grad]
    # fused, as ours is, so that only what the libraries do themselves is compared
    optimizer = torch.optim.SGD(trained, **VALUES.arguments(), weight_decay=VALUES.weight_decay)

    def step() -> None:
        with trial.autocast():
            loss = model.loss(*views)  # type: ignore[operator]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def in_turns(ours: Action, theirs: Action, times: int, trial: Trial) -> tuple[list[float], ...]:
    """Seconds of each turn of either, after one of each that is not timed. times: that it is done in a turn."""
    seconds: tuple[list[float], ...] = ([], [])
    for number in range(trial.repeats + 1):
        for action, found in zip((ours, theirs), seconds, strict=True):
            started = time.perf_counter()
            for _ in range(times):
                action()
            if torch.device(trial.device).type == "cuda":
                torch.cuda.synchronize(trial.device)
            if number:
                found.append(time.perf_counter() - started)
    return seconds


def told(what: str, images: int, seconds: tuple[list[float], ...]) -> None:
    ours, theirs = (images / statistics.median(one) for one in seconds)
    each = [f"{images / one:.1f}" for pair in zip(*seconds, strict=True) for one in pair]
    print(f"{what:<20}{ours:>10.1f}{theirs:>10.1f}{ours / theirs:>8.2f}   in turns: {' '.join(each)}", flush=True)


def compare(name: str, views: tuple[str, str], theirs: Any, transform: Any, trial: Trial) -> None:
    recipe = find_recipes()[name]
    settings = replace(recipe.method, K=trial.K) if hasattr(recipe.method, "K") else recipe.method  # type: ignore[type-var]
    backbone = replace(recipe.backbone, over="process")
    spec = replace(recipe.input, size=trial.size)
    recipe = replace(recipe, method=settings, backbone=backbone, input=spec, optimizers={"main": VALUES})

    method = _placed(build_method(recipe, Given(trial.batch)), trial)
    model = _placed(theirs(trial), trial)
    for side, network in (("here", method), ("lightly", model)):
        count = sum(p.numel() for p in network.parameters() if p.requires_grad)
        print(f"{recipe.title}, {side}: {count:,} parameters that train")
    pixels = torch.randint(0, 256, (2, trial.batch, 3, trial.size, trial.size), dtype=torch.uint8).to(trial.device)
    steps = our_step(method, recipe, pixels, views, trial), their_step(model, pixels, trial)
    told(f"{recipe.title}, step", trial.steps * trial.batch, in_turns(*steps, trial.steps, trial))

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (PICTURE[1] // 8, PICTURE[0] // 8, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize(PICTURE, Image.Resampling.BICUBIC)
    made = transform(input_size=trial.size)
    changes = lambda: recipe.method.views(picture, spec), lambda: made(picture)
    told(f"{recipe.title}, two views", trial.pictures, in_turns(*changes, trial.pictures, trial))


def _placed(network: Any, trial: Trial) -> Any:
    return network.to(trial.device).to(memory_format=torch.channels_last)


def main(trial: Trial) -> None:
    where = f"{trial.device}, {torch.get_num_threads()} threads, {trial.precision}"
    print(f"batch {trial.batch}, {trial.size} px, {where}; medians of {trial.repeats} turns, images/s")
    print(f"{'':<20}{'here':>10}{'lightly':>10}{'ratio':>8}")
    compare("simclr", ("x_i", "x_j"), TheirSimCLR, SimCLRTransform, trial)
    compare("moco_v2", ("x_q", "x_k"), TheirMoCo, MoCoV2Transform, trial)


if __name__ == "__main__":
    main(tyro.cli(Trial, description=__doc__))
