"""AlexNets: five convolutions and two fully connected layers (Krizhevsky et al., NIPS 2012).

Nearly every paper up to 2018 trains one, and no two train the same. Each is a value here, under the name of who trains
it; what they share is the kernels, the first stride, three max-pools and 4,096 units.

Stages: conv1 ... conv5, after the ReLU and before the pool, where every protocol taps them; fc6 and fc7 are vectors. A
stage's layers end with its ReLU (and a dropout that comes after it): `layers["fc7"][:-1]` is fc7 without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from benchmark.backbones.contract import Backbone, Stage
from benchmark.backbones.norms import BatchNorm1d, BatchNorm2d, Over, group_norm
from benchmark.core.errors import UserError
from benchmark.core.plain import at_least
from benchmark.recipe.contract import Architecture
from benchmark.recipe.inputs import InputSpec

KERNELS = {"conv1": 11, "conv2": 5, "conv3": 3, "conv4": 3, "conv5": 3}
STRIDES = {"conv1": 4, "conv2": 8, "conv3": 16, "conv4": 16, "conv5": 16}  # input pixels that a cell spans
POOLED = ("conv2", "conv3", "fc6")  # stages that begin with a max-pool
GROUPED = ("conv2", "conv4", "conv5")
UNITS = 4096
LAST_SIDE = 6  # of conv5's pooled map on an image of the papers' size


@dataclass(frozen=True)
class AlexNet(Architecture):
    """channels: of conv1 ... conv5, at width 1.
    padding:    of conv1.
    groups:     of conv2, conv4 and conv5.
    normed:     the layers that BatchNorm follows. Where it follows fc6 and fc7, they have no bias.
    response_norm: the first two pools are followed by local response normalisation.
    dropout:    half the numbers before fc6 and before fc7 are dropped, or half of those after each.
    ceil:       pools keep a last window that is not full, as Caffe's do.
    start:      the initial weights: PyTorch's; He et al.'s, with N(0, 0.01) in fc6 and fc7; or Caffe's.
    width:      multiplies every count of channels and units.
    norm:       what stands where BatchNorm would; "group" makes an output that does not depend on how a batch is
                divided over processes.
    over:       which images BatchNorm takes its statistics from (benchmark.backbones.norms).
    """

    channels: tuple[int, int, int, int, int]
    padding: int = 2
    groups: int = 1
    normed: Literal["all", "convolutions", "none"] = "none"
    response_norm: bool = False
    dropout: Literal["before", "after", "none"] = "none"
    ceil: bool = False
    start: Literal["torch", "he", "caffe"] = "torch"
    width: float = 1.0
    norm: Literal["batch", "group"] = "batch"
    over: Over = "process"

    def __post_init__(self) -> None:
        at_least(self, groups=1, padding=0)
        if not 0 < self.width < math.inf:
            raise UserError(f"AlexNet: width must be more than 0, not {self.width!r}")

    def build(self, spec: InputSpec) -> AlexNetwork:
        return AlexNetwork(self, spec)

    def scaled(self, count: int) -> int:
        """A count of channels or units at this width, divisible by the groups."""
        return max(round(count * self.width / self.groups), 1) * self.groups

    def pooled(self, side: int) -> int:
        """Cells of a map's side after the max-pool."""
        return side if side < 3 else (side - 3 + self.ceil) // 2 + 1


# Gidaris et al., ICLR 2018, as in gidariss/FeatureLearningRotNet: one tower, as in Krizhevsky's "One weird trick".
ROTNET = AlexNet((64, 192, 384, 256, 256), normed="all")
# Caron et al., ECCV 2018, as in facebookresearch/deepcluster. Its input is Sobel's two channels.
DEEPCLUSTER = AlexNet((96, 256, 384, 384, 256), normed="convolutions", dropout="before", start="he")
# BVLC's reference for Caffe, trained with ImageNet's labels: what "a standard AlexNet" means in papers that use Caffe.
CAFFENET = AlexNet(
    (96, 256, 384, 384, 256), padding=0, groups=2, response_norm=True, dropout="after", ceil=True, start="caffe"
)


class AlexNetwork(Backbone):
    def __init__(self, architecture: AlexNet, spec: InputSpec) -> None:
        super().__init__(architecture, spec)
        side = (spec.size + 2 * architecture.padding - KERNELS["conv1"]) // STRIDES["conv1"] + 1
        if side < 1:
            raise UserError(f"AlexNet: conv1 looks at 11 x 11 pixels; input.size {spec.size} is too small for it")
        self.layers, self.stages = nn.ModuleDict(), {}
        inputs, full = spec.channels, spec.channels  # at this width, and at width 1
        for (name, kernel), count in zip(KERNELS.items(), architecture.channels, strict=True):
            side = architecture.pooled(side) if name in POOLED else side
            outputs = architecture.scaled(count)
            self.layers[name] = _convolution(architecture, name, inputs, outputs, full * kernel**2)
            self.stages[name] = Stage(outputs, STRIDES[name])
            inputs, full = outputs, count
        inputs, full = inputs * architecture.pooled(side) ** 2, full * LAST_SIDE**2
        for name in ("fc6", "fc7"):
            outputs = architecture.scaled(UNITS)
            self.layers[name] = _fully_connected(architecture, name, inputs, outputs, full)
            self.stages[name] = Stage(outputs, None)
            inputs, full = outputs, UNITS

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        """fc6 and fc7 take images of the input's own size alone."""
        maps = {}
        for name, layer in self.layers.items():
            x = layer(x)
            maps[name] = x
            if name == upto:
                break
        return maps


class _MaxPool(nn.MaxPool2d):
    """3 x 3 at every second cell. A map of fewer cells stays as it is: on 32 px it would vanish."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if min(x.shape[-2:]) >= 3 else x


def _convolution(architecture: AlexNet, name: str, inputs: int, outputs: int, full_inputs: int) -> nn.Sequential:
    layers: list[nn.Module] = [_MaxPool(3, 2, ceil_mode=architecture.ceil)] if name in POOLED else []
    if layers and architecture.response_norm:
        layers.append(nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75))
    groups = architecture.groups if name in GROUPED else 1
    stride, padding = (STRIDES[name], architecture.padding) if name == "conv1" else (1, KERNELS[name] // 2)
    convolution = nn.Conv2d(inputs, outputs, KERNELS[name], stride, padding, groups=groups)
    _start(convolution, architecture, name, full_inputs // groups)
    layers.append(convolution)
    if architecture.normed != "none":
        layers.append(_norm(architecture, BatchNorm2d, outputs))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


def _fully_connected(architecture: AlexNet, name: str, inputs: int, outputs: int, full_inputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    if name in POOLED:
        layers += [_MaxPool(3, 2, ceil_mode=architecture.ceil), nn.Flatten()]
    if architecture.dropout == "before":
        layers.append(nn.Dropout())
    linear = nn.Linear(inputs, outputs, bias=architecture.normed != "all")
    _start(linear, architecture, name, full_inputs)
    layers.append(linear)
    if architecture.normed == "all":
        layers.append(_norm(architecture, BatchNorm1d, outputs))
    layers.append(nn.ReLU(inplace=True))
    if architecture.dropout == "after":
        layers.append(nn.Dropout())
    return nn.Sequential(*layers)


def _norm(architecture: AlexNet, batch_norm: type[BatchNorm1d | BatchNorm2d], channels: int) -> nn.Module:
    return batch_norm(channels, over=architecture.over) if architecture.norm == "batch" else group_norm(channels)


def _start(layer: nn.Conv2d | nn.Linear, architecture: AlexNet, name: str, full_inputs: int) -> None:
    """full_inputs: of one output at width 1. A layer with fewer starts with larger weights in proportion, so that what
    comes out of a narrow network is as large as what comes out of the papers'."""
    if architecture.start == "torch":
        return
    is_convolution = isinstance(layer, nn.Conv2d)
    if architecture.start == "he" and is_convolution:
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    else:
        std = 0.01 if architecture.start == "he" or is_convolution else 0.005
        nn.init.normal_(layer.weight, std=std * math.sqrt(full_inputs / layer.weight[0].numel()))
    if layer.bias is not None:
        has_one = architecture.start == "caffe" and name in (*GROUPED, "fc6", "fc7")
        nn.init.constant_(layer.bias, float(has_one))
