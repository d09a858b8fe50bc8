"""An AlexNet of two halves that see different channels of the image and know nothing of each other.

Zhang, Isola & Efros, "Split-Brain Autoencoders: Unsupervised Learning by Cross-Channel Prediction", CVPR 2017,
arXiv:1611.09842, section 3: every layer is split in half, along its channels. One half sees the lightness and the other
the two colours. benchmark.backbones.alexnet_surgery joins them into the AlexNet that the paper transfers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from benchmark.backbones.alexnet import COLORIZATION, AlexNet, AlexNetwork
from benchmark.backbones.contract import Backbone, Stage
from benchmark.core.errors import UserError
from benchmark.recipe.inputs import InputSpec

HALVES = 2


@dataclass(frozen=True)
class SplitAlexNet(AlexNet):
    """The fields are those of the AlexNet that the halves make together. It has two groups where AlexNets have groups,
    so that what is split here is split there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups != HALVES:
            raise UserError(f"SplitAlexNet: groups must be 2, one for each half, not {self.groups!r}")
        if odd := [count for count in (*self.channels, *self.units) if count % HALVES]:
            raise UserError(f"SplitAlexNet: channels and units must be even, as each half has half of them; not {odd}")
        if self.response_norm:
            raise UserError("SplitAlexNet: response_norm must be false: it would look across the halves")

    def build(self, spec: InputSpec) -> SplitAlexNetwork:
        return SplitAlexNetwork(self, spec)

    @property
    def whole(self) -> AlexNet:
        """An ordinary AlexNet of the same fields."""
        return AlexNet(**{f.name: getattr(self, f.name) for f in fields(AlexNet)})

    @property
    def half(self) -> AlexNet:
        channels = tuple(count // HALVES for count in self.channels)
        units = tuple(count // HALVES for count in self.units)
        return replace(self.whole, channels=channels, units=units, groups=1)  # type: ignore[arg-type]


# As in richzhang/splitbrainauto, whose released network is the one that transfers. The halves train as colorization's
# network does; their input is all of Lab.
SPLIT_BRAIN = SplitAlexNet(**{f.name: getattr(COLORIZATION, f.name) for f in fields(AlexNet)})


class SplitAlexNetwork(Backbone):
    """first sees the image's first channel, second all others."""

    architecture: SplitAlexNet

    def __init__(self, architecture: SplitAlexNet, spec: InputSpec) -> None:
        super().__init__(architecture, spec)
        if spec.channels < HALVES:
            raise UserError(f"SplitAlexNet: each half has channels of its own to see; {spec.colour} has only one")
        self.first = AlexNetwork(architecture.half, spec, 1)
        self.second = AlexNetwork(architecture.half, spec, spec.channels - 1)
        self.stages = {name: Stage(HALVES * one.channels, one.stride) for name, one in self.first.stages.items()}

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        """Each stage holds the first half's channels, then the second's."""
        first, second = self.first.forward_stages(x[:, :1], upto), self.second.forward_stages(x[:, 1:], upto)
        return {name: torch.cat([first[name], second[name]], dim=1) for name in first}
