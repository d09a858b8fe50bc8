"""Descriptors that nothing learned: what colours, layout, edges and frequencies tell a protocol by themselves.

Each is a vector whose length in numbers is the same on images of any size, and whose norm is about 1, so that a
classifier that sees several together sees all of them. Stages:

colour       histogram of 8 x 8 x 8 bins of RGB (Swain & Ballard, "Color Indexing", IJCV 1991), as square roots of the
             bins' shares (Arandjelovic & Zisserman, "Three Things Everyone Should Know", CVPR 2012).
thumbnail    the image averaged to 8 x 8, standardised as torchvision's models expect.
orientations histogram of the gradients' orientations, over the whole image.
hog          histograms of oriented gradients (Dalal & Triggs, CVPR 2005), on 8 x 8 cells.
dct_mean     log |DCT| of the luma in blocks of 8 x 8 pixels, averaged over the blocks: a number for each frequency.
dct_max      the same, of each frequency the largest.
joined       all of these in a row.

thumbnail and hog see where in the image something is; the other four do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, pad

from benchmark.backbones.contract import Backbone, Stage
from benchmark.core.errors import UserError
from benchmark.recipe.contract import Architecture
from benchmark.recipe.inputs import IMAGENET_MEAN, IMAGENET_STD, RGB, InputSpec

UNIT_RGB = RGB((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # [0, 1] itself
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2
LEVELS = 8  # of each colour
GRID = 8  # cells along a side of the thumbnail and of HOG
HOG_ANGLES = 9  # Dalal & Triggs: bins over 180 degrees
WHOLE_ANGLES = 18
CLIPPED = 0.2  # Dalal & Triggs cite Lowe's
FAINT = 0.01  # the gradient, in a range of 1, up to which a cell counts as flat: about a JPEG's noise
BLOCK = 8  # pixels along a side, as in JPEG
GREY_LEVEL = 1.0  # of 255: a coefficient below it is mostly rounding
BRIGHTNESS = 1 / 16  # the frequency that a block's mean stands at, to be as large as the others after the line below
# Amplitudes of photographs fall as 1 / frequency (Field, JOSA A 1987). What is left after that has this middle and
# spread on 10,000 training photographs of Tiny ImageNet; the same numbers serve every data set and every split.
MEAN_MIDDLE, MEAN_SPREAD = 3.2, 0.63
MAX_MIDDLE, MAX_SPREAD = 5.9, 0.67


@dataclass(frozen=True)
class Descriptors(Architecture):
    """edition: of the numbers. It rises with any change of them: nothing else of a run would show that they changed."""

    edition: Literal[1] = 1

    def build(self, spec: InputSpec) -> HandMade:
        return HandMade(self, spec)


class HandMade(Backbone):
    """Has no weights. Its output is `joined`."""

    def __init__(self, architecture: Descriptors, spec: InputSpec) -> None:
        super().__init__(architecture, spec)
        if spec.colour != UNIT_RGB:
            raise UserError(f"Descriptors: input.colour must be {UNIT_RGB}, not {spec.colour}")
        if spec.size < BLOCK:
            raise UserError(f"Descriptors: a block has {BLOCK} x {BLOCK} pixels; input.size {spec.size} is too small")
        lengths = {name: of(torch.zeros(1, 3, BLOCK, BLOCK)).shape[1] for name, of in DESCRIPTORS.items()}
        self.stages = {name: Stage(length, None) for name, length in lengths.items()}
        self.stages["joined"] = Stage(sum(lengths.values()), None)

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        found = {}
        for name, of in DESCRIPTORS.items():
            found[name] = of(x)
            if name == upto:
                return found
        return {**found, "joined": torch.cat([*found.values()], dim=1)}


def descriptors_of(images: Tensor) -> dict[str, Tensor]:
    """uint8 RGB (B, 3, H, W), 8 pixels or more along each side -> stage -> float32 (B, length)."""
    side = min(images.shape[-2:])
    return Descriptors().build(InputSpec(side, UNIT_RGB)).forward_stages(UNIT_RGB.prepare(images))


def colour(x: Tensor) -> Tensor:
    """RGB in [0, 1] (B, 3, H, W), as below too -> (B, 512)"""
    levels = (x * 255).round().long().mul(LEVELS).div(256, rounding_mode="floor").flatten(2)  # (B, 3, pixels)
    red, green, blue = levels.unbind(dim=1)
    first = torch.arange(len(x), device=x.device)[:, None] * LEVELS**3
    bins = first + red * LEVELS**2 + green * LEVELS + blue
    counts = torch.bincount(bins.flatten(), minlength=len(x) * LEVELS**3).view(len(x), -1)
    return (counts.to(x.dtype) / bins.shape[1]).sqrt()


def thumbnail(x: Tensor) -> Tensor:
    """-> (B, 192)"""
    mean, std = (x.new_tensor(three).view(3, 1, 1) for three in (IMAGENET_MEAN, IMAGENET_STD))
    small = (adaptive_avg_pool2d(x, GRID) - mean) / std
    return small.flatten(1) / math.sqrt(3 * GRID**2)


def orientations(x: Tensor) -> Tensor:
    """-> (B, 18)"""
    return _unit(_votes(x, WHOLE_ANGLES, 1)).flatten(1)


def hog(x: Tensor) -> Tensor:
    """-> (B, 1764): the 9 angles of the 2 x 2 cells of each of 7 x 7 blocks, which overlap by half.

    Cells have an eighth of the image's side, which on 64 pixels are Dalal & Triggs's 8. As there, the colour with the
    largest gradient counts, votes are divided between neighbouring angles, and blocks are normalised, clipped and
    normalised again. Unlike there, votes are not divided between neighbouring cells, nor do they weigh less towards a
    block's border."""
    cells = _votes(x, HOG_ANGLES, GRID)  # (B, 9, 8, 8)
    last = GRID - 1
    blocks = torch.cat([cells[:, :, i : i + last, j : j + last] for i in (0, 1) for j in (0, 1)], dim=1)
    blocks = _unit(_unit(blocks).clamp_max(CLIPPED))  # (B, 36, 7, 7)
    return blocks.flatten(1) / last


def dct_mean(x: Tensor) -> Tensor:
    """-> (B, 64)"""
    return (_log_dct(x).mean(dim=1) - MEAN_MIDDLE) / (MEAN_SPREAD * BLOCK)


def dct_max(x: Tensor) -> Tensor:
    """-> (B, 64)"""
    return (_log_dct(x).amax(dim=1) - MAX_MIDDLE) / (MAX_SPREAD * BLOCK)


DESCRIPTORS: dict[str, Callable[[Tensor], Tensor]] = {
    of.__name__: of for of in (colour, thumbnail, orientations, hog, dct_mean, dct_max)
}


def _votes(x: Tensor, angles: int, cells: int) -> Tensor:
    """(B, angles, cells, cells): how strong gradients of each angle are in a cell, on average. Angles are bins' middles
    and go over 180 degrees: dark to bright is as bright to dark."""
    padded = pad(x, (1, 1, 1, 1), mode="replicate")
    across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2  # (B, 3, H, W)
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    square, strongest = (across.square() + down.square()).max(dim=1, keepdim=True)  # (B, 1, H, W)
    angle = torch.atan2(down.gather(1, strongest), across.gather(1, strongest))
    place = angle * angles / math.pi - 0.5
    votes = []
    for number in range(angles):
        apart = (place - number).remainder(angles)
        share = (1 - torch.minimum(apart, angles - apart)).clamp_min(0)
        votes.append(adaptive_avg_pool2d(square.sqrt() * share, cells))
    return torch.cat(votes, dim=1)


def _unit(votes: Tensor) -> Tensor:
    """(B, C, H, W) with vectors (C,) of norm 1; less where they are faint."""
    return votes / (votes.square().sum(dim=1, keepdim=True) + FAINT**2).sqrt()


def _log_dct(x: Tensor) -> Tensor:
    """(B, blocks, 64): of every whole block, with the fall over frequencies taken out."""
    luma = 255 * torch.einsum("bchw,c->bhw", x, x.new_tensor(LUMA))
    rows, columns = (side // BLOCK for side in luma.shape[1:])
    blocks = luma[:, : rows * BLOCK, : columns * BLOCK].unflatten(2, (columns, BLOCK)).unflatten(1, (rows, BLOCK))
    waves = _waves().to(x)
    found = torch.einsum("ui,bricj,vj->brcuv", waves, blocks, waves)
    return ((found.abs() + GREY_LEVEL).log() + _frequencies().log().to(x)).flatten(3).flatten(1, 2)


def _waves() -> Tensor:
    """The orthonormal DCT-II (8, 8): frequency by position."""
    counted = torch.arange(BLOCK, dtype=torch.float64)
    waves = math.sqrt(2 / BLOCK) * (math.pi / BLOCK * counted[:, None] * (counted + 0.5)).cos()
    waves[0] /= math.sqrt(2)
    return waves


def _frequencies() -> Tensor:
    """(8, 8): in half waves a block."""
    counted = torch.arange(BLOCK, dtype=torch.float64)
    return torch.hypot(counted[:, None], counted).clamp_min(BRIGHTNESS)
