"""Cutting an image into a grid of cells, and a patch out of each cell."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmark.core.errors import UserError


def grid_patches(image: Tensor, grid: int, patch_size: int) -> Tensor:
    """uint8 (3, S, S) -> (grid * grid, 3, patch_size, patch_size), row by row, each at a uniformly random place in its
    own cell of S // grid pixels. The gaps between neighbours keep lines that continue from one patch into the next from
    giving their order away. Raises UserError for a patch that does not fit its cell."""
    cell = image.shape[-1] // grid
    if not 1 <= patch_size <= cell:
        raise UserError(
            f"patches of {patch_size} pixels do not fit {image.shape[-1]} pixels cut {grid} x {grid}; "
            f"set the patch size to 1 ... {cell}, or cut the patches from a larger image"
        )
    offsets = torch.randint(0, cell - patch_size + 1, (grid * grid, 2)).tolist()
    patches = []
    for number, (dy, dx) in enumerate(offsets):
        y, x = (number // grid) * cell + dy, (number % grid) * cell + dx
        patches.append(image[:, y : y + patch_size, x : x + patch_size])
    return torch.stack(patches)
