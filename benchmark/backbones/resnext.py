"""ResNeXts (Xie, Girshick, Dollár, Tu & He, "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017,
arXiv:1611.05431): ResNets whose 3x3 convolutions are in groups, and wider. Parameter names are torchvision's."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torchvision.models.resnet import Bottleneck

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResidualNetwork, ResNet
from benchmark.core.bounds import Count, check_bounds
from benchmark.recipe.inputs import InputSpec

PLANES = 64  # channels of a ResNet's first 3x3 convolution at a width of 1, by which torchvision counts


@dataclass(frozen=True)
class ResNeXt(ResNet):
    """Settings as ResNet's, and these:

    groups:      of each 3x3 convolution, which the paper calls cardinality.
    group_width: channels of each group in the first stage, at a width of 1. No group has less than one.
    """

    groups: Count = 32
    group_width: Count = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self)

    @property
    def title(self) -> str:
        return f"ResNeXt-{self.depth} ({self.groups}x{self.group_width}d)"

    def build(self, spec: InputSpec) -> Backbone:
        return AggregatedNetwork(self, spec, spec.channels)


class AggregatedNetwork(ResidualNetwork):
    def _block(
        self, architecture: ResNet, channels: int, planes: int, stride: int = 1, shortcut: nn.Module | None = None
    ) -> Bottleneck:
        assert isinstance(architecture, ResNeXt)
        groups, group_width = architecture.groups, max(architecture.group_width, -(-PLANES // planes))
        return Bottleneck(channels, planes, stride, shortcut, groups, group_width, norm_layer=architecture.norm_layer)
