"""One to n processes under torchrun: who am I, and what do we know together. Everything is a no-op for one process."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise, zip_longest
from math import prod
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from benchmark.core.errors import UserError

# Gradients are sent in pieces of this size while the backward pass goes on; it is DistributedDataParallel's default. On
# two gloo processes a single piece made a whole ResNet-50's step take twice as long; 4 and 12 MB do as well as 25.
BUCKET_BYTES = 25 << 20
# Bytes. A GPU's kernels are chosen by where a tensor begins too, and torch's own tensors begin at multiples of this.
ALIGNED = 512
Value = TypeVar("Value")


def start(device: str) -> torch.device:
    """Join the other processes if torchrun started several, and return this process's device."""
    on_gpu = device.startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        raise UserError(f"device {device!r}: torch sees no GPU here; give --device cpu")
    if on_gpu and (number := device.partition(":")[2]) and int(number) >= torch.cuda.device_count():
        raise UserError(f"device {device!r}: torch sees {torch.cuda.device_count()} GPUs here, numbered from 0")
    if device == "cuda":
        # a machine's processes see the GPUs of all, or, as with Slurm's gpus-per-task, their own alone
        device = f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
        torch.cuda.set_device(device)
    if "RANK" in os.environ and not dist.is_initialized():
        # gloo carries what lies on the CPU, such as the processes' decisions, without a wait for the GPU
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
        if on_gpu:
            _require_own_gpu(str(torch.cuda.get_device_properties(device).uuid))
    return torch.device(device)


def _require_own_gpu(name: str) -> None:
    names = of_all(name)
    if len(set(names)) < len(names):  # nccl would fail too, at the first exchange, and not say why
        told = f"this run has {len(names)} processes and fewer GPUs ({len(set(names))})"
        raise UserError(f"{told}: give --device cuda, and start as many processes on a machine as it has GPUs")


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def agree(wish: bool) -> bool:
    """Process 0's answer, on all processes."""
    if world_size() == 1:
        return wish
    answer = torch.tensor(int(wish))
    dist.broadcast(answer, src=0)
    return bool(answer)


def require_same(what: str, value: str) -> None:
    """Raises UserError, on all processes, unless all have the same `value`: no state would tell that they differ."""
    values = of_all(value)
    if len(set(values)) > 1:
        told = ", ".join(f"{one} in process {place}" for place, one in enumerate(values))
        raise UserError(f"the processes do not have the same {what}: {told}; install the same one on every machine")


@contextmanager
def together() -> Iterator[None]:
    """Run the block on all processes or fail on all: the UserError of one becomes everyone's, so that none waits for
    one that has given up. The block itself must not communicate."""
    fault: UserError | None = None
    try:
        yield
    except UserError as error:
        fault = error
    for message in of_all(str(fault) if fault else None):
        if message is not None:
            raise UserError(message) from fault


@contextmanager
def lost_process_told() -> Iterator[None]:
    """A process that ends early breaks the connections of the others: say that, in place of a traceback each."""
    try:
        yield
    except RuntimeError as error:
        if world_size() > 1 and (isinstance(error, dist.DistError) or "by peer" in str(error)):
            raise UserError(
                "another process of this run has ended; its own message, above or below, says why"
            ) from error
        raise


def decided(value: Value) -> Value:
    """Process 0's plain value, on all processes."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


def of_all(value: Value) -> list[Value]:
    """The plain value of each process, in rank order, on all processes."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def own_part(count: int) -> range:
    """Which of `count` independent pieces of work this process does: consecutive ones, and one at least, so that more
    processes than pieces do some of them twice."""
    return parts_of_all(count)[rank()]


def parts_of_all(count: int) -> list[range]:
    """The own_part of each process, in rank order; the first ones have one more where it does not divide evenly."""
    least, more = divmod(count, world_size())
    starts = [place * least + min(place, more) for place in range(world_size() + 1)]
    return [range(first, end) or range(count)[-1:] for first, end in pairwise(starts)]


def tensors_of_all(own: deque[Sequence[Tensor]], device: torch.device) -> Iterator[list[Tensor]]:
    """The first tensors that each process has, in rank order, then the second of each, and so on, with their bits and
    their layout in memory, on `device` of all. `own` empties meanwhile, so that nobody has to hold them all. What one
    process sends at once lies in one piece of memory: who keeps one of these tensors keeps all of them."""
    if world_size() == 1:
        while own:
            yield [*own.popleft()]
        return
    of_processes = of_all([[_Layout.of(x) for x in tensors] for tensors in own])
    for layouts in zip_longest(*of_processes):
        mine = own.popleft() if own else []
        for source, layout in enumerate(layouts):
            if layout is not None:
                yield _broadcast(mine, layout, source, device)


class _Layout(NamedTuple):
    """How a tensor lies in memory, without gaps."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, x: Tensor) -> _Layout:
        dense = x if _is_dense(x) else torch.empty(x.shape, device="meta")
        return cls(tuple(x.shape), dense.stride(), x.dtype)

    def size(self) -> int:
        """In bytes, up to where the next tensor begins."""
        return -(-prod(self.shape) * self.dtype.itemsize // ALIGNED) * ALIGNED


def _broadcast(own: Sequence[Tensor], layouts: Sequence[_Layout], source: int, device: torch.device) -> list[Tensor]:
    """The source's own tensors on all, in one message: each message waits until every process has got there."""
    sizes = [layout.size() for layout in layouts]
    message = torch.empty(sum(sizes), dtype=torch.uint8, device=device)
    found = [
        part.view(layout.dtype).as_strided(layout.shape, layout.stride)
        for part, layout in zip(message.split(sizes), layouts, strict=True)
    ]
    if source == rank():
        for place, x in zip(found, own, strict=True):
            place.copy_(x)
    dist.broadcast(message, src=source)
    return found


def _is_dense(x: Tensor) -> bool:
    """Whether its numbers fill a piece of memory, in any order of the axes."""
    extent = 1
    for stride, size in sorted((stride, size) for size, stride in zip(x.shape, x.stride(), strict=True) if size > 1):
        if stride != extent:
            return False
        extent *= size
    return True


def gather(values: Tensor, gradient: bool = False) -> Tensor:
    """(B, ...), equally many rows on each process -> (processes * B, ...) in rank order on all.

    gradient=True: the gradient of every process's loss reaches the rows, wherever they came from, as one process with
    the whole batch would have it (up to the mean over processes, which the engine takes). Without it, rows that need a
    gradient are refused: a contrastive loss that forgets it is wrong by a fifth on two processes and looks fine.
    """
    if not gradient and values.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "gather would lose the gradient of these rows: gather(x, gradient=True), or x.detach() for rows that no "
            "loss trains, such as keys"
        )
    if world_size() == 1:
        return values
    return _Gathered.apply(values) if gradient else _gathered(values)


def _gathered(values: Tensor) -> Tensor:
    parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _gathered(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return own_share(sum_over_processes(gradients[0].contiguous().clone()))


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return mean_over_processes(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return mean_over_processes(gradients[0])


def mean_with_gradient(values: Tensor) -> Tensor:
    """The mean over processes of what each has, the gradient of every process's loss included."""
    return values if world_size() == 1 else _Mean.apply(values)


def broadcast(values: Tensor) -> Tensor:
    """Process 0's values, which lie on the CPU, on all processes; the others' are overwritten."""
    if world_size() > 1:
        dist.broadcast(values, src=0)
    return values


def own_share(values: Tensor) -> Tensor:
    """The rows of a gathered tensor that this process put in."""
    size = len(values) // world_size()
    return values[rank() * size : (rank() + 1) * size]


def sum_over_processes(values: Tensor) -> Tensor:
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def mean_over_processes(values: Tensor) -> Tensor:
    return sum_over_processes(values / world_size()) if world_size() > 1 else values


def average(tensors: Sequence[Tensor]) -> None:
    """Replace each float32 tensor by its mean over processes, all in one exchange."""
    if world_size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors]).div_(world_size())
    dist.all_reduce(flat)
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def running_statistics(module: nn.Module) -> list[Tensor]:
    """Of every BatchNorm layer below: each process's follow its own share of the batch, until they are averaged."""
    if world_size() == 1:
        return []
    layers = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [t for layer in layers for t in (layer.running_mean, layer.running_var) if t is not None]


class GradientAverager:
    """Replaces the gradients of some parameters by their means over processes.

        loss.backward()        # meanwhile, gradients leave in buckets, the last layers' first
        averager.finish()
        averager.stop()        # no other backward pass through these parameters is shared

    The means are those of DistributedDataParallel, bit for bit on two processes. (It divides before it sums, which is
    the same where the division is exact; and on more processes the order of the sums is the library's.) A parameter
    must get a gradient on all processes or on none.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.buckets: list[_Bucket] = []
        self.sent = 0
        self.hooks: list[RemovableHandle] = []
        if world_size() == 1:
            return
        for part in _parts(list(reversed(parameters))):
            bucket = _Bucket(part)
            self.buckets.append(bucket)
            for parameter in part:
                hook = parameter.register_post_accumulate_grad_hook(partial(self._arrived, bucket))
                self.hooks.append(hook)

    def _arrived(self, bucket: _Bucket, parameter: nn.Parameter) -> None:
        bucket.missing -= 1
        # in one order on all processes, however the backward pass runs
        while self.sent < len(self.buckets) and self.buckets[self.sent].missing == 0:
            self.buckets[self.sent].send()
            self.sent += 1

    def finish(self) -> None:
        """Send what is left, and set the gradients once the means are there."""
        for bucket in self.buckets[self.sent :]:  # some of its parameters had no part in this loss
            bucket.send()
        for bucket in self.buckets:
            bucket.receive()
        self.sent = 0

    def stop(self) -> None:
        for hook in self.hooks:
            hook.remove()


class _Bucket:
    """Some parameters, and one flat tensor that carries their gradients."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters, self.missing = parameters, len(parameters)
        self.flat = parameters[0].new_empty(sum(p.numel() for p in parameters))
        self.parts = self.flat.split([p.numel() for p in parameters])
        self.wait: Callable[[], object] = lambda: None

    def send(self) -> None:
        gradients = [
            torch.zeros_like(part) if parameter.grad is None else _in_memory_order(parameter.grad)
            for parameter, part in zip(self.parameters, self.parts, strict=True)
        ]
        torch.cat(gradients, out=self.flat)
        self.wait = dist.all_reduce(self.flat, async_op=True).wait

    def receive(self) -> None:
        self.wait()
        for parameter, part in zip(self.parameters, self.parts, strict=True):
            if parameter.grad is not None:
                torch.mul(part, 1 / world_size(), out=_in_memory_order(parameter.grad))
        self.missing = len(self.parameters)


def _in_memory_order(dense: Tensor) -> Tensor:
    """A dense tensor's numbers as they lie in memory, without a copy. Autograd keeps gradients dense, their axes
    ordered as the parameter's."""
    return dense.as_strided((dense.numel(),), (1,))


def _parts(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Consecutive runs of at least BUCKET_BYTES, of one type each."""
    part: list[nn.Parameter] = []
    for parameter in parameters:
        if part and (
            part[0].dtype != parameter.dtype or sum(p.numel() * p.element_size() for p in part) >= BUCKET_BYTES
        ):
            yield part
            part = []
        part.append(parameter)
    if part:
        yield part
