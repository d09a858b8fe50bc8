"""Two ResNets that see different channels of the image (Tian, Krishnan & Isola, "Contrastive Multiview Coding", ECCV
2020, arXiv:1906.05849)."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.backbones.resnet import ResidualNetwork, ResNet
from benchmark.backbones.two_networks import TwoHalves
from benchmark.recipe.inputs import InputSpec


@dataclass(frozen=True)
class SplitResNet(ResNet):
    """The fields are those of each half: two of width 1 have twice a ResNet's parameters and output channels."""

    @property
    def title(self) -> str:
        return f"two {super().title}s"

    def build(self, spec: InputSpec) -> SplitResidualNetwork:
        return SplitResidualNetwork(self, spec)


class SplitResidualNetwork(TwoHalves):
    architecture: SplitResNet

    def _half(self, input_channels: int) -> ResidualNetwork:
        return ResidualNetwork(self.architecture.as_kind(ResNet), self.input, input_channels)
