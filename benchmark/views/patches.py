"""Cutting an image into a grid of cells, and a patch out of each cell, with its colours apart if need be."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmark.core.errors import UserError


def grid_patches(image: Tensor, grid: int, patch_size: int, margin: int = 0) -> Tensor:
    """uint8 (3, S, S) -> (grid * grid, 3, patch_size, patch_size), row by row, each at a uniformly random place in its
    own cell of S // grid pixels. The gaps between neighbours keep lines that continue from one patch into the next from
    giving their order away. Raises UserError for a patch that does not fit its cell.

    margin: pixels around the grid, on all sides of an image that is so much larger. Patches bring so many more along on
    each side, for `shifted_channels`.
    """
    side = image.shape[-1] - 2 * margin
    cell = side // grid
    if not 1 <= patch_size <= cell:
        raise UserError(
            f"patches of {patch_size} pixels do not fit {side} pixels cut {grid} x {grid}; "
            f"set the patch size to 1 ... {cell}, or cut the patches from a larger image"
        )
    offsets = torch.randint(0, cell - patch_size + 1, (grid * grid, 2)).tolist()
    patches, span = [], patch_size + 2 * margin
    for number, (dy, dx) in enumerate(offsets):
        y, x = (number // grid) * cell + dy, (number % grid) * cell + dx
        patches.append(image[:, y : y + span, x : x + span])
    return torch.stack(patches)


def shifted_channels(patches: Tensor, size: int) -> Tensor:
    """(K, C, S, S) -> (K, C, size, size): a window at a place of its own from each channel of each patch. A lens that
    bends colours differently shifts them by more the further out a patch lay; now that tells nothing."""
    places = torch.randint(patches.shape[-1] - size + 1, (*patches.shape[:2], 2)).tolist()
    return torch.stack(
        [
            torch.stack([channel[y : y + size, x : x + size] for channel, (y, x) in zip(patch, own, strict=True)])
            for patch, own in zip(patches, places, strict=True)
        ]
    )
