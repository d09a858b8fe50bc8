"""The one loop in which a protocol trains: heads on a frozen backbone, or a whole network. Killed and started again it
ends with the same bits, since everything in it follows from the step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.contract import Backbone
from benchmark.backbones.norms import few_told, over_all_processes
from benchmark.backbones.weights import load_strictly
from benchmark.core import distributed
from benchmark.core.draws import mix, seed_torch
from benchmark.core.errors import UserError
from benchmark.core.mixed_precision import autocast
from benchmark.core.optimisation import Optimizer, ParameterKind, Precision, Schedule, Span
from benchmark.core.streams import Stream
from benchmark.data.image_set import ImageSet
from benchmark.data.loader import TrainOrder, Views
from benchmark.engine.checkpoint import load_optimizer, read_state, write_state
from benchmark.transfers.contract import Context, ProtocolCard
from benchmark.transfers.features import at_positions, digest

CHECKPOINT_SECONDS = 120.0
REPORT_STEPS = 10

# From the order of the batches to the two things that the loss takes, inputs and truth on the device, one pair a step.
Batches = Callable[[TrainOrder], Iterator[tuple[Any, Any]]]
Layer = TypeVar("Layer", bound=nn.Conv2d | nn.Linear)


@dataclass(frozen=True)
class Course:
    """How long a protocol trains, on batches of what size, how its rates fall, and whether under autocast."""

    length: Span
    batch_size: int
    schedule: Schedule
    precision: Precision = "fp32"

    def batch(self, num_images: int) -> int:
        return min(self.batch_size, num_images)

    def steps_per_epoch(self, num_images: int) -> int:
        return num_images // self.batch(num_images)

    def steps_total(self, num_images: int) -> int:
        return self.length.steps(self.steps_per_epoch(num_images))

    def factor(self, step: int, num_images: int) -> float:
        """Multiplier of the learning rate at `step` (0-based)."""
        return self.schedule.factor(step, self.steps_total(num_images), self.steps_per_epoch(num_images))


def checkpoint_path(card: ProtocolCard, context: Context, *facts: object) -> Path:
    """Where a training keeps its state. With card and version, `facts` are everything that decides it, so a checkpoint
    found there is this training's own; it is removed once the record is there (Context.workspace)."""
    return context.workspace / f"{card.id}-{digest((card.id, card.version, *facts))}.pt"


def gaussian(layer: Layer, std: float, generator: torch.Generator) -> Layer:
    """The layer with new weights of that spread, and biases of 0."""
    assert layer.bias is not None
    nn.init.normal_(layer.weight, std=std, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(..., B, classes) of several networks, (B,) -> the sum of their losses: those that share nothing that trains each
    get the gradient of their own."""
    networks = logits.shape[:-2].numel()
    return F.cross_entropy(logits.flatten(0, -2), labels.repeat(networks)) * networks


def streamed(views: Views, made: Callable[[Tensor], Any], context: Context) -> Batches:
    """Of views drawn anew at every step: what is made of the images, and their labels."""

    def source(order: TrainOrder) -> Iterator[tuple[Any, Tensor]]:
        for pixels, labels in at_positions(views, order, context.workers):
            yield made(pixels), labels.to(context.device)

    return source


def freeze(backbone: Backbone, stages: int, norms: Iterable[nn.Module]) -> None:
    """The first `stages` of a backbone, and these norms of it, do not train. A norm's running statistics are another
    matter: they stay where it is in evaluation mode."""
    parts = (part for stage in list(backbone.stages)[:stages] for part in backbone.parts(stage))
    for module in (*parts, *norms):
        module.requires_grad_(False)


def build_optimizer(groups: Sequence[tuple[Iterable[nn.Parameter], Optimizer]]) -> torch.optim.Optimizer:
    """One optimizer whose parameter groups each have their own values. Raises ValueError for groups of two kinds."""
    (make,) = {values.torch_class() for _, values in groups}
    return make([group for parameters, values in groups for group in _groups(parameters, values)])


def _groups(parameters: Iterable[nn.Parameter], values: Optimizer) -> list[dict[str, Any]]:
    """One, or the biases apart where they have a rate or a decay of their own. What is a vector counts as a bias."""
    found: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for parameter in parameters:
        kind: ParameterKind = "weight" if parameter.ndim > 1 else "bias"
        decays = values.decays_on(kind)
        found.setdefault((values.rate_of(kind), values.weight_decay if decays else 0.0, decays), []).append(parameter)
    return [
        # LARS adapts what decays, even when the decay is 0
        {"params": own, **values.arguments(), "lr": r, "initial_lr": r, "weight_decay": decay, "decays": decays}
        for (r, decay, decays), own in found.items()
    ]


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Any, Any], Tensor],
    course: Course,
    images: ImageSet,
    source: Batches,
    checkpoint: Path,
    context: Context,
    after_step: Callable[[int], None] = lambda steps_done: None,
) -> None:
    """Train `model`, whose parameters and buffers are the whole state, on what `source` makes of `images`. Of several
    processes each trains a model of its own, and sees every image. Raises UserError for too few images for BatchNorm,
    or a loss that is not finite."""
    kept, steps = _Kept(checkpoint, model, optimizer), _Steps(optimizer, loss_of, course, images, context)
    for step, inputs, truth in steps.still_to_do(source, kept.restored(), divided=False):
        loss = steps.backward(step, inputs, truth)
        optimizer.step()
        after_step(step + 1)
        steps.report(step + 1, loss)
        kept.save_in_time(step + 1)


def fit_together(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Any, Any], Tensor],
    course: Course,
    images: ImageSet,
    source: Batches,
    checkpoint: Path,
    context: Context,
    clip: float | None = None,
) -> None:
    """`fit` one model on all processes: each takes its share of every batch, the gradients are means, and BatchNorm is
    over the whole batch. Several processes train what one does, but for rounding, for what a loss draws (dropout,
    regions), and where it is a mean over what not every image has as much of (regions, marked pixels).

    clip: the most that the norm of all gradients together may be. Raises UserError, too, for a batch that the processes
    cannot divide."""
    _require_shares(course.batch(len(images)), images)
    over_all_processes(model)
    kept, steps = _Kept(checkpoint, model, optimizer), _Steps(optimizer, loss_of, course, images, context)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    averager = distributed.GradientAverager(trained)
    for step, inputs, truth in steps.still_to_do(source, kept.restored(), divided=True):
        loss = steps.backward(step, inputs, truth)
        _fill_gradients(trained)
        averager.finish()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        steps.report(step + 1, distributed.mean_over_processes(loss.detach()))
        kept.save_in_time(step + 1)
    averager.stop()
    distributed.average(distributed.running_statistics(model))


@dataclass(frozen=True)
class _Steps:
    """What the steps of one training have in common."""

    optimizer: torch.optim.Optimizer
    loss_of: Callable[[Any, Any], Tensor]
    course: Course
    images: ImageSet
    context: Context

    def still_to_do(self, source: Batches, done: int, divided: bool) -> Iterator[tuple[int, Any, Any]]:
        """(step, inputs, truth) of those still to be done, each with random numbers of its own: what goes on after a
        kill would else draw others, as dropout does."""
        count, seed = len(self.images), self.context.seed
        total = self.course.steps_total(count)
        order = TrainOrder(count, self.course.batch(count), seed, done, total, divided=divided)
        for step, (inputs, truth) in enumerate(source(order), start=done):
            own = mix(seed, Stream.TRANSFER_STEP, step)
            seed_torch(of_this_process(own) if divided else own)
            yield step, inputs, truth

    def backward(self, step: int, inputs: Any, truth: Any) -> Tensor:
        """The loss, whose gradients the parameters then hold; the optimizer has the step's rates."""
        count = len(self.images)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.course.factor(step, count)
        with (
            autocast(self.context.device.type, self.course.precision),
            few_told(f"{self.images.name} has {count} to train on: add images"),
        ):
            loss = self.loss_of(inputs, truth)
        self.optimizer.zero_grad()
        loss.backward()
        return loss

    def report(self, done: int, loss: Tensor) -> None:
        total = self.course.steps_total(len(self.images))
        if done % REPORT_STEPS == 0 or done == total:
            self.context.report(f"training on {self.images.name}", done, total, {"loss": _finite(loss, done)})


def of_this_process(seed: int) -> int:
    """The first process draws what one alone would, and each other one something else."""
    return mix(seed, distributed.rank()) if distributed.rank() else seed


def _require_shares(batch: int, images: ImageSet) -> None:
    if batch % (processes := distributed.world_size()):
        raise UserError(
            f"batches of {batch} of {images.name} cannot be divided over {processes} processes; start a number of them "
            "that divides it"
        )


def _fill_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """A batch, or a process's share of it, may have nothing for a part of the model, such as objects. Several processes
    send zeros for it, and one is to train as they do."""
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _finite(loss: Tensor, step: int) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise UserError(f"the transfer's loss is {value} at step {step}: are the backbone's features finite?")
    return value


class _Kept:
    """The state of a training on disk. Of several processes each keeps its own, since they may train different parts of
    a model. Names tell the step, and the states before the last ones go once all have those: wherever all are killed,
    there is a step that all have."""

    def __init__(self, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.path, self.model, self.optimizer = path, model, optimizer
        self.written = time.monotonic()

    def restored(self) -> int:
        """Steps already done."""
        if distributed.world_size() == 1:
            return _restore(self.path, self.model, self.optimizer)
        steps = [set(each) for each in distributed.of_all(list(self._steps()))]
        done = max(set.intersection(*steps), default=0)
        with distributed.together():
            return _restore(self._at(done), self.model, self.optimizer)

    def save_in_time(self, done: int) -> None:
        is_due = time.monotonic() - self.written > CHECKPOINT_SECONDS
        if distributed.world_size() > 1:  # by the first one's clock, and not asked at every step
            is_due = done % REPORT_STEPS == 0 and distributed.agree(is_due)
        if is_due:
            self._save(done)
            self.written = time.monotonic()

    def _save(self, done: int) -> None:
        if distributed.world_size() == 1:
            return _save(self.path, self.model, self.optimizer, done)
        with distributed.together():
            _save(self._at(done), self.model, self.optimizer, done)
        for step, path in self._steps().items():
            if step != done:
                path.unlink()

    def _at(self, step: int) -> Path:
        return self.path.with_name(f"{self._own}{step}.pt")

    @property
    def _own(self) -> str:
        return f"{self.path.stem}.process{distributed.rank()}of{distributed.world_size()}.step"

    def _steps(self) -> dict[int, Path]:
        files = self.path.parent.glob(f"{self._own}*.pt")
        return {int(path.stem.removeprefix(self._own)): path for path in files}


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, done: int) -> None:
    write_state(path, {"done": done, "model": model.state_dict(), "optimizer": optimizer.state_dict()})


def _restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Steps already done. The path names everything that decides the run, so what is there belongs to it."""
    if not path.is_file():
        return 0
    state = read_state(path, {"done", "model", "optimizer"})
    if not isinstance(state["done"], int):
        raise UserError(f"{path}: {state['done']!r} is not a number of steps; delete it to start over")
    load_strictly(model, state["model"], path)
    load_optimizer(optimizer, state["optimizer"], path)
    return state["done"]
