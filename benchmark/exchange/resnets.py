"""From a ResNet's weights by torchvision's names to the architecture that they are of; what is none is told apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from benchmark.backbones.resnet import DEPTHS, ResNet
from benchmark.backbones.resnext import PLANES, ResNeXt
from benchmark.core.errors import UserError

CLASSIFIER = "fc."
INPUTS = 3


def resnet_of(state: Mapping[str, Tensor], path: Path) -> tuple[ResNet, dict[str, Tensor]]:
    """(the ResNet or ResNeXt that these weights are of, the weights without a classifier's). Raises UserError,
    naming the file, for a network that none here is: nothing is silently taken for another."""
    weights = {key: tensor for key, tensor in state.items() if not key.startswith(CLASSIFIER)}
    why = next(_differences(weights), "")
    if why:
        raise UserError(f"{path}: {why}; this network cannot be imported")
    depth = next(depth for depth, blocks in DEPTHS.items() if blocks == _blocks(weights))
    channels, (inner, within) = len(weights["conv1.weight"]), weights["layer1.0.conv2.weight"].shape[:2]
    plain = ResNet(depth=depth, width=channels / PLANES)  # type: ignore[arg-type]
    if inner == within:
        return plain, weights
    group_width = -(-within * PLANES // channels)
    return ResNeXt(plain.depth, plain.width, groups=inner // within, group_width=group_width), weights


def _differences(weights: Mapping[str, Tensor]) -> Iterator[str]:
    """Each way in which these are not the weights of a ResNet here. Later ones rely on the earlier ones."""
    if any(key.startswith("conv1.0.") for key in weights):
        yield "its stem is three convolutions (timm's -d, -s and -t networks), and ResNets here have one of 7 x 7"
    if "conv1.weight" not in weights:
        yield "it has no conv1.weight, with which a ResNet begins"
    yield from _flat_convolutions(weights, "conv1.weight")
    channels, inputs, *kernel = weights["conv1.weight"].shape
    if kernel != [7, 7]:
        yield f"its conv1 is {' x '.join(map(str, kernel))}, the stem for small images as of CIFAR, not 7 x 7"
    if inputs != INPUTS:
        yield f"its conv1 takes {inputs} channels, not {INPUTS}"
    if any(f"layer1.0.{name}.weight" not in weights for name in ("conv1", "conv2")):
        yield "it has no layer1.0.conv1 and layer1.0.conv2, with which a ResNet goes on"
    if "layer1.0.conv3.weight" not in weights:
        yield "it is of basic blocks (ResNet-18 and -34), and ResNets here are of bottlenecks"
    yield from _flat_convolutions(weights, "layer1.0.conv1.weight", "layer1.0.conv2.weight")
    inner, within = weights["layer1.0.conv1.weight"].shape[0], weights["layer1.0.conv2.weight"].shape[1]
    if not within or not inner or inner % within:
        yield f"its 3 x 3 convolutions see {within} of {inner} channels, which make no groups"
    if within == inner != channels:
        yield (
            f"its blocks are {inner} channels wide inside where its stem has {channels} (wide_resnet50_2 and the "
            "like); here a network is as wide everywhere"
        )
    if _blocks(weights) not in DEPTHS.values():
        yield f"its stages have {_blocks(weights)} blocks, which is none of the depths {', '.join(map(str, DEPTHS))}"


def _flat_convolutions(weights: Mapping[str, Tensor], *keys: str) -> Iterator[str]:
    for key in keys:
        if weights[key].ndim != 4:
            yield f"its {key} is {tuple(weights[key].shape)}, which is no convolution of images"


def _blocks(weights: Mapping[str, Tensor]) -> tuple[int, ...]:
    """How many blocks each of the four stages has."""
    return tuple(
        len({key.split(".")[1] for key in weights if key.startswith(f"layer{stage}.")}) for stage in (1, 2, 3, 4)
    )
