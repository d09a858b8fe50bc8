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
from functools import cached_property
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
        self.stages = {of.__name__: Stage(length, None) for of, length in DESCRIPTORS.items()}
        self.stages["joined"] = Stage(sum(DESCRIPTORS.values()), None)

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        seen, found = Seen(x), {}
        for of in DESCRIPTORS:
            found[of.__name__] = of(seen)
            if of.__name__ == upto:
                return found
        return {**found, "joined": torch.cat([*found.values()], dim=1)}


def descriptors_of(images: Tensor) -> dict[str, Tensor]:
    """uint8 RGB (B, 3, H, W), 8 pixels or more along each side -> stage -> float32 (B, length)."""
    side = min(images.shape[-2:])
    return Descriptors().build(InputSpec(side, UNIT_RGB)).forward_stages(UNIT_RGB.prepare(images))


class Seen:
    """RGB in [0, 1] (B, 3, H, W), and what more than one descriptor needs of it."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    @cached_property
    def gradients(self) -> tuple[Tensor, Tensor]:
        """(strength, angle from -pi to pi), (B, 1, H, W) each: of the colour in which it is strongest."""
        padded = pad(self.x, (1, 1, 1, 1), mode="replicate")
        across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2  # (B, 3, H, W)
        down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
        square, strongest = (across.square() + down.square()).max(dim=1, keepdim=True)
        return square.sqrt(), torch.atan2(down.gather(1, strongest), across.gather(1, strongest))

    @cached_property
    def log_dct(self) -> Tensor:
        """(B, blocks, 64): of every whole block, with the fall over frequencies taken out."""
        luma = 255 * torch.einsum("bchw,c->bhw", self.x, self.x.new_tensor(LUMA))
        rows, columns = (side // BLOCK for side in luma.shape[1:])
        blocks = luma[:, : rows * BLOCK, : columns * BLOCK].unflatten(2, (columns, BLOCK)).unflatten(1, (rows, BLOCK))
        waves = _waves().to(luma)
        found = torch.einsum("ui,bricj,vj->brcuv", waves, blocks, waves)
        return ((found.abs() + GREY_LEVEL).log() + _frequencies().log().to(luma)).flatten(3).flatten(1, 2)


def colour(seen: Seen) -> Tensor:
    """-> (B, 512)"""
    levels = ((seen.x * 255).round() / (256 / LEVELS)).long().flatten(2)  # (B, 3, pixels)
    red, green, blue = levels.unbind(dim=1)
    images = torch.arange(len(levels), device=levels.device)[:, None]
    bins = ((images * LEVELS + red) * LEVELS + green) * LEVELS + blue
    counts = torch.bincount(bins.flatten(), minlength=len(levels) * LEVELS**3).view(len(levels), -1)
    return (counts.to(seen.x.dtype) / bins.shape[1]).sqrt()


def thumbnail(seen: Seen) -> Tensor:
    """-> (B, 192)"""
    mean, std = (seen.x.new_tensor(three).view(3, 1, 1) for three in (IMAGENET_MEAN, IMAGENET_STD))
    small = (adaptive_avg_pool2d(seen.x, GRID) - mean) / std
    return small.flatten(1) / math.sqrt(3 * GRID**2)


def orientations(seen: Seen) -> Tensor:
    """-> (B, 18)"""
    return _unit(_votes(seen, WHOLE_ANGLES, 1)).flatten(1)


def hog(seen: Seen) -> Tensor:
    """-> (B, 1764): the 9 angles of the 2 x 2 cells of each of 7 x 7 blocks, which overlap by half.

    Cells have an eighth of the image's side, which on 64 pixels are Dalal & Triggs's 8. As there, the colour with the
    largest gradient counts, votes are divided between neighbouring angles, and blocks are normalised, clipped and
    normalised again. Unlike there, votes are not divided between neighbouring cells, nor do they weigh less towards a
    block's border."""
    cells = _votes(seen, HOG_ANGLES, GRID)  # (B, 9, 8, 8)
    last = GRID - 1
    blocks = torch.cat([cells[:, :, i : i + last, j : j + last] for i in (0, 1) for j in (0, 1)], dim=1)
    blocks = _unit(_unit(blocks).clamp_max(CLIPPED))  # (B, 36, 7, 7)
    return blocks.flatten(1) / last


def dct_mean(seen: Seen) -> Tensor:
    """-> (B, 64)"""
    return (seen.log_dct.mean(dim=1) - MEAN_MIDDLE) / (MEAN_SPREAD * BLOCK)


def dct_max(seen: Seen) -> Tensor:
    """-> (B, 64)"""
    return (seen.log_dct.amax(dim=1) - MAX_MIDDLE) / (MAX_SPREAD * BLOCK)


DESCRIPTORS: dict[Callable[[Seen], Tensor], int] = {  # in the order of the stages; how many numbers each has
    colour: LEVELS**3,
    thumbnail: 3 * GRID**2,
    orientations: WHOLE_ANGLES,
    hog: 4 * HOG_ANGLES * (GRID - 1) ** 2,
    dct_mean: BLOCK**2,
    dct_max: BLOCK**2,
}


def _votes(seen: Seen, angles: int, cells: int) -> Tensor:
    """(B, angles, cells, cells): how strong gradients of each angle are in a cell, on average. Angles are bins' middles
    and go over 180 degrees: dark to bright is as bright to dark. A pixel's vote is divided between its two nearest."""
    strength, angle = seen.gradients
    place = (angle * angles / math.pi - 0.5).remainder(angles)
    votes = []
    for number in range(angles):
        share = (1 - (place - number).abs()).clamp_min(0)
        if number == 0:  # which is also the one after the last
            share += (1 - (angles - place)).clamp_min(0)
        votes.append(adaptive_avg_pool2d(strength * share, cells))
    return torch.cat(votes, dim=1)


def _unit(votes: Tensor) -> Tensor:
    """(B, C, H, W) with vectors (C,) of norm 1; less where they are faint."""
    return votes / (votes.square().sum(dim=1, keepdim=True) + FAINT**2).sqrt()


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
