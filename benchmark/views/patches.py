"""Cutting an image into a grid of cells, and a patch out of each cell."""

from __future__ import annotations

import torch
from torch import Tensor


def grid_patches(image: Tensor, grid: int, patch_size: int) -> Tensor:
    """uint8 (3, S, S) -> (grid * grid, 3, patch_size, patch_size), row by row, each at a uniform place in its own cell
    of S // grid pixels. The gap between neighbours keeps continued lines from giving their order away."""
    cell = image.shape[-1] // grid
    offsets = torch.randint(0, cell - patch_size + 1, (grid * grid, 2)).tolist()
    patches = []
    for number, (dy, dx) in enumerate(offsets):
        y, x = (number // grid) * cell + dy, (number % grid) * cell + dx
        patches.append(image[:, y : y + patch_size, x : x + patch_size])
    return torch.stack(patches)
