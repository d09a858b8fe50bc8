"""`python tests/compare_ddp.py`: the engine's step against DistributedDataParallel's, on two gloo processes.

Both train the same ResNet-50 on the same shares of the same batches, taking turns step by step, so that whatever else
the machine does meets both. Prints whether their weights are equal bit for bit, and the ratio of their speeds.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
import tyro
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from benchmark.backbones.resnet import ResNet
from benchmark.core.distributed import GradientAverager
from benchmark.core.optimisation import SGD
from benchmark.data.batch import Batch
from benchmark.engine.players import Player
from benchmark.engine.train import train_step
from benchmark.method import Method
from benchmark.recipe.inputs import InputSpec

PROCESSES = 2
CLASSES = 100
VALUES = SGD(lr=0.1, momentum=0.9, weight_decay=1e-4)


@dataclass(frozen=True)
class Trial:
    """What to compare: a ResNet-50 of this width, on this many images of this size for each process."""

    width: float = 1.0
    norm: Literal["batch", "group"] = "batch"
    size: int = 64
    batch: int = 8
    rounds: int = 15


@dataclass(frozen=True)
class Outcome:
    """equal: every parameter, bit for bit. ratio: DDP's seconds a step through the engine's, median over rounds."""

    equal: bool
    ratio: float
    engine_seconds: float
    ddp_seconds: float


class _Classifier(Method):
    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self.backbone = ResNet(width=trial.width, norm=trial.norm).build(InputSpec(trial.size))
        self.fc = nn.Linear(self.backbone.out_channels, CLASSES)

    def forward(self, batch: Batch) -> Tensor:
        return cross_entropy(self.fc(self.backbone(batch.views["image"])), batch.index)

    def loss(self, batch: Batch) -> Tensor:
        return self(batch)


def compare(trial: Trial) -> Outcome:
    """Start the processes, and say what they found."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    torch.multiprocessing.spawn(_process, (trial, port, answers), nprocs=PROCESSES)
    return answers.get()


def _process(rank: int, trial: Trial, port: int, answers: Any) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=PROCESSES)
    outcome = measure(trial)
    if rank == 0:
        answers.put(outcome)
    dist.destroy_process_group()


def measure(trial: Trial) -> Outcome:
    """What each of the processes runs."""
    engine, ours = _engine(trial)
    ddp, theirs = _ddp(trial)
    seconds: list[tuple[float, float]] = []
    for number in range(trial.rounds + 1):
        batch = _batch(trial, number)
        turns = [engine, ddp] if number % 2 else [ddp, engine]
        taken = {turn: _timed(turn, batch) for turn in turns}
        seconds.append((taken[engine], taken[ddp]))
    measured = seconds[1:]  # the first step of both allocates
    equal = all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    ratio = statistics.median(b / a for a, b in measured)
    engine_seconds, ddp_seconds = (statistics.median(column) for column in zip(*measured, strict=True))
    return Outcome(equal, ratio, engine_seconds, ddp_seconds)


def _engine(trial: Trial) -> tuple[Callable[[Batch], object], Method]:
    method, optimizer = _fresh(trial)
    parameters = list(method.parameters())
    players = {"main": Player(parameters, optimizer, GradientAverager(parameters), VALUES)}
    return lambda batch: train_step(method, batch, players, "fp32"), method


def _ddp(trial: Trial) -> tuple[Callable[[Batch], object], Method]:
    method, optimizer = _fresh(trial)
    wrapped = DistributedDataParallel(method)

    def step(batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        wrapped(batch).backward()
        optimizer.step()

    return step, method


def _fresh(trial: Trial) -> tuple[Method, torch.optim.Optimizer]:
    torch.manual_seed(0)
    method = _Classifier(trial).to(memory_format=torch.channels_last)
    return method, torch.optim.SGD(method.parameters(), **VALUES.arguments(), weight_decay=VALUES.weight_decay)


def _batch(trial: Trial, number: int) -> Batch:
    torch.manual_seed(number * PROCESSES + dist.get_rank())
    image = torch.randn(trial.batch, 3, trial.size, trial.size).contiguous(memory_format=torch.channels_last)
    return Batch({"image": image}, torch.randint(CLASSES, (trial.batch,)), seed=number)


def _timed(step: Callable[[Batch], object], batch: Batch) -> float:
    dist.barrier()
    started = time.perf_counter()
    step(batch)
    dist.barrier()
    return time.perf_counter() - started


def main(trial: Trial) -> None:
    outcome = compare(trial)
    print(f"ResNet-50 x{trial.width:g}, {PROCESSES} processes of {trial.batch} images of {trial.size} px")
    print(f"weights equal bit for bit after {trial.rounds + 1} steps: {'yes' if outcome.equal else 'NO'}")
    print(f"seconds a step: engine {outcome.engine_seconds:.3f}, DistributedDataParallel {outcome.ddp_seconds:.3f}")
    print(f"throughput over DistributedDataParallel's: {outcome.ratio:.2f} (median of {trial.rounds} paired steps)")


if __name__ == "__main__":
    main(tyro.cli(Trial, description=__doc__))
