"""The only pretraining loop.

Each step takes the batch that (seed, epoch, step) determines, seeds torch from (seed, step, rank), asks the method for
its losses, steps each player as its loss is yielded, and averages over processes. State is saved at intervals. A run
that was killed resumes from there and ends with the same bits.

Departures:
- BatchNorm normalises over each process's own images, not over those of all processes.
- Running statistics are averaged over processes at every step. Released code keeps those of one process.
- The last incomplete batch of an epoch is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.backbones import build_backbone
from benchmark.backbones.contract import InputSpec
from benchmark.backbones.weights import read_facts, save_backbone
from benchmark.core import distributed
from benchmark.core.draws import mix
from benchmark.core.plain import as_plain
from benchmark.core.provenance import commit, versions
from benchmark.core.streams import Stream
from benchmark.data.batch import Batch
from benchmark.data.image_set import ImageSet
from benchmark.data.loader import Position, TrainOrder, Views, batches, check_batch_size, epoch_order, step_seed
from benchmark.engine.checkpoint import check_identity, clear_checkpoints, load_checkpoint, locked, save_checkpoint
from benchmark.engine.divergence import Watch
from benchmark.engine.losses import LastLosses
from benchmark.engine.players import Player, build_players, set_rates
from benchmark.engine.progress import LOG_SECONDS, Pace, Report, Timer
from benchmark.method import EmbedAll, Method
from benchmark.recipe.contract import Recipe, recipe_hash

CHECKPOINT_SECONDS = 60.0
BEFORE_TRAINING = -1  # the "epoch" of views that no training step sees


@dataclass(frozen=True)
class Machine:
    """Where a run runs.

    On a CPU the number of loader workers does not change a bit of the result. The number of processes does, because
    BatchNorm sees each process's share by itself; the backbone file records it. The number of threads may change the
    last bits, through the order of sums.
    """

    device: torch.device
    workers: int
    checkpoint_seconds: float = CHECKPOINT_SECONDS


def pretrain(recipe: Recipe, name: str, images: ImageSet, run: Path, machine: Machine) -> Path:
    """Train `recipe` on `images` in the folder `run`. Returns run/backbone.safetensors, which appears last and whole.

    Resumes from run/checkpoint.pt if there is one, and returns at once if the backbone is there. Raises UserError for a
    folder that is in use or belongs to another recipe, a batch that does not fit, an unreadable image, a full disk, or
    a loss that is not finite (with the step at which it appeared).
    """
    if not recipe.labels:
        images = images.without_labels()
    identity = run_identity(recipe, name, images)
    path = run / "backbone.safetensors"
    with distributed.lost_process_told(), locked(run):
        with distributed.together():
            is_done = _is_done(path, identity)
        trained = None if is_done else _trained(recipe, images, run, machine, identity)
        with distributed.together():
            if distributed.rank() == 0:
                if trained:
                    method, losses = trained
                    came_to = {"losses": losses, "made_by": provenance(machine.device)}
                    save_backbone(path, method.backbone, recipe.backbone, identity | came_to)
                clear_checkpoints(run)
    return path


def run_identity(recipe: Recipe, name: str, images: ImageSet) -> dict[str, Any]:
    """Everything that decides which backbone a run ends with."""
    return {
        "recipe": name,
        "recipe_hash": recipe_hash(recipe),
        "seed": recipe.seed,
        "data": images.name,
        "data_fingerprint": images.fingerprint(),
        "num_images": len(images),
        "world_size": distributed.world_size(),
        "resolved": as_plain(recipe),
    }


def provenance(device: torch.device) -> dict[str, Any]:
    """What should not change the result, and so is not part of the identity, but is of interest to its readers."""
    return {
        "commit": commit(),
        "versions": versions(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
    }


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def build_method(recipe: Recipe, num_images: int) -> Method:
    """The recipe's module, with the initial weights that its seed determines."""
    torch.manual_seed(recipe.seed)
    backbone = build_backbone(recipe.backbone, InputSpec(recipe.image_size))
    return recipe.method.build(backbone, num_images)


def train_steps(recipe: Recipe, num_images: int) -> int:
    steps = recipe.length.steps(max(num_images // recipe.batch_size, 1))
    if steps:
        check_batch_size(recipe.batch_size, num_images)
    return steps


def _is_done(path: Path, identity: dict[str, Any]) -> bool:
    """Whether the run's backbone is there, made by any number of processes. Another run's is never overwritten."""
    if not path.is_file():
        return False
    origin = read_facts(path)["origin"]
    theirs = {key: origin.get(key) for key in identity}
    check_identity(path, theirs, {**identity, "world_size": origin.get("world_size")})
    return True


def _trained(
    recipe: Recipe, images: ImageSet, run: Path, machine: Machine, identity: dict[str, Any]
) -> tuple[Method, dict[str, float]]:
    """(the recipe's method after its last step, the means of its last losses by name)."""
    method = build_method(recipe, len(images)).to(machine.device).to(memory_format=torch.channels_last)
    total = train_steps(recipe, len(images))
    if total == 0:
        return method, {}
    players = build_players(method, recipe)
    losses = LastLosses(players, total, len(images) // recipe.batch_size).to(machine.device)
    with distributed.together():
        first = load_checkpoint(run, identity, method, players, losses)
    order = TrainOrder(len(images), recipe.batch_size, recipe.seed, first, total)
    dataset = Views(images, recipe.method.views, recipe.seed)
    watch = Watch(run, machine.device)
    pace = Pace(recipe.batch_size)
    look, save = Timer(min(LOG_SECONDS, machine.checkpoint_seconds)), Timer(machine.checkpoint_seconds)
    with Report(run, f"{identity['recipe']} seed {recipe.seed}", total, first) as report:
        for step, batch in enumerate(pace.timed(batches(dataset, order, machine.workers, recipe.labels)), first):
            epoch, step_of_epoch = divmod(step, order.steps_per_epoch)
            if step_of_epoch == 0:
                watch.check(step, method)
                torch.manual_seed(mix(recipe.seed, Stream.EPOCH_START, epoch))  # not by rank: state stays equal
                method.on_epoch_start(epoch, _embed_all(method, dataset, recipe, machine, epoch))
            batch = batch.to(machine.device)
            batch.seed = step_seed(recipe.seed, step)
            factor = recipe.schedule.factor(step, total, order.steps_per_epoch)
            set_rates(players, recipe, factor)
            torch.manual_seed(mix(recipe.seed, Stream.IN_STEP, step, distributed.rank()))
            figures = train_step(method, batch, players, recipe.precision)
            watch.note(step, figures)
            losses.note(step, figures)
            report.stepped(step + 1)
            if look.due() or step in (first, total - 1):
                watch.check(step, method)
                shown = {name: float(value) for name, value in figures.items()}
                rates = {f"lr/{name}": recipe.optimizers[name].lr * factor for name in players}
                report.write(step, shown | method.scalars() | pace.since_last(), {"epoch": epoch, **rates})
                if step + 1 < total and save.due():
                    save_checkpoint(run, step + 1, identity, method, players, losses)
    return method, losses.means()


def train_step(method: Method, batch: Batch, players: dict[str, Player], precision: str) -> dict[str, Tensor]:
    """One step of every player; its losses by name, detached, the mean over processes."""
    figures: dict[str, Tensor] = {}
    losses = method.losses(batch)
    while True:
        with torch.autocast(batch.index.device.type, torch.bfloat16, enabled=precision == "bf16"):
            name, loss = next(losses, (None, None))
        if name is None or loss is None:
            break
        player = players[name]
        player.optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=player.parameters)
        player.averager.finish()
        player.optimizer.step()
        figures[f"loss/{name}"] = loss.detach().float()
    distributed.average([*distributed.running_statistics(method), *figures.values()])
    return figures


def _embed_all(method: Method, dataset: Views, recipe: Recipe, machine: Machine, epoch: int) -> EmbedAll:
    device, count, batch_size = machine.device, len(dataset.images), recipe.batch_size

    def run(embed: Callable[[Batch], Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        # in random order, since a method may use the batch's statistics, and files are often sorted by class
        order = epoch_order(count, recipe.seed, BEFORE_TRAINING)
        loaded = batches(dataset, _full_batches(order, batch_size), machine.workers, labels=False)
        for number, start in enumerate(range(0, count, batch_size)):
            # so that what is drawn between and after these batches does not depend on them
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                batch = next(loaded).to(device)
                torch.manual_seed(mix(recipe.seed, Stream.EMBED, epoch, number, distributed.rank()))
                features = embedded(embed, batch)
            last = count - start
            yield distributed.gather(batch.index)[:last], distributed.gather(features)[:last]

    def embedded(embed: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
        method.eval()
        bf16 = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16")
        with torch.no_grad(), bf16:
            features = embed(batch).float()
        method.train()
        return features

    return run


def _full_batches(order: Tensor, batch_size: int) -> Iterator[list[Position]]:
    """This process's share of each batch. The last batch is filled up from the beginning of the order, because a few
    images alone would have no statistics to be normalised by."""
    share = batch_size // distributed.world_size()
    first = distributed.rank() * share
    for start in range(first, first + len(order), batch_size):
        places = torch.arange(start, start + share) % len(order)
        yield [(BEFORE_TRAINING, index) for index in order[places].tolist()]
