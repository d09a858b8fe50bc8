"""The only pretraining loop.

For each step: take the batch that (seed, epoch, step) names, seed torch from (seed, step, rank), ask the method for its
losses and step each player as its loss is yielded, average over processes. State is written at intervals; a killed run
goes on from there and ends with the same bits.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.backbones import build_backbone
from benchmark.backbones.contract import InputSpec
from benchmark.backbones.weights import save_backbone
from benchmark.blocks.positional import mix
from benchmark.data.image_set import ImageSet
from benchmark.data.loader import TrainOrder, Views, batches, check_batch_size, step_seed
from benchmark.engine import distributed
from benchmark.engine.checkpoint import load_checkpoint, locked, save_checkpoint
from benchmark.engine.optimizers import build_optimizers, set_rates
from benchmark.engine.progress import LOG_SECONDS, Display, Journal
from benchmark.errors import UserError
from benchmark.method import Batch, Method
from benchmark.recipe import Recipe, as_plain, recipe_hash

CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Machine:
    """Where a run runs; none of it may change the result on a CPU, except how many processes there are."""

    device: torch.device
    workers: int = 2
    checkpoint_seconds: float = CHECKPOINT_SECONDS


def pretrain(recipe: Recipe, name: str, images: ImageSet, run: Path, machine: Machine) -> Path:
    """Train `recipe` on `images` in the folder `run` and return run/backbone.safetensors, which appears last and whole.

    Goes on from run/checkpoint.pt if there is one. Raises UserError for a folder in use, another recipe's checkpoint, a
    batch that does not fit, an unreadable image, a full disk, or a loss that is not finite (named by its step).
    """
    if not recipe.labels:
        images = images.without_labels()
    with locked(run) if distributed.rank() == 0 else contextlib.nullcontext():
        identity = run_identity(recipe, name, images)
        method = build_method(recipe, len(images)).to(machine.device)
        method = method.to(memory_format=torch.channels_last)
        total = train_steps(recipe, len(images))
        if total:
            _train(recipe, images, run, machine, method, identity, total)
        path = run / "backbone.safetensors"
        if distributed.rank() == 0:
            save_backbone(path, method.backbone, recipe.backbone, {**identity, "resolved": as_plain(recipe)})
            for leftover in run.glob("checkpoint*.pt"):
                leftover.unlink()
        distributed.barrier()
        return path


def run_identity(recipe: Recipe, name: str, images: ImageSet) -> dict[str, Any]:
    """What a run is: the same identity, on the same number of processes, ends with the same backbone."""
    return {
        "recipe": name,
        "recipe_hash": recipe_hash(recipe),
        "seed": recipe.seed,
        "data": images.name,
        "data_fingerprint": images.fingerprint(),
        "num_images": len(images),
        "world_size": distributed.world_size(),
    }


def build_method(recipe: Recipe, num_images: int) -> Method:
    """The recipe's module with the initial weights that its seed fixes."""
    torch.manual_seed(recipe.seed)
    backbone = build_backbone(recipe.backbone, InputSpec(recipe.image_size))
    return recipe.method.build(backbone, num_images)


def train_steps(recipe: Recipe, num_images: int) -> int:
    steps = recipe.length.steps(max(num_images // recipe.batch_size, 1))
    if steps:
        check_batch_size(recipe.batch_size, num_images)
    return steps


def _train(
    recipe: Recipe,
    images: ImageSet,
    run: Path,
    machine: Machine,
    method: Method,
    identity: dict[str, Any],
    total: int,
) -> None:
    optimizers = build_optimizers(method, recipe)
    first = load_checkpoint(run, identity, method, optimizers)
    order = TrainOrder(len(images), recipe.batch_size, recipe.seed, first, total)
    dataset = Views(images, recipe.method.views, recipe.seed)
    embed_all = _embed_all(method, dataset, recipe, machine)
    journal = Journal(run, first) if distributed.rank() == 0 else None
    logged = saved = time.monotonic()
    with Display(f"{identity['recipe']} seed {recipe.seed}", total, first) as display:
        loader = iter(batches(dataset, order, machine.workers, recipe.labels))
        for step in range(first, total):
            epoch, within = divmod(step, order.steps_per_epoch)
            if within == 0:
                _seed(recipe.seed, step)
                method.on_epoch_start(epoch, embed_all)
            batch = next(loader).to(machine.device)
            batch.seed = step_seed(recipe.seed, step)
            _seed(recipe.seed, step)
            factor = recipe.schedule.factor(step, total, order.steps_per_epoch)
            set_rates(optimizers, recipe, factor)
            figures = train_step(method, batch, optimizers, recipe.precision)
            done = step + 1
            now = time.monotonic()
            # processes must agree on when to save, and their clocks need not
            if distributed.agree(now - saved >= machine.checkpoint_seconds) and done < total:
                saved = now
                save_checkpoint(run, done, identity, method, optimizers)
            if journal and (now - logged >= LOG_SECONDS or done == total or step == first):
                logged = now
                rates = {f"lr/{name}": recipe.optimizers[name].lr * factor for name in optimizers}
                values = {name: float(value) for name, value in figures.items()} | method.scalars()
                journal.write(step, {"epoch": epoch, **values, **rates})
                display.update(done, values)
            elif journal and step % 10 == 0:
                display.update(done, {})
            if not all(math.isfinite(float(value)) for value in figures.values()):
                raise UserError(_not_finite(run, step, figures))
    if journal:
        journal.close()


def train_step(
    method: Method, batch: Batch, optimizers: dict[str, torch.optim.Optimizer], precision: str
) -> dict[str, Tensor]:
    """One step of every player; its losses by name, detached."""
    method.train()
    figures: dict[str, Tensor] = {}
    losses = method.losses(batch)
    players = method.players()
    while True:
        with torch.autocast(batch.index.device.type, torch.bfloat16, enabled=precision == "bf16"):
            player, loss = next(losses, (None, None))
        if player is None or loss is None:
            break
        optimizers[player].zero_grad(set_to_none=True)
        loss.backward(inputs=players[player])
        distributed.average_gradients(players[player])
        optimizers[player].step()
        figures[f"loss/{player}"] = distributed.mean_over_processes(loss.detach().float())
    distributed.average_running_statistics(method)
    return figures


def _seed(seed: int, step: int) -> None:
    torch.manual_seed(mix(seed, step, distributed.rank()))


def _embed_all(method: Method, dataset: Views, recipe: Recipe, machine: Machine) -> Callable[..., Tensor]:
    def run(embed: Callable[[Batch], Tensor]) -> Tensor:
        method.eval()
        share = -(-len(dataset.images) // distributed.world_size())
        mine = range(distributed.rank() * share, (distributed.rank() + 1) * share)
        # the last process's share may run past the end: it wraps, and the surplus is cut off below
        wanted = [(-1, index % len(dataset.images)) for index in mine]
        size = max(recipe.batch_size // distributed.world_size(), 1)
        positions = [wanted[start : start + size] for start in range(0, len(wanted), size)]
        with torch.no_grad(), torch.autocast(machine.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            parts = [embed(b.to(machine.device)).float() for b in batches(dataset, positions, machine.workers, False)]
        return distributed.gather(torch.cat(parts))[: len(dataset.images)]

    return run


def _not_finite(run: Path, step: int, figures: dict[str, Tensor]) -> str:
    values = ", ".join(f"{name} = {float(value)}" for name, value in figures.items())
    return (
        f"{run}: the loss is not finite at step {step} ({values}). The last checkpoint is kept; lower the lr, lengthen "
        "the warm-up, or use --recipe.precision fp32"
    )
