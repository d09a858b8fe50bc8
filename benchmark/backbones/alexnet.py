"""AlexNets: five convolutions and two fully connected layers (Krizhevsky et al., NIPS 2012).

Nearly every paper up to 2018 trains one, and no two train the same. Each is a value here, under the name of who trains
it; what they share is the kernels and three max-pools. Many papers transfer another AlexNet than the one they train,
with the same weights: benchmark.backbones.alexnet_surgery.

Stages: conv1 ... conv5, after the ReLU and before the pool, where every protocol taps them; fc6 and fc7 are vectors,
unless the network is fully convolutional. A stage's layers end with its ReLU (and a dropout that comes after it):
`layers["fc7"][:-1]` is fc7 without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from benchmark.backbones.contract import Backbone, Stage
from benchmark.backbones.norms import BatchNorm1d, BatchNorm2d, Over, group_norm
from benchmark.core.errors import UserError
from benchmark.core.plain import at_least, later
from benchmark.recipe.contract import Architecture
from benchmark.recipe.inputs import InputSpec

KERNELS = {"conv1": 11, "conv2": 5, "conv3": 3, "conv4": 3, "conv5": 3}
POOLS_BEFORE = {"conv1": 0, "conv2": 1, "conv3": 2, "conv4": 2, "conv5": 2}  # each halves the map
FULLY_CONNECTED = ("fc6", "fc7")
POOLED = ("conv2", "conv3", "fc6")  # stages that begin with a max-pool
GROUPED = ("conv2", "conv4", "conv5")
UNITS = 4096
NORMED = {
    "all": (*KERNELS, *FULLY_CONNECTED),
    "convolutions": tuple(KERNELS),
    "from conv3": ("conv3", "conv4", "conv5", *FULLY_CONNECTED),
    "none": (),
}


@dataclass(frozen=True)
class AlexNet(Architecture):
    """channels: of conv1 ... conv5, at width 1.
    padding:    of conv1.
    groups:     of conv2, conv4 and conv5.
    normed:     the layers that BatchNorm follows. Where its shift follows fc6 and fc7, they have no bias.
    response_norm: the first two pools are followed by local response normalisation.
    dropout:    half the numbers before fc6 and before fc7 are dropped, or half of those after each.
    ceil:       pools keep a last window that is not full, as Caffe's do.
    start:      the initial weights: PyTorch's; He et al.'s, with N(0, 0.01) in fc6 and fc7; Caffe's AlexNet's; or
                Caffe's "xavier", uniform with a variance of 1 / inputs.
    width:      multiplies every count of channels and units.
    norm:       what stands where BatchNorm would: "non-affine" is without scale and shift, so that no unit can be
                silenced; "group" makes an output that does not depend on how a batch is divided over processes.
    over:       which images BatchNorm takes its statistics from (benchmark.backbones.norms).
    stride:     of conv1.
    units:      of fc6 and fc7, at width 1; fewer than two numbers: the network ends earlier.
    fc6_side:   cells on each side of the map that fc6 takes from an image, or tile, of the papers' size.
    pool_padding: of the first two pools.
    fully_convolutional: pool5 has a stride of 1, fc6 a kernel of fc6_side x fc6_side cells that lie 2 apart, and fc7
                one of 1 x 1. Both are maps, which say at every cell of conv5 what the vectors say of a whole image.
    """

    channels: tuple[int, int, int, int, int]
    padding: int = 2
    groups: int = 1
    normed: Literal["all", "convolutions", "from conv3", "none"] = "none"
    response_norm: bool = False
    dropout: Literal["before", "after", "none"] = "none"
    ceil: bool = False
    start: Literal["torch", "he", "caffe", "xavier"] = "torch"
    width: float = 1.0
    norm: Literal["batch", "non-affine", "group"] = "batch"
    over: Over = "process"
    stride: int = later(4)
    units: tuple[int, ...] = later((UNITS, UNITS))
    fc6_side: int = later(6)
    pool_padding: int = later(0)
    fully_convolutional: bool = later(False)

    def __post_init__(self) -> None:
        at_least(self, groups=1, padding=0, stride=1, fc6_side=1)
        if not 0 < self.width < math.inf:
            raise UserError(f"AlexNet: width must be more than 0, not {self.width!r}")
        if self.pool_padding not in (0, 1):
            raise UserError(f"AlexNet: pool_padding must be 0 or 1, not {self.pool_padding!r}")
        if len(self.units) > len(FULLY_CONNECTED):
            raise UserError(f"AlexNet: units are those of fc6 and fc7, not {self.units!r}")

    def build(self, spec: InputSpec) -> Backbone:
        return AlexNetwork(self, spec, spec.channels)

    def scaled(self, count: int) -> int:
        """A count of channels or units at this width, divisible by the groups."""
        return max(round(count * self.width / self.groups), 1) * self.groups

    def pooled(self, side: int, padding: int = 0) -> int:
        """Cells of a map's side after a max-pool of stride 2."""
        return side if side < 3 else (side + 2 * padding - 3 + self.ceil) // 2 + 1


# Gidaris et al., ICLR 2018, as in gidariss/FeatureLearningRotNet: one tower, as in Krizhevsky's "One weird trick".
ROTNET = AlexNet((64, 192, 384, 256, 256), normed="all")
# Caron et al., ECCV 2018, as in facebookresearch/deepcluster. Its input is Sobel's two channels.
DEEPCLUSTER = AlexNet((96, 256, 384, 384, 256), normed="convolutions", dropout="before", start="he")
# BVLC's reference for Caffe, trained with ImageNet's labels: what "a standard AlexNet" means in papers that use Caffe.
CAFFENET = AlexNet(
    (96, 256, 384, 384, 256), padding=0, groups=2, response_norm=True, dropout="after", ceil=True, start="caffe"
)
# Doersch et al., ICCV 2015, as in cdoersch/deepcontext: what the two patches share, of 96 px each.
CONTEXT_PREDICTION = AlexNet(
    (96, 256, 384, 384, 256),
    padding=5,
    normed="from conv3",
    norm="non-affine",
    response_norm=True,
    ceil=True,
    start="xavier",
    units=(UNITS,),
    fc6_side=3,
)
# Noroozi & Favaro, ECCV 2016, as in MehdiNoroozi/JigsawPuzzleSolver: what the nine tiles share, of 64 px each. The
# paper counts the parameters of another, trained with labels on tiles of 75 px: 512 units, which see 4 x 4 cells.
CONTEXT_FREE = replace(CAFFENET, stride=2, units=(1024,), fc6_side=3)
# Zhang et al., ECCV 2016, as in richzhang/colorization. Its input is the lightness alone. It starts as Caffe's AlexNet
# does; its authors begin with Krähenbühl et al.'s k-means instead.
COLORIZATION = AlexNet(
    (96, 256, 384, 384, 256),
    padding=5,
    groups=2,
    normed="all",
    norm="non-affine",
    ceil=True,
    start="caffe",
    pool_padding=1,
    fully_convolutional=True,
)
# Ren & Lee, CVPR 2018, as in jason718/game-feature-learning. It sees one channel of the image, three times.
SYNTHETIC_IMAGERY = AlexNet((96, 256, 384, 384, 256), normed="all", fully_convolutional=True)


class AlexNetwork(Backbone):
    """input_channels: that it sees; all of the input's, but for a network that is one half of another."""

    architecture: AlexNet

    def __init__(self, architecture: AlexNet, spec: InputSpec, input_channels: int) -> None:
        super().__init__(architecture, spec)
        side = (spec.size + 2 * architecture.padding - KERNELS["conv1"]) // architecture.stride + 1
        if side < 1:
            raise UserError(f"AlexNet: conv1 looks at 11 x 11 pixels; input.size {spec.size} is too small for it")
        self.layers, self.stages = nn.ModuleDict(), {}
        inputs = full = input_channels  # at this width, and at width 1
        for (name, kernel), count in zip(KERNELS.items(), architecture.channels, strict=True):
            side = architecture.pooled(side, architecture.pool_padding) if name in POOLED else side
            outputs = architecture.scaled(count)
            self.layers[name] = _convolution(architecture, name, inputs, outputs, full * kernel**2)
            self.stages[name] = Stage(outputs, architecture.stride * 2 ** POOLS_BEFORE[name])
            inputs, full = outputs, count
        stride = self.stages["conv5"].stride if architecture.fully_convolutional else None
        side, full_side = architecture.pooled(side), architecture.fc6_side
        for name, units in zip(FULLY_CONNECTED, architecture.units, strict=False):
            outputs = architecture.scaled(units)
            below = (inputs, full_side if architecture.fully_convolutional else side)
            self.layers[name] = _fully_connected(architecture, name, below, outputs, full * full_side**2)
            self.stages[name] = Stage(outputs, stride)
            inputs, full, side, full_side = outputs, units, 1, 1

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        """fc6 and fc7 take images of the input's own size alone, unless they are convolutions."""
        maps = {}
        for name, layer in self.layers.items():
            x = layer(x)
            maps[name] = x
            if name == upto:
                break
        return maps

    def parts(self, stage: str) -> tuple[nn.Module, ...]:
        """One: a stage's layers, its pool first."""
        return (self.layers[stage],)


class _MaxPool(nn.MaxPool2d):
    """Of 3 x 3. A map of fewer cells stays as it is: on 32 px it would vanish."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if min(x.shape[-2:]) >= 3 else x


def _convolution(architecture: AlexNet, name: str, inputs: int, outputs: int, full_inputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    if name in POOLED:
        layers.append(_MaxPool(3, 2, architecture.pool_padding, ceil_mode=architecture.ceil))
        if architecture.response_norm:
            layers.append(nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75))
    groups = architecture.groups if name in GROUPED else 1
    is_first = name == "conv1"
    stride, padding = (architecture.stride, architecture.padding) if is_first else (1, KERNELS[name] // 2)
    convolution = nn.Conv2d(inputs, outputs, KERNELS[name], stride, padding, groups=groups)
    _start(convolution, architecture, name, full_inputs // groups)
    layers.append(convolution)
    if name in NORMED[architecture.normed]:
        layers.append(_norm(architecture, BatchNorm2d, outputs))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


def _fully_connected(
    architecture: AlexNet, name: str, below: tuple[int, int], outputs: int, full_inputs: int
) -> nn.Sequential:
    """below: channels and side of what it takes all numbers of; a vector's side is 1."""
    channels, side = below
    is_normed = name in NORMED[architecture.normed]
    bias = not is_normed or architecture.norm == "non-affine"
    pool: list[nn.Module]
    weighted: nn.Conv2d | nn.Linear
    batch_norm: type[BatchNorm1d | BatchNorm2d]
    if architecture.fully_convolutional:
        pool, batch_norm = [_MaxPool(3, 1, 1)], BatchNorm2d
        weighted = nn.Conv2d(channels, outputs, side, padding=side - 1, dilation=2, bias=bias)
    else:
        pool, batch_norm = [_MaxPool(3, 2, ceil_mode=architecture.ceil), nn.Flatten()], BatchNorm1d
        weighted = nn.Linear(channels * side**2, outputs, bias=bias)
    _start(weighted, architecture, name, full_inputs)
    before, after = ([nn.Dropout()] if architecture.dropout == place else [] for place in ("before", "after"))
    norm = [_norm(architecture, batch_norm, outputs)] if is_normed else []
    return nn.Sequential(*(pool if name in POOLED else []), *before, weighted, *norm, nn.ReLU(inplace=True), *after)


def _norm(architecture: AlexNet, batch_norm: type[BatchNorm1d | BatchNorm2d], channels: int) -> nn.Module:
    if architecture.norm == "group":
        return group_norm(channels)
    return batch_norm(channels, over=architecture.over, affine=architecture.norm == "batch")


def _start(layer: nn.Conv2d | nn.Linear, architecture: AlexNet, name: str, full_inputs: int) -> None:
    """full_inputs: of one output at width 1. A layer with fewer starts with larger weights in proportion, so that what
    comes out of a narrow network is as large as what comes out of the papers'."""
    start, inputs = architecture.start, layer.weight[0].numel()
    if start == "torch":
        return
    if start == "xavier":
        bound = math.sqrt(3 / inputs)
        nn.init.uniform_(layer.weight, -bound, bound)
    elif start == "he" and name in KERNELS:
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    else:
        std = 0.01 if start == "he" or name in KERNELS else 0.005
        nn.init.normal_(layer.weight, std=std * math.sqrt(full_inputs / inputs))
    if layer.bias is not None:
        has_one = start == "caffe" and name in (*GROUPED, *FULLY_CONNECTED)
        nn.init.constant_(layer.bias, float(has_one))
