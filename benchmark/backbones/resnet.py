"""ResNet-50 (He et al., CVPR 2016, arXiv:1512.03385), with the 3x3 convolution carrying the stride as in torchvision.

Parameter names are torchvision's, so weights pass to and from other libraries unrenamed. Stages: conv1 (after
BatchNorm and ReLU, before the max-pool) and res2 ... res5 (torchvision's layer1 ... layer4).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from benchmark.backbones.contract import Backbone, InputSpec, Stage
from benchmark.recipe.contract import Architecture

NAMES = ("resnet50",)
DEPTHS = {"resnet50": (3, 4, 6, 3)}


class ResNet(Backbone):
    """The architecture's width multiplies every channel count: 2 is the c2x of the papers, 1/4 a desk's."""

    def __init__(self, architecture: Architecture, spec: InputSpec) -> None:
        super().__init__()
        self.input = spec
        base = max(round(64 * architecture.width), 4)
        norm_layer = nn.BatchNorm2d if architecture.norm == "batch" else _group_norm
        self.conv1 = nn.Conv2d(3, base, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm_layer(base)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = {"conv1": Stage(base, 2)}
        channels = base
        for number, depth in enumerate(DEPTHS[architecture.name]):
            planes, stride = base * 2**number, 1 if number == 0 else 2
            setattr(self, f"layer{number + 1}", _layer(channels, planes, depth, stride, norm_layer))
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

    def _layers(self) -> tuple[nn.Module, ...]:
        return tuple(getattr(self, f"layer{number}") for number in (1, 2, 3, 4))


def _layer(
    channels: int, planes: int, depth: int, stride: int, norm_layer: Callable[[int], nn.Module]
) -> nn.Sequential:
    out = planes * Bottleneck.expansion
    shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), norm_layer(out))
    first = Bottleneck(channels, planes, stride, shortcut, norm_layer=norm_layer)
    rest = [Bottleneck(out, planes, norm_layer=norm_layer) for _ in range(depth - 1)]
    return nn.Sequential(first, *rest)


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 4), channels)


def build(architecture: Architecture, spec: InputSpec) -> ResNet:
    return ResNet(architecture, spec)
