"""What a backbone promises: named stages in order, an output, and what its input must look like."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from benchmark.core.errors import UserError
from benchmark.recipe.contract import Architecture
from benchmark.recipe.inputs import InputSpec


@dataclass(frozen=True)
class Stage:
    """channels of the stage's map, and the input pixels that one of its cells spans; stride None: a vector, no map."""

    channels: int
    stride: int | None


class Backbone(nn.Module):
    """architecture: the value that built it. input: what images must look like. stages: name -> Stage, from input to
    output. output: the stage that `forward` returns; the last one, unless a network says otherwise."""

    stages: dict[str, Stage]

    def __init__(self, architecture: Architecture, spec: InputSpec) -> None:
        super().__init__()
        self.architecture, self.input = architecture, spec

    @property
    def output(self) -> str:
        return next(reversed(self.stages))

    @property
    def out_channels(self) -> int:
        """Length of what `forward` returns for each image."""
        return self.stages[self.output].channels

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        """x (B, input.channels, H, W), as `input` says -> name -> (B, channels, about H / stride, W / stride), a vector
        (B, channels). Stops after `upto`."""
        raise NotImplementedError

    def parts(self, stage: str) -> tuple[nn.Module, ...]:
        """The modules that, one after the other, make the stage's map from the map before it. Protocols need them that
        take a network apart, to freeze some stages, dilate the last one or run it on regions."""
        raise UserError(f"{type(self).__name__} has no separate stages; this protocol needs a ResNet")

    def forward(self, x: Tensor) -> Tensor:
        """x (B, input.channels, H, W) -> (B, out_channels): the output stage, a map averaged over space."""
        y = self.forward_stages(x, self.output)[self.output]
        return y.mean(dim=(2, 3)) if self.stages[self.output].stride else y
