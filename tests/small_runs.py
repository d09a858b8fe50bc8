"""Every recipe small enough to run in a second, in processes that a test may kill, or that serve many tests."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image

from benchmark.backbones.weights import load_backbone, save_backbone
from benchmark.core import distributed
from benchmark.core.errors import UserError
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes
from benchmark.engine import train
from benchmark.engine.players import Player
from benchmark.engine.train import NOTHING, Machine, pretrain
from benchmark.engine.watch import Watch
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Recipe
from benchmark.recipe.pools import Given
from benchmark.recipe.scales import at_scale
from benchmark.runs.run import Run
from benchmark.runs.scoring import score
from benchmark.transfers import features
from benchmark.transfers.contract import Transfer

RECIPES = {name: at_scale(recipe, "smoke") for name, recipe in find_recipes().items()}
TRAINED = {name: recipe for name, recipe in RECIPES.items() if recipe.optimizers}
NUM_IMAGES, CLASSES = 48, 4
KINDS = sorted({kind for recipe in RECIPES.values() for pool in recipe.pools.values() for kind in pool.maps})
LIMIT_SECONDS = 240.0  # no outcome depends on it: a test that meets it has hung


def drawn_images(folder: Path, count: int = NUM_IMAGES, size: int = 40) -> ImageSet:
    """Each with a map beside it, which will do for any kind of map."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number}.png" for number in range(count)]
    for name in names:
        pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        Image.fromarray(pixels[..., 0]).save(folder / map_of(name))
    labels = Classes(np.arange(count) % CLASSES, tuple("abcd"))
    return ImageSet("drawn/train", folder, names, labels, maps=dict.fromkeys(KINDS, map_of))


def map_of(name: str) -> str:
    return f"map of {name}"


def pools_of(recipe: Recipe, images: ImageSet) -> dict[str, ImageSet]:
    """For each pool all images, or of a part of the data as many as a batch at least."""
    found = {}
    for name, pool in recipe.pools.items():
        count = max(round(len(images) * pool.percent / 100), recipe.batch_of(name))
        found[name] = images if pool.percent == 100 else images.subset(range(count), f"{pool.percent}%")
    return found


def on_cpu(workers: int = 0, checkpoint_seconds: float = 0.0) -> Machine:
    """Saves a checkpoint after every step."""
    return Machine(torch.device("cpu"), workers, checkpoint_seconds)


@dataclass
class Outcome:
    """What a process returned or raised; exit_code is -9 when it was killed."""

    value: Any = None
    error: str | None = None
    error_type: str | None = None
    exit_code: int | None = None


class Processes:
    """`count` processes that torchrun might have started, each doing whatever it is sent: to start some takes as long
    as a small recipe's training. What one is sent must put back what it changes."""

    def __init__(self, count: int) -> None:
        self.count, self.pipes, self.members = count, [], []

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Outcome]:
        """function(*arguments) in each, and what came of it."""
        if not self.members:
            self._start()
        for pipe in self.pipes:
            pipe.send((function, arguments))
        outcomes, deadline = [Outcome(error="hung")] * self.count, time.monotonic() + LIMIT_SECONDS
        waiting = dict(zip(self.pipes, range(self.count), strict=True))
        while waiting and (heard := wait(waiting, max(deadline - time.monotonic(), 0))):
            for pipe in heard:
                outcome = outcomes[waiting.pop(pipe)] = _received(pipe)
                if outcome.error:  # the others may wait for this one without end
                    deadline = min(deadline, time.monotonic() + LIMIT_SECONDS / 8)
        if any(outcome.error for outcome in outcomes):
            self.stop()  # some may wait for others that have given up
        return outcomes

    def _start(self) -> None:
        context, port = multiprocessing.get_context("fork"), _free_port()
        for rank in range(self.count):
            pipe, theirs = context.Pipe()
            member = context.Process(target=_serve, args=(rank, self.count, port, theirs))
            member.start()
            theirs.close()
            self.pipes.append(pipe)
            self.members.append(member)

    def stop(self) -> None:
        for pipe, member in zip(self.pipes, self.members, strict=True):
            pipe.close()
            member.kill()
            member.join()
        self.pipes, self.members = [], []


def _serve(rank: int, count: int, port: int, pipe: Any) -> None:
    _join(rank, count, port)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return  # whoever started this is gone
        try:
            outcome = Outcome(value=function(*arguments))
        except BaseException as error:
            outcome = Outcome(error=str(error) or repr(error), error_type=type(error).__name__)
        pipe.send(outcome)


def _received(pipe: Any) -> Outcome:
    try:
        return pipe.recv()
    except (EOFError, ConnectionError):
        return Outcome(error="died")


def record_in_small_batches(transfer: Transfer, run: Run, incomplete: bool = False) -> bytes:
    """So small that each of two processes has some. It changes this process: for one that ends with it."""
    features.EVALUATION_BATCH = 7
    return score(transfer, run, on_cpu(), incomplete=incomplete).to_bytes()


def in_processes(count: int, function: Callable[..., Any], *arguments: Any) -> list[Outcome]:
    """Run function(*arguments) in `count` forked processes that torchrun might have started, and wait for all."""
    context, port = multiprocessing.get_context("fork"), _free_port()
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    processes = [
        context.Process(target=_child, args=(rank, count, port, pipes[rank][1], function, arguments))
        for rank in range(count)
    ]
    for process, (_, sender) in zip(processes, pipes, strict=True):
        process.start()
        sender.close()
    outcomes = []
    deadline = time.monotonic() + LIMIT_SECONDS
    for process, (receiver, _) in zip(processes, pipes, strict=True):
        outcome = Outcome()
        # the end of a killed process, not of its pipe: loader processes hold that open until they miss their parent
        while process.is_alive() and not receiver.poll(0.01) and time.monotonic() < deadline:
            pass
        try:
            if receiver.poll():
                outcome = receiver.recv()
        except EOFError:
            pass  # killed before it could say anything
        process.join(max(deadline - time.monotonic(), 0))
        if process.is_alive():
            process.kill()
            process.join()
            outcome.error = "hung"
        outcome.exit_code = process.exitcode
        outcomes.append(outcome)
    return outcomes


def _child(rank: int, count: int, port: int, pipe: Any, function: Callable[..., Any], arguments: Any) -> None:
    try:
        _join(rank, count, port)
        outcome = Outcome(value=function(*arguments))
        distributed.stop()
    except BaseException as error:
        outcome = Outcome(error=str(error), error_type=type(error).__name__)
    pipe.send(outcome)
    pipe.close()


def _join(rank: int, count: int, port: int) -> None:
    torch.set_num_threads(1)
    if count > 1:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
        )
    distributed.start("cpu")
    # a process that leaves before the others have met breaks their greeting
    if count > 1:
        dist.barrier()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(recipe: Recipe, images: ImageSet, folder: Path, machine: Machine, watch: Watch = NOTHING) -> bytes:
    """The bytes of the backbone file."""
    pools, before = pools_of(recipe, images), untrained_before(recipe, images)
    return pretrain(recipe, "small", pools, folder, machine, before, watch=watch).read_bytes()


def run_and_die(
    recipe: Recipe,
    images: ImageSet,
    folder: Path,
    machine: Machine,
    kill_step: int,
    delay: float,
    watch: Watch = NOTHING,
) -> None:
    """Pretrain until SIGKILL, which strikes `delay` seconds after the beginning of the kill_step-th step of this
    process, or at the beginning of the step after it if that comes first."""
    steps = 0
    step = train.train_step

    def counted(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > kill_step:
            _die()
        if steps == kill_step:
            threading.Timer(delay, _die).start()
        return step(*arguments)

    train.train_step = counted
    train.clear_checkpoints = lambda run: time.sleep(LIMIT_SECONDS)  # a run that got here dies here
    run(recipe, images, folder, machine, watch)


def run_and_stop(
    recipe: Recipe, images: ImageSet, folder: Path, machine: Machine, steps: int, watch: Watch = NOTHING
) -> None:
    """Pretrain for so many steps, and keep the last checkpoint, as a kill would."""
    _run_until(train, "train_step", steps + 1, recipe, images, folder, machine, watch)


def run_and_stop_in_step(recipe: Recipe, images: ImageSet, folder: Path, machine: Machine, steps: int) -> None:
    """The same, but of the step after them every player has moved that comes before the last."""
    _run_until(Player, "step", (steps + 1) * len(recipe.optimizers), recipe, images, folder, machine)


def _run_until(
    owner: Any, name: str, number: int, recipe: Recipe, images: ImageSet, folder: Path, *arguments: Any
) -> None:
    """Pretrain until the `number`-th call of owner.name, which is stopped at its beginning."""
    function, calls = getattr(owner, name), 0

    def counted(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise KeyboardInterrupt
        return function(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, counted)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, images, folder, *arguments)
    assert (folder / "checkpoint.pt").is_file()


def untrained_before(recipe: Recipe, images: ImageSet) -> dict[str, Path]:
    """Backbone files of the recipes that this one comes after, as they would leave them behind untrained, made once
    beside the images."""
    kind, classes = str(torch.get_default_dtype()).removeprefix("torch."), len(images.classes) or CLASSES
    files = {key: images.root / f"{name}.{classes}.{kind}.safetensors" for key, name in recipe.after.items()}
    for key, path in files.items():
        if not path.is_file():
            torch.manual_seed(0)
            earlier = RECIPES[recipe.after[key]]
            before = {name: load_backbone(one)[0] for name, one in untrained_before(earlier, images).items()}
            given = Given(len(images), classes, backbones=before)
            method = earlier.method.build(earlier.backbone.build(earlier.input), given)
            save_backbone(path, method.export(), {"recipe": recipe.after[key]})
    return files


def die_after(seconds: float) -> None:
    timer = threading.Timer(seconds, _die)
    timer.daemon = True  # a process that is done by then may end
    timer.start()


def die_in_write(number: int) -> None:
    """SIGKILL in the middle of this process's `number`-th file: half of its bytes are there, under no final name."""

    def die(descriptor: int) -> None:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        _die()

    at_write(number, die)


def at_write(number: int, action: Callable[[int], None]) -> Callable[[], int]:
    """Call action(descriptor) before the `number`-th file that this process writes whole is flushed to disk. Returns
    what tells how many have been written so far."""
    flush, written = os.fsync, 0

    def counted(descriptor: int) -> None:
        nonlocal written
        written += 1
        if written == number:
            action(descriptor)
        flush(descriptor)

    os.fsync = counted
    return lambda: written


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def short(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, **changes)


def chance(*key: object) -> random.Random:
    """Another sequence for each key, the same at every run."""
    return random.Random(repr(key))


__all__ = ["RECIPES", "TRAINED", "Outcome", "UserError", "in_processes", "on_cpu", "run", "run_and_die"]
