"""Colour and tone changes, drawn separately for each image of a stack.

torchvision.transforms.v2 draws one set of parameters for all images of a tensor, so nine patches that must not share
their colours would take nine calls. These take uint8 (K, 3, H, W) and return the same, with torch's random numbers.
With the same factors, each operation does what torchvision's does (tests/test_views.py compares them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R 601-2, as in torchvision


@dataclass(frozen=True)
class JitterEach:
    """torchvision.transforms.v2.ColorJitter with separate factors for each image; the order is drawn once per stack."""

    brightness: float
    contrast: float
    saturation: float
    hue: float

    def __call__(self, stack: Tensor) -> Tensor:
        K = len(stack)
        x = stack.float() / 255
        for operation in torch.randperm(4).tolist():
            if operation == 0:
                x = (x * _factor(K, self.brightness)).clamp_(0, 1)
            elif operation == 1:
                x = _blend(x, _grey(x).mean(dim=(2, 3), keepdim=True), _factor(K, self.contrast))
            elif operation == 2:
                x = _blend(x, _grey(x), _factor(K, self.saturation))
            else:
                x = shift_hue(x, torch.empty(K, 1, 1).uniform_(-self.hue, self.hue))
        return _uint8(x)


@dataclass(frozen=True)
class GreyEach:
    """With probability p, an image becomes its luma in three equal channels."""

    p: float

    def __call__(self, stack: Tensor) -> Tensor:
        return _each(stack, self.p, lambda some: (_grey(some.float()) + 0.5).to(torch.uint8).repeat(1, 3, 1, 1))


@dataclass(frozen=True)
class FlipEach:
    """Horizontal flip with probability p."""

    p: float = 0.5

    def __call__(self, stack: Tensor) -> Tensor:
        return _each(stack, self.p, lambda some: some.flip(-1))


def apply_all(stack: Tensor, *changes: Callable[[Tensor], Tensor]) -> Tensor:
    for change in changes:
        stack = change(stack)
    return stack


def shift_hue(x: Tensor, turn: Tensor) -> Tensor:
    """x (K, 3, H, W) in [0, 1]; turn (K, 1, 1) in turns of the colour wheel."""
    r, g, b = x.unbind(1)  # (K, H, W) each
    highest, lowest = x.amax(1), x.amin(1)
    chroma = highest - lowest
    safe = torch.where(chroma == 0, 1.0, chroma)
    sector = torch.where(
        highest == r, (g - b) / safe, torch.where(highest == g, 2 + (b - r) / safe, 4 + (r - g) / safe)
    )  # in sixths of a turn, from red
    # one formula for the three channels: a channel is the highest value less its share of the chroma
    offset = torch.tensor([5.0, 3.0, 1.0]).view(3, 1, 1)
    k = (sector + 6 * turn)[:, None] + offset  # (K, 3, H, W)
    k = k - 6 * (k / 6).floor_()  # cheaper than torch.remainder
    return highest[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp_(0, 1)


def _each(stack: Tensor, p: float, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`change` of each image with probability p. A view is often a stack of one, and then mostly nothing is computed;
    picking the chosen ones out of nine small patches would cost more than changing them all."""
    chosen = torch.rand(len(stack), 1, 1, 1) < p
    if not chosen.any():
        return stack
    return change(stack) if chosen.all() else torch.where(chosen, change(stack), stack)


def _factor(K: int, strength: float) -> Tensor:
    return torch.empty(K, 1, 1, 1).uniform_(max(0.0, 1 - strength), 1 + strength)


def _grey(x: Tensor) -> Tensor:
    r, g, b = x.unbind(1)
    return (GREY_WEIGHTS[0] * r + GREY_WEIGHTS[1] * g + GREY_WEIGHTS[2] * b)[:, None]


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * x + (1 - factor) * other).clamp_(0, 1)


def _uint8(x: Tensor) -> Tensor:
    return (x * 255 + 0.5).to(torch.uint8)
