"""Random numbers as a function of position, not of history: the same on every device, with any number of processes, and
after resuming."""

from __future__ import annotations

import torch
from torch import Tensor

MASK = (1 << 64) - 1
STEPS = 1 << 23  # and a half of one more are all the digits of a float32


def mix(*parts: int) -> int:
    """One 63-bit key of several integers (the finaliser of splitmix64, Steele et al., OOPSLA 2014, after each part)."""
    state = 0
    for part in parts:
        state = (state + (part & MASK) + 0x9E3779B97F4A7C15) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return state >> 1


def seed_torch(seed: int) -> None:
    """torch.manual_seed on the CPU and on CUDA, for what is seeded at every step. The original also takes notes on its
    caller for each kind of accelerator that has not begun: half a millisecond, as much as a small step."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def permutation(count: int, seed: int) -> Tensor:
    """(count,) int64. Python's own integers would take five times the memory."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def uniform_integers(seed: int, keys: Tensor, count: int, high: int) -> Tensor:
    """(B,) int64 keys -> (B, count) int64, uniform in [0, high) up to a bias of high / 2^63; row b depends on
    seed and keys[b] alone."""
    column = torch.arange(count, device=keys.device)
    state = (keys[:, None] * _signed(0x9E3779B97F4A7C15)) + (column + 1) * _signed(0xD1B54A32D192ED03) + mix(seed)
    state = (state ^ _shift(state, 30)) * _signed(0xBF58476D1CE4E5B9)  # int64 arithmetic wraps, as the hash needs
    state = (state ^ _shift(state, 27)) * _signed(0x94D049BB133111EB)
    state = state ^ _shift(state, 31)
    return _shift(state, 1) % high


def uniform(seed: int, keys: Tensor, count: int) -> Tensor:
    """(B,) int64 keys -> (B, count) between 0 and 1, neither of which comes, in steps of 2^-23; row b as above."""
    return (uniform_integers(seed, keys, count, STEPS) + 0.5) / STEPS


def normal(seed: int, keys: Tensor, count: int) -> Tensor:
    """(B,) int64 keys -> (B, count) of N(0, 1); row b as above."""
    return torch.special.ndtri(uniform(seed, keys, count))


def _shift(values: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's own keeps the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _signed(constant: int) -> int:
    return constant - (1 << 64) if constant >= 1 << 63 else constant
