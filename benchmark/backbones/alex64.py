"""The AlexNet for images of 64 pixels on which Deep InfoMax compares methods, on Tiny ImageNet and on STL-10.

Hjelm et al., ICLR 2019, arXiv:1808.06670; the layers as in the authors' rdevon/DIM, cortex_DIM/configs/convnets.py,
where the network is called alex64x64.

Stages: conv3, the third convolution, whose cells are DIM's local features; conv, the last one after its pool; fc, the
second fully connected layer; y, the code. What the tables call conv, fc and Y are the last three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from benchmark.backbones.contract import Backbone, Stage
from benchmark.backbones.norms import BatchNorm1d, BatchNorm2d, Over
from benchmark.core.errors import UserError
from benchmark.core.plain import at_least
from benchmark.recipe.contract import Architecture
from benchmark.recipe.inputs import InputSpec

CHANNELS = (96, 192, 384, 384, 192)
POOLED = (True, True, False, False, True)  # by a max-pool of 3 x 3 at every second cell, without padding
UNITS = 4096
LOCAL = 3  # convolutions up to the local features


@dataclass(frozen=True)
class Alex64(Architecture):
    """code:  numbers of y, at every width.
    width: multiplies every other count of channels and units.
    over:  which images BatchNorm takes its statistics from (benchmark.backbones.norms).
    """

    code: int = 64
    width: float = 1.0
    over: Over = "process"

    def __post_init__(self) -> None:
        at_least(self, code=1)
        if not 0 < self.width < math.inf:
            raise UserError(f"Alex64: width must be more than 0, not {self.width!r}")

    @property
    def title(self) -> str:
        return "AlexNet for 64 px"

    def build(self, spec: InputSpec) -> Backbone:
        return Alex64Network(self, spec)

    def scaled(self, count: int) -> int:
        """A count of channels or units at this width."""
        return max(round(count * self.width), 1)


class Alex64Network(Backbone):
    architecture: Alex64

    def __init__(self, architecture: Alex64, spec: InputSpec) -> None:
        super().__init__(architecture, spec)
        side = side_after(spec.size, len(CHANNELS))
        if side < 1:
            raise UserError(
                f"Alex64: three pools leave nothing of {spec.size} pixels; set a larger --recipe.input.size"
            )
        channels, units, over = map(architecture.scaled, CHANNELS), architecture.scaled(UNITS), architecture.over
        convolutions = pooled_convolutions(spec.channels, tuple(channels), POOLED, over)
        layers: dict[str, nn.Module] = {
            "conv3": convolutions[:LOCAL],
            "conv": convolutions[LOCAL:],
            "fc": nn.Sequential(
                nn.Flatten(),
                *connected(architecture.scaled(CHANNELS[-1]) * side**2, units, over),
                *connected(units, units, over),
            ),
            "y": nn.Linear(units, architecture.code),
        }
        self.layers = nn.ModuleDict(layers)
        self.stages = {
            "conv3": Stage(architecture.scaled(CHANNELS[LOCAL - 1]), 2 ** sum(POOLED[:LOCAL])),
            "conv": Stage(architecture.scaled(CHANNELS[-1]), 2 ** sum(POOLED)),
            "fc": Stage(units, None),
            "y": Stage(architecture.code, None),
        }

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        """fc and y take images of the input's own size alone."""
        found = {}
        for name, layer in self.layers.items():
            x = layer(x)
            found[name] = x
            if name == upto:
                break
        return found

    def parts(self, stage: str) -> tuple[nn.Module, ...]:
        return (self.layers[stage],)


def side_after(side: int, convolutions: int) -> int:
    """Cells of a map's side after the first so many convolutions of an image of that side."""
    for pooled in POOLED[:convolutions]:
        side = (side - 3) // 2 + 1 if pooled else side
    return side


def pooled_convolutions(inputs: int, channels: tuple[int, ...], pooled: tuple[bool, ...], over: Over) -> nn.Sequential:
    """One part for each convolution: 3 x 3 with BatchNorm and ReLU, and its pool."""
    found = []
    for outputs, has_pool in zip(channels, pooled, strict=True):
        pool = [nn.MaxPool2d(3, 2)] if has_pool else []
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        found.append(nn.Sequential(convolution, BatchNorm2d(outputs, over=over), nn.ReLU(inplace=True), *pool))
        inputs = outputs
    return nn.Sequential(*found)


def connected(inputs: int, outputs: int, over: Over) -> tuple[nn.Module, ...]:
    """A fully connected layer with BatchNorm and ReLU."""
    return nn.Linear(inputs, outputs, bias=False), BatchNorm1d(outputs, over=over), nn.ReLU(inplace=True)
