"""Two networks side by side that see different channels of the image and know nothing of each other."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmark.backbones.contract import Backbone, Stage
from benchmark.core.errors import UserError
from benchmark.recipe.contract import Architecture
from benchmark.recipe.inputs import InputSpec


class TwoHalves(Backbone):
    """first sees the image's first channel, second all others; each is a network of the same stages and widths."""

    def __init__(self, architecture: Architecture, spec: InputSpec) -> None:
        super().__init__(architecture, spec)
        if spec.channels < 2:
            name = type(architecture).__name__
            raise UserError(f"{name}: each half has channels of its own to see; {spec.colour} has only one")
        self.first, self.second = (self._half(count) for count in (1, spec.channels - 1))
        self.stages = {name: Stage(2 * one.channels, one.stride) for name, one in self.first.stages.items()}

    def _half(self, input_channels: int) -> Backbone:
        raise NotImplementedError(f"{type(self).__name__}._half")

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        """Each stage holds the first half's channels, then the second's."""
        first, second = self.first.forward_stages(x[:, :1], upto), self.second.forward_stages(x[:, 1:], upto)
        return {name: torch.cat([first[name], second[name]], dim=1) for name in first}
