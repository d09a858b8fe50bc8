"""Two networks of the same stages and widths that know nothing of each other, and whose features stand side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmark.backbones.contract import Backbone, Stage
from benchmark.core.errors import UserError
from benchmark.recipe.contract import Architecture
from benchmark.recipe.inputs import InputSpec


class SideBySide(Backbone):
    def __init__(self, architecture: Architecture, spec: InputSpec) -> None:
        super().__init__(architecture, spec)
        self.first, self.second = self._networks()
        self.stages = {name: Stage(2 * one.channels, one.stride) for name, one in self.first.stages.items()}

    def _networks(self) -> tuple[Backbone, Backbone]:
        raise NotImplementedError(f"{type(self).__name__}._networks")

    def seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What each sees of the images x (B, input.channels, H, W)."""
        raise NotImplementedError(f"{type(self).__name__}.seen")

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        """Each stage holds the first network's channels, then the second's."""
        to_first, to_second = self.seen(x)
        first, second = self.first.forward_stages(to_first, upto), self.second.forward_stages(to_second, upto)
        return {name: torch.cat([first[name], second[name]], dim=1) for name in first}


class TwoHalves(SideBySide):
    """The first sees the image's first channel, the second all others."""

    def _networks(self) -> tuple[Backbone, Backbone]:
        if self.input.channels < 2:
            name = type(self.architecture).__name__
            raise UserError(f"{name}: each half has channels of its own to see; {self.input.colour} has only one")
        return self._half(1), self._half(self.input.channels - 1)

    def _half(self, input_channels: int) -> Backbone:
        raise NotImplementedError(f"{type(self).__name__}._half")

    def seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :1], x[:, 1:]


class EnsembleOfTwo(SideBySide):
    """Both see the whole image."""

    def seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x
