"""SimCLR (v1), converted from TensorFlow by tonylins/simclr-converter.

    state_dict    conv1.weight …    a ResNet-50 by torchvision's names, of width 1, 2 or 4  -> taken
                  fc.*              the supervised linear head

Input: RGB from 0 to 1, not standardised.

Refused: SimCLR v2 as Separius/SimCLRv2-Pytorch converts it (`resnet`, `head`), with selective kernels or without: its
layers have other names and, with selective kernels, another stem.

Source: github.com/tonylins/simclr-converter, convert.py
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.exchange.contract import ForeignNetwork, Place, State, WeightsFormat
from benchmark.exchange.resnets import resnet_of
from benchmark.recipe.inputs import RGB


def _network(state: State, path: Path) -> ForeignNetwork:
    architecture, weights = resnet_of(state, path)
    return ForeignNetwork(architecture, weights, RGB((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))


def _holds(contents: Mapping[str, Any]) -> bool:
    return contents.keys() == {"state_dict"} and "fc.weight" in contents["state_dict"]


def _is_second_version(contents: Mapping[str, Any]) -> str:
    return "SimCLR v2, whose layers and selective kernels are not read" if contents.keys() == {"resnet", "head"} else ""


FORMAT = WeightsFormat(
    title="SimCLR converted to torch",
    places=(Place(("state_dict",)),),
    network=_network,
    holds=_holds,
    refuses=_is_second_version,
)
