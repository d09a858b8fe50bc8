"""A network that sees an image patch by patch: each patch of a grid gives a vector, which knows of no other patch.

What contrastive predictive coding leaves behind for transfers. Stages: patches, a map with a cell for every patch; its
output is the average over the grid, as of any map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmark.backbones.contract import Backbone, Stage
from benchmark.core.errors import UserError
from benchmark.core.plain import at_least
from benchmark.recipe.contract import Architecture
from benchmark.recipe.inputs import InputSpec


@dataclass(frozen=True)
class PatchGrid(Architecture):
    """encoder: of one patch. patch: its side in pixels. stride: pixels from one patch to the next."""

    encoder: Architecture
    patch: int
    stride: int

    def __post_init__(self) -> None:
        at_least(self, patch=1, stride=1)

    @property
    def title(self) -> str:
        return f"{self.encoder.title} on patches"

    def build(self, spec: InputSpec) -> Backbone:
        return PatchwiseNetwork(self, spec)


class PatchwiseNetwork(Backbone):
    def __init__(self, architecture: PatchGrid, spec: InputSpec) -> None:
        super().__init__(architecture, spec)
        self.patch, self.stride = architecture.patch, architecture.stride
        patches_along(spec.size, self.patch, self.stride)
        self.encoder: Backbone = architecture.encoder.build(replace(spec, size=self.patch))
        self.stages = {"patches": Stage(self.encoder.out_channels, self.stride)}

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        patches = cut(x, self.patch, self.stride)  # (B, rows, columns, C, patch, patch)
        flat = patches.flatten(0, 2).contiguous(memory_format=torch.channels_last)
        return {"patches": self.encoder(flat).unflatten(0, patches.shape[:3]).permute(0, 3, 1, 2)}


def patches_along(size: int, patch: int, stride: int) -> int:
    """Patches along a side of an image. Raises UserError where not even one fits."""
    if patch > size:
        raise UserError(f"patches of {patch} pixels do not fit images of {size}: set a smaller patch or a larger input")
    return (size - patch) // stride + 1


def cut(images: Tensor, patch: int, stride: int) -> Tensor:
    """(..., C, H, W) -> (..., rows, columns, C, patch, patch), a view; pixels that fill no patch are left out."""
    grid = images.unfold(-2, patch, stride).unfold(-2, patch, stride)  # (..., C, rows, columns, patch, patch)
    return grid.movedim(-5, -3)


def seen_in_patches(encoder: Backbone, spec: InputSpec, patch: int, stride: int) -> Backbone:
    """A trained encoder of patches as a network of whole images, which look as `spec` says."""
    whole = PatchGrid(encoder.architecture, patch, stride).build(spec)
    assert isinstance(whole, PatchwiseNetwork)
    whole.encoder.load_state_dict(encoder.state_dict())
    return whole
