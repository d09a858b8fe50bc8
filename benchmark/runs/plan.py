"""What a run would be, found without running it: every figure with its formula or its source.

The method is built from torch's fake tensors, which have shapes and no memory, and takes one step with them. That
counts its operations and what backward has to keep, of a method with a 49 GB bank too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from tabulate import tabulate
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from benchmark.backbones.contract import Backbone
from benchmark.core.errors import UserError
from benchmark.core.groups import group_size
from benchmark.core.optimisation import Cosine, Milestones, Schedule, WarmupCosine
from benchmark.core.plain import on_one_line
from benchmark.data.batch import Batch
from benchmark.data.datasets import DATASETS
from benchmark.data.labels import Classes
from benchmark.engine.feed import known_of, sampled, seen_images, with_pools
from benchmark.engine.train import build_method
from benchmark.method import Method
from benchmark.recipe.catalogue import get_recipe
from benchmark.recipe.contract import Recipe
from benchmark.recipe.pools import Given, Known, Pool
from benchmark.recipe.scales import DRAWN, Scale, against_paper, at_scale
from benchmark.runs.run import pool_images

TYPICAL_IMAGE = (500, 375)  # width and height most ImageNet photographs have; views crop, so it decides nothing
SHARDS = (8, 32)  # processes that per-image buffers are shown divided over

FEW_IMAGES = 4
MOST_REAL_BYTES = 4e9

KMEANS_RATE = 5e10  # on one thread of a CPU: 100,000 x 256 rows in 10,000 clusters, 20 iterations, took 213 s

Line = tuple[str, str, str]  # (what, value, how it comes about)


@dataclass(frozen=True)
class Gpu:
    """What the estimate of GPU-hours assumes: the data sheet's peak, and the share of it that training reaches."""

    tflops: float
    utilisation: float


@dataclass(frozen=True)
class Cost:
    """Of one process's share of one step: operations, bytes kept for backward, and how they were found, or why not."""

    flops: int = 0
    kept_bytes: int = 0
    how: str = ""


def usual_processes(recipe: Recipe, scale: Scale) -> int:
    """8 at paper scale, if each gets a whole share of the batch and whole groups of BatchNorm; otherwise one."""
    changed = at_scale(recipe, scale)
    whole = 8 * (group_size(changed.backbone) or 1)
    return 8 if scale == "paper" and all(changed.batch_of(name) % whole == 0 for name in changed.pools) else 1


def plan_text(
    recipe: Recipe,
    scale: Scale,
    processes: int,
    num_images: int | None,
    data: Path | None,
    gpu: Gpu,
    recipes_dir: Path | None = None,
) -> str:
    """The whole plan as text. recipes_dir: a folder of recipes that this one may come after, besides the benchmark's.
    Raises UserError if the number of images is unknown or the batch cannot be divided."""
    changed = at_scale(recipe, scale)
    given, source = _given(changed, scale, num_images, data, recipes_dir)
    count = given.num_images
    steps_per_epoch = max(count // changed.batch_of(next(iter(changed.pools))), 1)
    total = changed.length.steps(steps_per_epoch)
    fake = FakeTensorMode()
    method = _build_fake(changed, given, fake)
    _require_whole_shares(changed, processes)
    run = [
        *_length_lines(changed, given, source, steps_per_epoch, total),
        *([("processes", f"{processes:,}", "set with --processes"), _across_processes(method)] if total else []),
    ]
    sections = [
        ("Run", run),
        ("Rates", [*_rate_lines(changed, total, steps_per_epoch)]),
        ("Settings", [*_setting_lines(changed)]),
        ("State", [*_state_lines(changed, method, count)]),
        ("Cost", [*_cost_lines(changed, method, fake, given, total, processes, gpu)] if total else []),
    ]
    title = f"{changed.title} at {scale} scale" + (f"; {changed.reported}" if changed.reported else "")
    sections.append(("Changed", [(change.key, on_one_line(change.value), change.why) for change in recipe.overrides]))
    texts = [f"{name}\n{_aligned(lines)}" for name, lines in sections if lines]
    small: Scale = "photos" if scale == "photos" else "desk"
    return "\n\n".join([title, *texts, f"{small.capitalize()} against paper\n{_against_paper(recipe, small)}"])


def what_depends_on_processes(recipe: Recipe) -> list[str]:
    """Method.depends_on_processes at paper scale, of the complete data; nothing for what never trains."""
    if not recipe.optimizers:
        return []
    return _build_fake(recipe, _given(recipe, "paper", None, None, None)[0], FakeTensorMode()).depends_on_processes()


def _require_whole_shares(recipe: Recipe, processes: int) -> None:
    for name in recipe.pools:
        if recipe.batch_of(name) % processes:
            raise UserError(
                f"batch_size {recipe.batch_of(name)} of {name} cannot be divided over {processes} processes"
            )


def _across_processes(method: Method) -> Line:
    found = method.depends_on_processes()
    return (
        "on n processes",
        "another run" if found else "the same run",
        "; ".join(found) or "up to the order of sums",
    )


def _aligned(lines: list[Line]) -> str:
    return tabulate(lines, tablefmt="plain", colalign=("left", "right", "left"), disable_numparse=True)


def _given(
    recipe: Recipe, scale: Scale, num_images: int | None, data: Path | None, recipes_dir: Path | None
) -> tuple[Given, str]:
    """(what the method is built from, where the number of images comes from)."""
    # with a number given, a run can be planned before its data is there
    root = data or (Path("data", scale) if scale in DRAWN and num_images is None else None)
    known = {name: _known(pool, root) for name, pool in recipe.pools.items()}
    first, pool = next(iter(known)), next(iter(recipe.pools.values()))
    source = f"{pool.title}/{pool.split}" + (f" in {root}" if root else ", complete")
    if num_images is not None:
        known[first], source = replace(known[first], num_images=num_images), "as given"
    earlier = {key: at_scale(get_recipe(name, recipes_dir), scale) for key, name in recipe.after.items()}
    backbones = {key: _left_by(one, scale, num_images, data, recipes_dir) for key, one in earlier.items()}
    return Given(known[first].num_images, known[first].num_classes, known, backbones), source


def _known(pool: Pool, root: Path | None) -> Known:
    """Of the images that lie in `root`, or of the complete dataset."""
    if root:
        return known_of(seen_images(pool, pool_images(pool, root, seed=0)))
    if pool.dataset not in DATASETS:
        raise UserError(f"there is no dataset {pool.dataset!r}; known: {', '.join(DATASETS)}")
    layout = DATASETS[pool.dataset]
    complete, classes = layout.SPLITS[pool.split]
    count = round(complete * pool.percent / 100)
    if not pool.labels:
        return Known(count)
    return Known(count, classes, () if layout.LABELS is Classes else (classes,))


def _left_by(
    recipe: Recipe, scale: Scale, num_images: int | None, data: Path | None, recipes_dir: Path | None
) -> Backbone:
    """What the recipe would leave behind untrained, without memory for its weights."""
    given, _ = _given(recipe, scale, num_images, data, recipes_dir)
    with torch.device("meta"):
        return build_method(recipe, given).export()


def _length_lines(recipe: Recipe, given: Given, source: str, steps_per_epoch: int, total: int) -> Iterator[Line]:
    images = given.num_images
    yield "images", f"{images:,}", source
    for name, pool in [*recipe.pools.items()][1:]:
        yield (
            f"images of {name}",
            f"{given.pools[name].num_images:,}",
            f"{pool.title}/{pool.split}; an epoch is of the first pool",
        )
    for name, earlier in recipe.after.items():
        yield name, earlier, "the recipe whose backbone this one is given; pretrained first, and planned by itself"
    for name, pool in recipe.pools.items():
        which = f"batch of {name}, {pool.dataset}" if len(recipe.pools) > 1 else "batch"
        yield which, f"{recipe.batch_of(name):,}", "recipe, over all processes"
    yield (
        "steps per epoch",
        f"{steps_per_epoch:,}",
        f"{images:,} // {recipe.batch_of(next(iter(recipe.pools))):,}, the last images left out",
    )
    yield "epochs", f"{total / steps_per_epoch:,.6g}", "steps / steps per epoch"
    yield "steps", f"{total:,}", f"recipe, length = {on_one_line(recipe.length)}"
    yield "precision", recipe.precision, "recipe"


def _rate_lines(recipe: Recipe, total: int, steps_per_epoch: int) -> Iterator[Line]:
    for player, optimizer in recipe.optimizers.items():
        schedule = recipe.schedule_of(player)
        for step, why in _milestones(schedule, total, steps_per_epoch):
            factor = schedule.factor(step, total, steps_per_epoch)
            formula = f"{optimizer.lr:g} x {factor:.6g}, {why}"
            yield f"lr of {player} at step {step:,}", f"{optimizer.lr * factor:.6g}", formula


def _setting_lines(recipe: Recipe) -> Iterator[Line]:
    """Every value of the method, its input, the backbone and the optimizers, with the flag that changes it."""
    parts = {"method": recipe.method, "input": recipe.input, "backbone": recipe.backbone}
    parts |= {f"optimizers.{player}": optimizer for player, optimizer in recipe.optimizers.items()}
    for part, values in parts.items():
        for name, value in vars(values).items():
            yield name, on_one_line(value), f"--recipe.{part}.{name}"


def _milestones(schedule: Schedule, total: int, steps_per_epoch: int) -> list[tuple[int, str]]:
    """(step, what happens there), in order of steps; two things at one step are told together."""
    if not total:
        return []
    points = [(0, "the first step")]
    if schedule.warmup:
        points.append((schedule.warmup.span.steps(steps_per_epoch, total), "warm-up ends"))
    if isinstance(schedule, Milestones):
        points += [(at.steps(steps_per_epoch, total), f"dropped by {schedule.gamma:g}") for at in schedule.at]
    if isinstance(schedule, Cosine | WarmupCosine):
        first = schedule.warmup.span.steps(steps_per_epoch, total) if isinstance(schedule, WarmupCosine) else 0
        parts = (0, 0.25, 0.5, 0.75)
        points += [(first + round(part * (total - 1 - first)), f"{part:.0%} of the cosine") for part in parts]
    points.append((total - 1, "the last step"))
    told: dict[int, list[str]] = {}
    for step, why in points:
        if step < total:
            told.setdefault(step, []).append(why)
    return [(step, ", ".join(told[step])) for step in sorted(told)]


def _build_fake(recipe: Recipe, given: Given, fake: FakeTensorMode) -> Method:
    """Built on the meta device, where nothing is drawn or filled, then said to lie on the CPU, for autocast's sake."""
    with torch.device("meta"):
        method = build_method(recipe, given)
    with fake:
        for module in method.modules():
            for name, parameter in module.named_parameters(recurse=False):
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                setattr(module, name, nn.Parameter(empty, parameter.requires_grad))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
    return method


def _state_lines(recipe: Recipe, method: Method, num_images: int) -> Iterator[Line]:
    backbone = sum(p.numel() for p in method.backbone.parameters())
    whole = sum(p.numel() for p in method.parameters())
    yield "parameters, backbone", f"{backbone:,}", on_one_line(recipe.backbone)
    yield "parameters, method", f"{whole:,}", "backbone and heads"
    slots = (
        sum(p.numel() * recipe.optimizers[player].slots for player, params in method.players().items() for p in params)
        if recipe.optimizers
        else 0
    )
    yield "optimizer state", _bytes(4 * slots), "4 bytes x (momentum: 1 number, Adam's moments: 2) of each parameter"
    statistics = {
        id(buffer)
        for one in method.modules()
        if isinstance(one, nn.modules.batchnorm._BatchNorm)
        for buffer in one.buffers()
    }
    for name, buffer in method.named_buffers():
        if name.startswith("backbone.") or id(buffer) in statistics:
            continue
        size = buffer.numel() * buffer.element_size()
        shape = " x ".join(f"{n:,}" for n in buffer.shape) or "1"
        yield f"buffer {name}", _bytes(size), f"{shape} x {buffer.element_size()} bytes"
        if buffer.ndim and buffer.shape[0] == num_images:
            shares = (f"{_bytes(-(-num_images // n) * size // num_images)} over {n} processes" for n in SHARDS)
            state = "sharded here" if name in method.sharded_buffers() else "whole on each process here"
            yield "  if sharded, on each", "", f"{', '.join(shares)}; {state}"


def _cost_lines(
    recipe: Recipe, method: Method, fake: FakeTensorMode, given: Given, total: int, processes: int, gpu: Gpu
) -> Iterator[Line]:
    share = recipe.batch_size // processes
    cost = _step_cost(recipe, method, fake, share, given)
    if not cost.flops:
        yield "FLOPs, memory, hours", "unknown", cost.how
        return
    yield from _between_lines(method)
    per_step = cost.flops * processes
    hours = per_step * total / (gpu.tflops * 1e12 * gpu.utilisation) / 3600
    yield (
        "FLOPs per step",
        f"{per_step:.4g}",
        f"{cost.how}; forward and backward, {share:,} images x {_counted_as(processes, 'process', 'processes')}",
    )
    yield "FLOPs, total", f"{per_step * total:.4g}", f"x {total:,} steps"
    yield (
        "kept for backward",
        _bytes(cost.kept_bytes),
        f"on each process, {share:,} images, {recipe.precision}; gradients, workspaces and what is computed again "
        "come on top",
    )
    yield (
        "GPU-hours, estimate",
        _about(hours),
        f"FLOPs, total / ({gpu.tflops:g}e12 a second x {gpu.utilisation:g} reached) / 3600; "
        f"{_about(hours / processes)} hours on {_counted_as(processes, 'GPU', 'GPUs')}. By default an A100's peak in "
        "TF32, and a guess at the share that is reached: set --peak-tflops and --utilisation to yours",
    )
    yield "transfers", "not counted", "this is pretraining alone; what a protocol trains, such as a probe, comes on top"


def _between_lines(method: Method) -> Iterator[Line]:
    when, works = _looks(method), method.work_between()
    if when:
        rest = "" if works else ", and compute on what it saw"
        yield "not counted", when, f"the method may then look at all images{rest}"
    for work in works:
        hours = work.operations / KMEANS_RATE / 3600
        yield (
            f"{work.name}, FLOPs each time",
            f"{work.operations:.4g}",
            f"{work.formula}; {when}, by process 0 alone, with {_bytes(work.num_bytes)} of features and results; not "
            f"in the totals below. {_about(hours)} thread-hours, where a thread of the CPU does "
            f"{KMEANS_RATE / 1e9:g}e9 a second",
        )


def _counted_as(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _about(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def _looks(method: Method) -> str:
    """When the method calls `embed_all`, as far as it has something to do then."""
    kind = type(method)
    whens = {"before the first step": kind.prepare is not Method.prepare}
    whens["at the start of each epoch"] = kind.on_epoch_start is not Method.on_epoch_start
    return ", ".join(when for when, has in whens.items() if has)


def _step_cost(recipe: Recipe, method: Method, fake: FakeTensorMode, share: int, given: Given) -> Cost:
    """One step of `share` images with fake tensors; where the method looks at values before its first loss, with real
    ones and a few images, scaled up."""
    try:
        with fake:
            return _counted(recipe, method, share, given)
    except (RuntimeError, NotImplementedError) as error:
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    size = sum(buffer.numel() * buffer.element_size() for buffer in method.buffers())
    if size > MOST_REAL_BYTES:
        return Cost(how=f"the method looks at values ({reason}), and its buffers are too large to fill")
    few = min(share, FEW_IMAGES)
    cost = _counted(recipe, build_method(recipe, given), few, given)
    scale = share / few
    return Cost(
        round(cost.flops * scale),
        round(cost.kept_bytes * scale),
        f"from {few} real images, in proportion, since the method looks at values",
    )


def _counted(recipe: Recipe, method: Method, share: int, given: Given) -> Cost:
    """Operations and kept bytes of one step, up to the last loss at least: what a method does after it, such as
    updating a bank, may look at values, and costs next to nothing."""
    own = {tensor.untyped_storage()._cdata for tensor in (*method.parameters(), *method.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            kept[storage] = tensor  # held, so that no later storage can take its place
        return tensor

    batch = _blank_batch(recipe, share, given)
    method.train()
    has_stepped = False
    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = method.losses(batch)
        try:
            while True:
                with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
                    names, loss = next(losses)
                players = method.players()
                stepped = (names,) if isinstance(names, str) else names
                loss.backward(inputs=[parameter for name in stepped for parameter in players[name]])
                has_stepped = True
        except StopIteration:
            pass
        except RuntimeError:
            if not has_stepped:
                raise
    return Cost(
        counter.get_total_flops(), sum(tensor.untyped_storage().nbytes() for tensor in kept.values()), "counted"
    )


def _blank_batch(recipe: Recipe, share: int, given: Given) -> Batch:
    """share: of the first pool's batch; the others' in proportion."""
    found = {}
    first = next(iter(recipe.pools))
    for name, pool in recipe.pools.items():
        with unset_fake_temporarily():  # the views work on a real image
            torch.manual_seed(0)
            views = sampled(recipe.method, pool.views, recipe.input, _blank, 0)
        rows = max(share * recipe.batch_of(name) // recipe.batch_of(first), 1)
        stacked = {key: torch.zeros((rows, *view.shape), dtype=view.dtype) for key, view in views.items()}
        labels = torch.zeros(rows, *given.pools[name].per_image, dtype=torch.int64) if pool.labels else None
        found[name] = Batch(stacked, torch.arange(rows), seed=0, labels=labels)
    return with_pools(found, first)


def _blank(index: int, kind: str = "") -> Image.Image:
    """An image, black, or a map of one, white: of contours, none would be there otherwise."""
    return Image.new("L", TYPICAL_IMAGE, 255) if kind else Image.new("RGB", TYPICAL_IMAGE)


def _against_paper(recipe: Recipe, scale: Scale) -> str:
    lines = against_paper(recipe, scale)
    if not lines:
        return "no difference"
    return tabulate(lines, headers=("key", "paper", scale, "why"), tablefmt="plain", disable_numparse=True)


def _bytes(count: float) -> str:
    """In decimal units, as memory is sold: 655.96 MB."""
    power = min(int(math.log10(count) // 3), 4) if count >= 1 else 0
    return f"{count / 1000**power:.4g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
