"""The precision of forward passes and losses, on the machine at hand."""

from __future__ import annotations

import torch

from benchmark.core.optimisation import Precision

# PyTorch's names for CPUs where bf16 may be slower than fp32: ten times in software, up to twice with AVX-512 alone
SLOW = ("DEFAULT", "AVX2", "AVX512")


def autocast(device_type: str, precision: Precision) -> torch.autocast:
    """A context for forward passes and losses: bf16 by PyTorch's autocast, or fp32 as everything is anyway. Where bf16
    is slow it is fp32 too: no less exact, and what a desk run needs to end in minutes."""
    return torch.autocast(device_type, torch.bfloat16, enabled=precision == "bf16" and has_bf16(device_type))


def has_bf16(device_type: str) -> bool:
    """Whether a device computes bf16 at least about as fast as fp32. Of a CPU its instructions tell."""
    return device_type != "cpu" or has_amx() or torch.backends.cpu.get_cpu_capability() not in SLOW


def has_amx() -> bool:
    """Whether the CPU multiplies tiles of bf16 numbers: Intel's do from Sapphire Rapids on, but some virtual machines
    hide it."""
    return bool(torch.cpu._is_amx_tile_supported())


def device_name(device: torch.device) -> str:
    """As records name it: the GPU's own name, cpu, or "cpu without bf16", where a recipe's bf16 was fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type if has_bf16(device.type) else f"{device.type} without bf16"
