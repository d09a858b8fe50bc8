"""torchvision and timm: a ResNet's state_dict, as safetensors or pickled tensors.

    conv1.weight, bn1.*, layer1.0.conv1.weight … fc.*    all but fc.*  -> taken

It may lie in `state_dict`, with `module.` before each name, as the training scripts of both save it.

Input: RGB, standardised as ImageNet's.

Refused: stems of three convolutions (timm's -d), wide_resnet50_2 and the like, basic blocks. timm's ResNets that
smooth before they stride (resnetblur50) have a ResNet-50's keys and shapes, and cannot be told apart.

Source: pytorch.org/vision/stable/models/resnet.html; huggingface.co/docs/timm/models/resnet
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmark.exchange.contract import Place, WeightsFormat
from benchmark.exchange.lightning import VERSION


def _holds(contents: Mapping[str, Any]) -> bool:
    return contents.keys().isdisjoint({VERSION, "meta", "author"})


FORMAT = WeightsFormat(
    title="torchvision, timm",
    places=(Place(), Place(("state_dict",)), Place(("state_dict",), "module.")),
    first=("conv1.weight", "conv1.0.weight"),
    holds=_holds,
)
