"""DeepCluster's AlexNet, as its main.py saves it.

    epoch, optimizer
    arch          "alexnet"
    state_dict    features.module.0.weight …    five convolutions, each followed by BatchNorm  -> conv1 … conv5
                  classifier.1.*, classifier.4.*                                               -> fc6, fc7
                  top_layer.*                   the pseudo-labels' classifier
                  sobel.0.*, sobel.1.*          grey, and Sobel's filters: they become the input

`.module` comes of DataParallel. Input: Sobel's two channels of RGB standardised as ImageNet's; without sobel.*, the RGB
itself.

Refused: VGG-16, which is not among the networks here, and a sobel.* that is not Sobel's.

Source: github.com/facebookresearch/deepcluster, main.py and models/alexnet.py
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmark.backbones.alexnet import DEEPCLUSTER
from benchmark.core.errors import UserError
from benchmark.exchange.alexnets import alexnet_of
from benchmark.exchange.contract import ForeignNetwork, Place, State, WeightsFormat
from benchmark.recipe.inputs import RGB, InputSpec, Sobel

CONVOLUTIONS = (0, 4, 8, 11, 14)  # places in `features`; BatchNorm follows each
LAYERS = (
    *(f"features.{place + after}" for place in CONVOLUTIONS for after in (0, 1)),
    *("classifier.1", "classifier.4"),
)
ACROSS = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])


def _network(state: State, path: Path) -> ForeignNetwork:
    plain = {key.replace(".module", ""): tensor for key, tensor in state.items()}
    filters = {key: tensor for key, tensor in plain.items() if key.startswith("sobel.")}
    if filters and not _is_sobel(filters):
        raise UserError(f"{path}: its sobel.* are not Sobel's filters of the mean of the colours; not imported")
    colour = Sobel() if filters else RGB()
    architecture, weights = alexnet_of(DEEPCLUSTER, plain, LAYERS, path, InputSpec(colour=colour))
    return ForeignNetwork(architecture, weights, colour)


def _is_sobel(filters: State) -> bool:
    wanted = {
        "sobel.0.weight": torch.full((1, 3, 1, 1), 1 / 3),
        "sobel.0.bias": torch.zeros(1),
        "sobel.1.weight": torch.stack([ACROSS, ACROSS.T])[:, None],
        "sobel.1.bias": torch.zeros(2),
    }
    return filters.keys() == wanted.keys() and all(
        filters[key].shape == one.shape and torch.allclose(filters[key].float(), one) for key, one in wanted.items()
    )


def _refuses(contents: Mapping[str, Any]) -> str:
    arch, has_top = contents.get("arch"), any("top_layer" in key for key in Place(("state_dict",)).state(contents))
    told = arch if isinstance(arch, str) else "unknown network"
    return f"DeepCluster's {told}, which is not among the networks here" if has_top and arch != "alexnet" else ""


FORMAT = WeightsFormat(
    title="DeepCluster AlexNet",
    places=(Place(("state_dict",)),),
    first=("features.module.0.weight", "features.0.weight"),
    network=_network,
    holds=lambda contents: contents.get("arch") == "alexnet",
    refuses=_refuses,
)
