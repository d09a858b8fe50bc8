"""ResNets v2: BatchNorm and ReLU stand before each convolution (He et al., "Identity Mappings in Deep Residual
Networks", ECCV 2016, arXiv:1603.05027), with the stride in the 3x3 convolution, as google-research/s4l has them.

Nothing is normalised on the way that the blocks add to, so there is no norm after conv1, and one after the last block.
Stages: conv1 (before the max-pool), res2 ... res4 (the sums, as they come), res5 (after the last norm and ReLU).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from benchmark.backbones.contract import Backbone, Stage
from benchmark.backbones.resnet import DEPTHS, ResNet
from benchmark.recipe.inputs import InputSpec

EXPANSION = 4  # a block's output is so many times as wide as its 3x3 convolution


@dataclass(frozen=True)
class ResNetV2(ResNet):
    """Settings as ResNet's."""

    @property
    def title(self) -> str:
        return f"{super().title} v2"

    def build(self, spec: InputSpec) -> Backbone:
        return PreactivationNetwork(self, spec)


class PreactivationNetwork(Backbone):
    def __init__(self, architecture: ResNetV2, spec: InputSpec) -> None:
        super().__init__(architecture, spec)
        base, norm_layer = architecture.base, architecture.norm_layer
        self.conv1 = nn.Conv2d(spec.channels, base, 7, stride=2, padding=3, bias=False)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = {"conv1": Stage(base, 2)}
        self.layers = nn.ModuleList()
        channels = base
        for number, depth in enumerate(DEPTHS[architecture.depth]):
            planes = base * 2**number
            strides = [1 if number == 0 else 2, *[1] * (depth - 1)]
            inputs = [channels, *[planes * EXPANSION] * (depth - 1)]
            blocks = [PreactivationBlock(i, planes, s, norm_layer) for i, s in zip(inputs, strides, strict=True)]
            self.layers.append(nn.Sequential(*blocks))
            channels = planes * EXPANSION
            self.stages[f"res{number + 2}"] = Stage(channels, 4 * 2**number)
        self.norm = nn.Sequential(norm_layer(channels), nn.ReLU(inplace=True))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, PreactivationBlock) and architecture.zero_init_residual:
                nn.init.zeros_(module.conv3.weight)

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        maps = {}
        for name in self.stages:
            for part in self.parts(name):
                x = part(x)  # (B, 64, H/2, W/2), then (B, 256 ... 2048, H/4 ... H/32, W/4 ... W/32)
            maps[name] = x
            if name == upto:
                break
        return maps

    def parts(self, stage: str) -> tuple[nn.Module, ...]:
        return {
            "conv1": (self.conv1,),
            "res2": (self.maxpool, self.layers[0]),
            "res3": (self.layers[1],),
            "res4": (self.layers[2],),
            "res5": (self.layers[3], self.norm),
        }[stage]


class PreactivationBlock(nn.Module):
    def __init__(self, channels: int, planes: int, stride: int, norm_layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        out = planes * EXPANSION
        changes = stride > 1 or channels != out
        self.shortcut = nn.Conv2d(channels, out, 1, stride=stride, bias=False) if changes else None
        self.norm1 = norm_layer(channels)
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.norm2 = norm_layer(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.norm3 = norm_layer(planes)
        self.conv3 = nn.Conv2d(planes, out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x).relu_()
        kept = x if self.shortcut is None else self.shortcut(y)
        y = self.norm2(self.conv1(y)).relu_()
        y = self.norm3(self.conv2(y)).relu_()
        return kept + self.conv3(y)
