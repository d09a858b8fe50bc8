"""ResNets v2: BatchNorm and ReLU stand before each convolution (He et al., "Identity Mappings in Deep Residual
Networks", ECCV 2016, arXiv:1603.05027), with the stride in the 3x3 convolution, as google-research/s4l has them.

Nothing is normalised on the way that the blocks add to, so there is no norm after conv1, and one after the last block.
Stages: conv1 (before the max-pool), then the sums, as they come; the last stage, after the last norm and ReLU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from benchmark.backbones.contract import Backbone, Stage
from benchmark.backbones.resnet import DEPTHS, ResNet
from benchmark.core.plain import later
from benchmark.recipe.inputs import InputSpec

# Of each stage the blocks, and the channels of their 3x3 convolution and of their output, as multiples of conv1's.
STAGES = {depth: tuple((blocks[n], 2**n, 4 * 2**n) for n in range(4)) for depth, blocks in DEPTHS.items()}
# Henaff et al., ICML 2020, arXiv:1905.09272: a ResNet-101 whose third stage has twice the blocks, 512 channels in each
# and 4096 between them. The paper's network ends there.
STAGES[161] = ((3, 1, 4), (4, 2, 8), (46, 8, 64), (3, 8, 32))


@dataclass(frozen=True)
class ResNetV2(ResNet):
    """Settings as ResNet's, and these:

    norm:   "layer" takes an image's statistics over all its channels and places (Ba et al., arXiv:1607.06450); "none"
            gives the convolutions biases instead.
    stages: residual stages; with 3, the network ends with res4.
    """

    depth: Literal[14, 50, 101, 152, 161] = 50  # type: ignore[assignment]
    norm: Literal["batch", "group", "layer", "none"] = "batch"  # type: ignore[assignment]
    stages: Literal[3, 4] = later(4)

    @property
    def title(self) -> str:
        return f"{super().title} v2"

    def norm_layer(self, channels: int) -> nn.Module:
        if self.norm == "layer":
            return nn.GroupNorm(1, channels)
        return nn.Identity() if self.norm == "none" else super().norm_layer(channels)

    def build(self, spec: InputSpec) -> Backbone:
        return PreactivationNetwork(self, spec)


class PreactivationNetwork(Backbone):
    def __init__(self, architecture: ResNetV2, spec: InputSpec) -> None:
        super().__init__(architecture, spec)
        base, norm_layer, bias = architecture.base, architecture.norm_layer, architecture.norm == "none"
        self.conv1 = nn.Conv2d(spec.channels, base, 7, stride=2, padding=3, bias=bias)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = {"conv1": Stage(base, 2)}
        self.layers = nn.ModuleList()
        channels = base
        for number, (depth, middle, output) in enumerate(STAGES[architecture.depth][: architecture.stages]):
            planes, out = base * middle, base * output
            strides = [1 if number == 0 else 2, *[1] * (depth - 1)]
            inputs = [channels, *[out] * (depth - 1)]
            blocks = [
                PreactivationBlock(i, planes, s, norm_layer, out, bias) for i, s in zip(inputs, strides, strict=True)
            ]
            self.layers.append(nn.Sequential(*blocks))
            channels = out
            self.stages[f"res{number + 2}"] = Stage(channels, 4 * 2**number)
        self.norm = nn.Sequential(norm_layer(channels), nn.ReLU(inplace=True))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
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
        if stage == "conv1":
            return (self.conv1,)
        number = [*self.stages].index(stage) - 1
        first, last = number == 0, number == len(self.layers) - 1
        return (*([self.maxpool] if first else []), self.layers[number], *([self.norm] if last else []))


class PreactivationBlock(nn.Module):
    """planes: channels of the 3x3 convolution. out: of the output; four times as many, unless it says otherwise."""

    def __init__(
        self,
        channels: int,
        planes: int,
        stride: int,
        norm_layer: Callable[[int], nn.Module],
        out: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        out = 4 * planes if out is None else out
        changes = stride > 1 or channels != out
        self.shortcut = nn.Conv2d(channels, out, 1, stride=stride, bias=bias) if changes else None
        self.norm1 = norm_layer(channels)
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=bias)
        self.norm2 = norm_layer(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=bias)
        self.norm3 = norm_layer(planes)
        self.conv3 = nn.Conv2d(planes, out, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x).relu()  # not in place: where there is no norm, it is x itself, which the block still adds to
        kept = x if self.shortcut is None else self.shortcut(y)
        y = self.norm2(self.conv1(y)).relu_()
        y = self.norm3(self.conv2(y)).relu_()
        return kept + self.conv3(y)
