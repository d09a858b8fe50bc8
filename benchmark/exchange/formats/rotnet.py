"""RotNet's AlexNet (gidariss/FeatureLearningRotNet), as its Algorithm.py saves it.

    epoch
    network    _feature_blocks.N.M.*    N = 0, 2, 4, 5, 6: a convolution (M = 0) and its BatchNorm (1)  -> conv1 … conv5
                                        N = 8: fc6 (M = 1, 2) and fc7 (4, 5), each with its BatchNorm   -> fc6, fc7
                                        N = 9: the classifier of rotations

Input: RGB, standardised as ImageNet's.

Refused: the Network in Network of the paper's CIFAR-10 part (`_feature_blocks.0.Block1_ConvB1 …`).

Source: github.com/gidariss/FeatureLearningRotNet, algorithms/Algorithm.py and architectures/AlexNet.py
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.backbones.alexnet import ROTNET
from benchmark.exchange.alexnets import alexnet_of
from benchmark.exchange.contract import ForeignNetwork, Place, State, WeightsFormat
from benchmark.recipe.inputs import RGB, InputSpec

PREFIX = "_feature_blocks."
LAYERS = (*(f"{block}.{layer}" for block in (0, 2, 4, 5, 6) for layer in (0, 1)), "8.1", "8.2", "8.4", "8.5")


def _network(state: State, path: Path) -> ForeignNetwork:
    architecture, weights = alexnet_of(ROTNET, state, LAYERS, path, InputSpec())
    return ForeignNetwork(architecture, weights, RGB())


def _is_network_in_network(contents: Mapping[str, Any]) -> str:
    keys = Place(("network",), PREFIX).state(contents)
    found = any(key.startswith(f"{PREFIX}0.Block1_ConvB1.") for key in keys)
    return "RotNet's Network in Network, which is not among the networks here" if found else ""


FORMAT = WeightsFormat(
    title="RotNet AlexNet",
    places=(Place(("network",), PREFIX),),
    first=("0.0.weight",),
    network=_network,
    refuses=_is_network_in_network,
)
