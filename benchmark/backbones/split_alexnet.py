"""An AlexNet of two halves that see different channels of the image and know nothing of each other.

Zhang, Isola & Efros, "Split-Brain Autoencoders: Unsupervised Learning by Cross-Channel Prediction", CVPR 2017,
arXiv:1611.09842, section 3: every layer is split in half, along its channels. One half sees the lightness and the other
the two colours. benchmark.backbones.alexnet_surgery joins them into the AlexNet that the paper transfers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmark.backbones.alexnet import COLORIZATION, AlexNet, AlexNetwork
from benchmark.backbones.two_networks import TwoHalves
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

    @property
    def title(self) -> str:
        return "AlexNet in two halves"

    def build(self, spec: InputSpec) -> SplitAlexNetwork:
        return SplitAlexNetwork(self, spec)

    @property
    def whole(self) -> AlexNet:
        """An ordinary AlexNet of the same fields."""
        return self.as_kind(AlexNet)

    @property
    def half(self) -> AlexNet:
        channels = tuple(count // HALVES for count in self.channels)
        units = tuple(count // HALVES for count in self.units)
        return replace(self.whole, channels=channels, units=units, groups=1)  # type: ignore[arg-type]


# As in richzhang/splitbrainauto, whose released network is the one that transfers. The halves train as colorization's
# network does; their input is all of Lab.
SPLIT_BRAIN = COLORIZATION.as_kind(SplitAlexNet)


class SplitAlexNetwork(TwoHalves):
    architecture: SplitAlexNet

    def _half(self, input_channels: int) -> AlexNetwork:
        return AlexNetwork(self.architecture.half, self.input, input_channels)
