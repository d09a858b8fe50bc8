"""One to n processes under torchrun: who am I, and what do we know together. Everything is a no-op for one process."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def start(device: str) -> torch.device:
    """Join the other processes if torchrun started several, and return this process's device."""
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    if device == "cuda":
        local = int(os.environ.get("LOCAL_RANK", 0))
        torch.cuda.set_device(local)
        return torch.device("cuda", local)
    return torch.device(device)


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()


def gather(values: Tensor) -> Tensor:
    """(B, ...) on each process -> (processes * B, ...) in rank order on all. Carries no gradient."""
    if world_size() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


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


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over processes: one flat all-reduce, divided before it is summed, as
    DistributedDataParallel does, so that the bits agree."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    _reduce_flat(gradients)


def average_running_statistics(module: nn.Module) -> None:
    """BatchNorm sees each process's own share; its running statistics become the processes' mean after every step."""
    if world_size() == 1:
        return
    layers = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    _reduce_flat([t for m in layers for t in (m.running_mean, m.running_var) if t is not None])


def _reduce_flat(tensors: list[Tensor]) -> None:
    if not tensors:
        return
    flat = torch.cat([t.reshape(-1) for t in tensors]).div_(world_size())
    dist.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def agree(wish: bool) -> bool:
    """Process 0's answer, on all processes."""
    if world_size() == 1:
        return wish
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    answer = torch.tensor([int(wish)], device=device)
    dist.broadcast(answer, src=0)
    return bool(answer.item())
