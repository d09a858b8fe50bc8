"""How fast a recipe is here: its data path, its whole step, and the bare backbone on the same tensors, in one run.

A step should cost little more than the backbone's forward and backward, which nobody can save; and the data path should
keep up with the step. Step and bare backbone take turns, so that whatever else the machine does meets both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace

import torch
from tabulate import tabulate
from torch import Tensor

from benchmark.backbones.contract import Backbone
from benchmark.backbones.norms import few_told
from benchmark.core.errors import UserError
from benchmark.core.mixed_precision import autocast
from benchmark.core.optimisation import Precision
from benchmark.data.batch import Batch
from benchmark.data.image_set import ImageSet
from benchmark.data.loader import step_seed
from benchmark.engine.feed import Feed, given_of
from benchmark.engine.players import build_players
from benchmark.engine.train import Machine, build_method, few_of_batch, train_step
from benchmark.method import Method
from benchmark.recipe.contract import Recipe
from benchmark.recipe.pools import Assigned, Shuffled

WARM_UP = 2  # batches and rounds that are not timed


def speed_text(recipe: Recipe, images: Mapping[str, ImageSet], machine: Machine, rounds: int) -> str:
    """Images per second of each as text; medians over `rounds`. Raises UserError for a recipe that trains nothing, or
    that needs other recipes' backbones."""
    if not recipe.optimizers:
        raise UserError(f"{recipe.title}: nothing is trained, so there is no step to time")
    if recipe.after:
        raise UserError(
            f"{recipe.title} comes after {', '.join(recipe.after.values())}; its speed is not measured alone"
        )
    with few_told(few_of_batch(recipe)):
        return _measured(recipe, images, machine, rounds)


def _measured(recipe: Recipe, images: Mapping[str, ImageSet], machine: Machine, rounds: int) -> str:
    method = build_method(recipe, given_of(images, {})).to(machine.device).to(memory_format=torch.channels_last)
    taken, data_rate = _data_path(recipe, method, images, machine, rounds)
    batch = taken.to(machine.device).at(step_seed(recipe.seed, 0), 0, 0.0)
    players, inputs = build_players(method, recipe), _inputs(method.backbone, batch)
    step_seconds, bare_seconds = _in_turns(
        [
            lambda: train_step(method, batch, players, recipe.precision),
            lambda: _bare(method.backbone, inputs, recipe.precision),
        ],
        machine.device,
        rounds,
    )
    step_rate, bare_rate = len(batch) / step_seconds, len(batch) / bare_seconds
    rows = [
        ("data path", f"{data_rate:,.0f}", f"{data_rate / step_rate:.2f} of the step; {machine.workers} workers"),
        ("step", f"{step_rate:,.0f}", f"{step_rate / bare_rate:.2f} of the bare backbone"),
        ("bare backbone", f"{bare_rate:,.0f}", "forward and backward of every view, normalised before"),
    ]
    where = f"{recipe.title}, batch {len(batch)}, {machine.device}, {torch.get_num_threads()} threads, {rounds} rounds"
    return f"{where}\n{tabulate(rows, headers=('', 'images/s', ''), tablefmt='plain', disable_numparse=True)}"


def _data_path(
    recipe: Recipe, method: Method, images: Mapping[str, ImageSet], machine: Machine, rounds: int
) -> tuple[Batch, float]:
    """(the last batch, images per second after the loader processes have started)."""
    fixed = replace(recipe, order=Shuffled()) if isinstance(recipe.order, Assigned) else recipe
    total = WARM_UP + rounds
    with closing(Feed(fixed, images, machine.workers, total)) as feed:
        loader = (batch for start in range(0, total, feed.steps_per_epoch) for batch in feed.epoch(start, method))
        for _ in range(WARM_UP):
            next(loader)
        started = time.perf_counter()
        for _ in range(rounds):
            batch = next(loader)
        return batch, rounds * recipe.batch_size / (time.perf_counter() - started)


def _in_turns(actions: list[Callable[[], object]], device: torch.device, rounds: int) -> list[float]:
    """Median seconds of each action."""
    seconds: list[list[float]] = [[] for _ in actions]
    for number in range(WARM_UP + rounds):
        for action, times in zip(actions, seconds, strict=True):
            started = time.perf_counter()
            action()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number >= WARM_UP:
                times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in seconds]


def _inputs(backbone: Backbone, batch: Batch) -> list[Tensor]:
    """Each view of images as the backbone takes it: (N, 3, H, W), normalised."""
    images = (view.flatten(0, -4) for view in batch.views.values() if view.dtype == torch.uint8 and view.ndim >= 4)
    return [backbone.input.prepare(view).contiguous(memory_format=torch.channels_last) for view in images]


def _bare(backbone: Backbone, inputs: list[Tensor], precision: Precision) -> None:
    for x in inputs:
        with autocast(x.device.type, precision):
            stage = _last_of(backbone, x.shape[-1])
            total = backbone.forward_stages(x, stage)[stage].float().sum()
        total.backward()
    backbone.zero_grad(set_to_none=True)


def _last_of(backbone: Backbone, side: int) -> str:
    """The stage where a forward pass over views of that side ends: of tiles an AlexNet's last layers make nothing."""
    if side == backbone.input.size:
        return backbone.output
    return [name for name, stage in backbone.stages.items() if stage.stride is not None][-1]
