"""ResNets with selective kernels (Li, Wang, Hu & Yang, "Selective Kernel Networks", CVPR 2019, arXiv:1903.06586), as
google-research/simclr has them (resnet.py, `sk_ratio`).

Each block has two 3x3 convolutions, and the image decides for each channel how much of either it takes. With them come
two changes of He et al., CVPR 2019, arXiv:1812.01187: three 3x3 convolutions stand for the first of 7x7, and shortcuts
average before they project, so that none drops pixels.

Departures:
- Where a map has an odd side, a shortcut averages what there is at its border. The released code averages in zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResidualNetwork, ResNet
from benchmark.core.bounds import Positive, check_bounds
from benchmark.recipe.inputs import InputSpec

LEAST_MIDDLE = 32  # numbers that an image is described by when kernels are selected


@dataclass(frozen=True)
class SelectiveResNet(ResNet):
    """Settings as ResNet's, and these:

    ratio: of the numbers that decide the selection to a block's channels.
    """

    ratio: Positive = 0.0625

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self)

    @property
    def title(self) -> str:
        return f"{super().title}, selective kernels"

    def build(self, spec: InputSpec) -> Backbone:
        return SelectiveNetwork(self, spec, spec.channels)


class SelectiveNetwork(ResidualNetwork):
    def _first(self, architecture: ResNet, input_channels: int) -> nn.Module:
        half, norm_layer = architecture.base // 2, architecture.norm_layer
        return nn.Sequential(
            nn.Conv2d(input_channels, half, 3, stride=2, padding=1, bias=False),
            norm_layer(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, padding=1, bias=False),
            norm_layer(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, architecture.base, 3, padding=1, bias=False),
        )

    def _shortcut(self, architecture: ResNet, channels: int, out: int, stride: int) -> nn.Sequential:
        projection = nn.Conv2d(channels, out, 1, bias=False)
        return nn.Sequential(*_average(stride), projection, architecture.norm_layer(out))

    def _block(
        self, architecture: ResNet, channels: int, planes: int, stride: int = 1, shortcut: nn.Module | None = None
    ) -> Bottleneck:
        assert isinstance(architecture, SelectiveResNet)
        block = super()._block(architecture, channels, planes, stride, shortcut)
        block.conv2 = SelectiveKernels(planes, stride, architecture.ratio, architecture.norm_layer)
        block.bn2 = nn.Identity()  # it has a norm inside, and the ReLU that follows changes nothing any more
        return block


def _average(stride: int) -> tuple[nn.Module, ...]:
    """Over 2 x 2; what lies beyond the border does not count."""
    if stride == 1:
        return nn.ReplicationPad2d((0, 1, 0, 1)), nn.AvgPool2d(2, 1)
    return (nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False),)


class SelectiveKernels(nn.Module):
    """(B, channels, H, W) -> (B, channels, H / stride, W / stride), none less than 0."""

    def __init__(self, channels: int, stride: int, ratio: float, norm_layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        middle = max(int(channels * ratio), LEAST_MIDDLE)
        self.both = nn.Conv2d(channels, 2 * channels, 3, stride=stride, padding=1, bias=False)
        self.norm = norm_layer(2 * channels)
        self.describe = nn.Conv2d(channels, middle, 1, bias=False)
        self.describe_norm = norm_layer(middle)
        self.select = nn.Conv2d(middle, 2 * channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        both = self.norm(self.both(x)).relu().unflatten(1, (2, -1))  # (B, 2, C, H, W)
        seen = both.sum(dim=1).mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)
        seen = self.describe_norm(self.describe(seen)).relu()
        share = self.select(seen).unflatten(1, (2, -1)).softmax(dim=1)  # (B, 2, C, 1, 1)
        return (both * share).sum(dim=1)
