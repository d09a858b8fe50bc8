"""ResNets of bottlenecks (He et al., CVPR 2016, arXiv:1512.03385); the 3x3 convolution has the stride, as in
torchvision.

Parameter names are torchvision's, so weights pass to and from other libraries unrenamed. Stages: conv1 (after
BatchNorm and ReLU, before the max-pool) and res2 ... res5 (torchvision's layer1 ... layer4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from benchmark.backbones.contract import Backbone, Stage
from benchmark.backbones.norms import BatchNorm2d, Over, group_norm
from benchmark.core.errors import UserError
from benchmark.recipe.contract import Architecture
from benchmark.recipe.inputs import InputSpec

# residual blocks of each stage; 14 is smoke scale's
DEPTHS = {14: (1, 1, 1, 1), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@dataclass(frozen=True)
class ResNet(Architecture):
    """depth: number of layers.
    width: multiplies every channel count; 2 is the c2x of the papers, 1/4 a desk's.
    norm:  "group" makes a network whose output does not depend on how a batch is divided over processes.
    over:  which images BatchNorm takes its statistics from (benchmark.backbones.norms).
    zero_init_residual: each residual branch starts at zero (Goyal et al., arXiv:1706.02677), so that a deep network is
                        a shallow one at first.
    """

    depth: Literal[14, 50, 101, 152] = 50
    width: float = 1.0
    norm: Literal["batch", "group"] = "batch"
    over: Over = "process"
    zero_init_residual: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.width < math.inf:
            raise UserError(f"{type(self).__name__}: width must be more than 0, not {self.width!r}")

    @property
    def title(self) -> str:
        return f"ResNet-{self.depth}"

    @property
    def base(self) -> int:
        """Channels of the first convolution."""
        return max(round(64 * self.width), 4)

    def norm_layer(self, channels: int) -> nn.Module:
        return BatchNorm2d(channels, over=self.over) if self.norm == "batch" else group_norm(channels)

    def build(self, spec: InputSpec) -> Backbone:
        return ResidualNetwork(self, spec, spec.channels)


class ResidualNetwork(Backbone):
    """input_channels: that it sees; all of the input's, but for a network that is one half of another."""

    def __init__(self, architecture: ResNet, spec: InputSpec, input_channels: int) -> None:
        super().__init__(architecture, spec)
        base, norm_layer = architecture.base, architecture.norm_layer
        self.conv1 = self._first(architecture, input_channels)
        self.bn1 = norm_layer(base)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = {"conv1": Stage(base, 2)}
        channels = base
        for number, depth in enumerate(DEPTHS[architecture.depth]):
            planes, stride = base * 2**number, 1 if number == 0 else 2
            setattr(self, f"layer{number + 1}", self._layer(architecture, channels, planes, depth, stride))
            channels = planes * Bottleneck.expansion
            self.stages[f"res{number + 2}"] = Stage(channels, 4 * 2**number)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck) and architecture.zero_init_residual:
                nn.init.zeros_(module.bn3.weight)

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        x = self.relu(self.bn1(self.conv1(x)))  # (B, 64, H/2, W/2)
        maps = {"conv1": x}
        if upto == "conv1":
            return maps
        x = self.maxpool(x)  # (B, 64, H/4, W/4)
        for name, layer in zip(("res2", "res3", "res4", "res5"), self._layers(), strict=True):
            x = layer(x)  # (B, 256 ... 2048, H/4 ... H/32, W/4 ... W/32)
            maps[name] = x
            if name == upto:
                break
        return maps

    def parts(self, stage: str) -> tuple[nn.Module, ...]:
        layers = dict(zip(("res2", "res3", "res4", "res5"), self._layers(), strict=True))
        if stage == "conv1":
            return self.conv1, self.bn1, self.relu
        return (self.maxpool, layers[stage]) if stage == "res2" else (layers[stage],)

    def _first(self, architecture: ResNet, input_channels: int) -> nn.Module:
        return nn.Conv2d(input_channels, architecture.base, 7, stride=2, padding=3, bias=False)

    def _layer(self, architecture: ResNet, channels: int, planes: int, depth: int, stride: int) -> nn.Sequential:
        out = planes * Bottleneck.expansion
        shortcut = self._shortcut(architecture, channels, out, stride)
        first = self._block(architecture, channels, planes, stride, shortcut)
        return nn.Sequential(first, *(self._block(architecture, out, planes) for _ in range(depth - 1)))

    def _shortcut(self, architecture: ResNet, channels: int, out: int, stride: int) -> nn.Sequential:
        projection = nn.Conv2d(channels, out, 1, stride=stride, bias=False)
        return nn.Sequential(projection, architecture.norm_layer(out))

    def _block(
        self, architecture: ResNet, channels: int, planes: int, stride: int = 1, shortcut: nn.Module | None = None
    ) -> Bottleneck:
        return Bottleneck(channels, planes, stride, shortcut, norm_layer=architecture.norm_layer)

    def _layers(self) -> tuple[nn.Module, ...]:
        return tuple(getattr(self, f"layer{number}") for number in (1, 2, 3, 4))
