"""Two ResNets side by side that both see the whole image."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.two_networks import EnsembleOfTwo
from benchmark.recipe.inputs import InputSpec


@dataclass(frozen=True)
class ResNetEnsemble(ResNet):
    """The fields are those of each of its two: it has twice a ResNet's parameters and output channels."""

    @property
    def title(self) -> str:
        return f"an ensemble of two {super().title}s"

    def build(self, spec: InputSpec) -> ResidualEnsemble:
        return ResidualEnsemble(self, spec)


class ResidualEnsemble(EnsembleOfTwo):
    architecture: ResNetEnsemble

    def _networks(self) -> tuple[Backbone, Backbone]:
        each = self.architecture.as_kind(ResNet)
        return each.build(self.input), each.build(self.input)
