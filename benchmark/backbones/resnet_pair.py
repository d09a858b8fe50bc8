"""Two ResNets side by side, each of which sees the whole image: an ensemble of two."""

from __future__ import annotations

from dataclasses import dataclass, fields

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.two_networks import Pair
from benchmark.recipe.inputs import InputSpec


@dataclass(frozen=True)
class ResNetPair(ResNet):
    """The fields are those of each: a pair has twice a ResNet's parameters and output channels."""

    @property
    def title(self) -> str:
        return f"a pair of {super().title}s"

    def build(self, spec: InputSpec) -> ResidualNetworkPair:
        return ResidualNetworkPair(self, spec)

    @property
    def each(self) -> ResNet:
        return ResNet(**{f.name: getattr(self, f.name) for f in fields(ResNet)})


class ResidualNetworkPair(Pair):
    architecture: ResNetPair

    def _networks(self) -> tuple[Backbone, Backbone]:
        return self.architecture.each.build(self.input), self.architecture.each.build(self.input)
