"""Two ResNets side by side, each of which sees the whole image: an ensemble of two."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.two_networks import Pair, plain
from benchmark.recipe.inputs import InputSpec


@dataclass(frozen=True)
class ResNetPair(ResNet):
    """The fields are those of each: a pair has twice a ResNet's parameters and output channels."""

    @property
    def title(self) -> str:
        return f"a pair of {super().title}s"

    def build(self, spec: InputSpec) -> ResidualNetworkPair:
        return ResidualNetworkPair(self, spec)


class ResidualNetworkPair(Pair):
    architecture: ResNetPair

    def _networks(self) -> tuple[Backbone, Backbone]:
        each = plain(ResNet, self.architecture)
        return each.build(self.input), each.build(self.input)
