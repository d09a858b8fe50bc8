"""A network that follows another slowly (He et al., CVPR 2020, arXiv:1911.05722, equation 2)."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def momentum_copy(network: Network) -> Network:
    """The same network with the same weights, which no optimizer trains. Its BatchNorm layers keep running statistics
    of their own, of what passes through it."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def follow(theta_k: nn.Module, theta_q: nn.Module, m: float) -> None:
    """theta_k <- m theta_k + (1 - m) theta_q, for all parameters. To be called after the last `yield` of `losses`, when
    theta_q has made its step."""
    for k, q in zip(theta_k.parameters(), theta_q.parameters(), strict=True):
        k.lerp_(q, 1 - m)
