"""From the weights of another project's AlexNet to the one here, whose layers come in the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmark.backbones.alexnet import AlexNet
from benchmark.core.errors import UserError
from benchmark.recipe.inputs import InputSpec


def alexnet_of(
    kind: AlexNet, state: Mapping[str, Tensor], layers: Sequence[str], path: Path, spec: InputSpec
) -> tuple[AlexNet, dict[str, Tensor]]:
    """(the AlexNet of that kind, as wide as these weights; the weights by its names). layers: the project's names of
    all layers with weights, in order; what is below none of them is left out. Raises UserError, naming the file, where
    a layer is not there."""
    if missing := [name for name in layers if not any(key.startswith(f"{name}.") for key in state)]:
        raise UserError(f"{path}: not this AlexNet: it has no {', '.join(missing)}")
    first = state.get(f"{layers[0]}.weight")
    if first is None or first.ndim != 4:
        raise UserError(f"{path}: not this AlexNet: its {layers[0]} is no convolution of images")
    architecture = replace(kind, width=len(first) / kind.channels[0])
    with torch.device("meta"):
        network = architecture.build(spec)
    own = [name for name, module in network.named_modules() if [*module.parameters(False), *module.buffers(False)]]
    names = dict(zip(layers, own, strict=True))
    found = ((key.rpartition("."), tensor) for key, tensor in state.items())
    return architecture, {f"{names[layer]}.{key}": tensor for (layer, _, key), tensor in found if layer in names}
