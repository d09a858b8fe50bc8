"""From the AlexNet that a paper trains to the one that it transfers: what a Method.export calls.

- Context prediction: `folded`; then `caffenets_convolutions`, without groups.
- Jigsaw: `caffenets_convolutions`, which gives conv1 its stride of 4 back. The paper's linear probes keep the stride of
  2.
- Colorization: `folded`; then all is carried over into CaffeNet without response normalisation. That takes the padding
  away from conv1 and the pools, gives pool5 its stride back and makes rows of fc6's kernels.
- Split-brain: `halves_joined`; then as colorization.

The networks of tiles and patches have an fc6 that does not fit a whole image. They are carried over into a network that
ends at conv5, of units=(); the protocols that train fc6 and fc7 begin them anew, by their own seeds.

Each function gives a new network in evaluation mode, of the same precision, and leaves the one it is given alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmark.backbones.alexnet import CAFFENET, AlexNet, AlexNetwork
from benchmark.backbones.contract import Backbone
from benchmark.backbones.split_alexnet import SplitAlexNetwork
from benchmark.core.errors import UserError
from benchmark.recipe.inputs import InputSpec


def folded(network: Backbone) -> AlexNetwork:
    """The same function without BatchNorm: its running statistics, scale and shift go into the weights and the bias of
    the layer before it. Raises UserError for what `check_foldable` refuses."""
    trunk = check_foldable(network)
    new = _empty(replace(trunk.architecture, normed="none", norm="batch", over="process"), trunk.input)
    state: dict[str, Tensor] = {}
    for stage in trunk.layers:
        (key, _) = _weighted_and_norm(new, stage)["layer"]
        weight, bias = _without_norm(**{part: one for part, (_, one) in _weighted_and_norm(trunk, stage).items()})
        state |= {f"{key}.weight": weight, f"{key}.bias": bias}
    return _filled(new, state, trunk)


def check_foldable(network: Backbone) -> AlexNetwork:
    """The network, if `folded` can fold it: a method that exports it so asks before it trains. Raises UserError for
    what is no AlexNet, and for GroupNorm, whose statistics are each image's own."""
    trunk = _as_alexnet(network)
    if trunk.architecture.norm == "group" and trunk.architecture.normed != "none":
        raise UserError(
            'GroupNorm has no statistics to fold into the weights; set backbone.norm to "batch" or "non-affine"'
        )
    return trunk


def carried_over(
    network: Backbone, into: AlexNet, spec: InputSpec | None = None, upto: str | None = None
) -> AlexNetwork:
    """The AlexNet `into`, built for `spec` (by default the same input), with the network's weights in every stage up to
    `upto` (by default in all).

    Strides, paddings and dropout may differ, as no weight depends on them, and fc6 and fc7 may be maps in the one and
    vectors in the other. What comes after `upto` begins anew, out of torch's random numbers: not for a Method.export,
    which has no seed to draw them by. Raises UserError, naming the stage, where one is missing or does not fit.
    """
    trunk, spec = _as_alexnet(network), spec or network.input
    if trunk.architecture.response_norm != into.response_norm:
        raise UserError("only one of the two networks has local response normalisation; they compute different things")
    new = _empty(into, spec)
    stages, upto = list(new.layers), upto or new.output
    if upto not in trunk.layers or upto not in stages:
        has = "; ".join(", ".join(one.layers) for one in (trunk, new))
        raise UserError(f"{upto} is not in both networks, which have {has}; carry over less, or into fewer units")
    state: dict[str, Tensor] = {}
    for stage in stages[: stages.index(upto) + 1]:
        state |= _carried(stage, _state(trunk, stage), _state(new, stage))
    return _filled(new if upto == new.output else AlexNetwork(into, spec, spec.channels), state, trunk)


def caffenets_convolutions(network: Backbone, size: int) -> AlexNetwork:
    """conv1 ... conv5 as CaffeNet has them, for whole images of `size` pixels: conv1 without padding and of stride 4.
    Groups and width are the network's own. Raises UserError where BatchNorm has not been folded into the weights."""
    trunk = _as_alexnet(network)
    into = replace(CAFFENET, units=(), groups=trunk.architecture.groups, width=trunk.architecture.width)
    return carried_over(trunk, into, InputSpec(size, trunk.input.colour))


def halves_joined(network: Backbone) -> AlexNetwork:
    """The two halves as one AlexNet that computes the same: what would connect them is zero."""
    if not isinstance(network, SplitAlexNetwork):
        raise UserError(f"{type(network).__name__} has no halves to join")
    new = _empty(network.architecture.whole, network.input)
    first, second = network.first.state_dict(), network.second.state_dict()
    state = {key: _beside(first[key], second[key], one.shape) for key, one in new.state_dict().items()}
    return _filled(new, state, network)


def _as_alexnet(network: Backbone) -> AlexNetwork:
    if isinstance(network, SplitAlexNetwork):
        raise UserError("join the two halves first")
    if not isinstance(network, AlexNetwork):
        raise UserError(f"{type(network).__name__} is not an AlexNet")
    return network


def _empty(architecture: AlexNet, spec: InputSpec) -> AlexNetwork:
    """Without numbers: it draws none."""
    with torch.device("meta"):
        return AlexNetwork(architecture, spec, spec.channels)


def _filled(new: AlexNetwork, state: Mapping[str, Tensor], like: nn.Module) -> AlexNetwork:
    """With a copy of the state where there is one, and the device and precision of `like`."""
    weight = next(like.parameters())
    copies = {key: one.detach().clone() for key, one in state.items()}
    new.load_state_dict({**new.state_dict(), **copies}, assign=True)
    return new.to(weight.device, weight.dtype).eval()


def _weighted_and_norm(network: AlexNetwork, stage: str) -> dict[str, tuple[str, nn.Module]]:
    """The modules of a stage that have numbers, each with its key: "layer", and "norm" where one follows it."""
    named = network.layers[stage].named_children()
    kept = [(f"layers.{stage}.{place}", one) for place, one in named if one.state_dict()]
    return dict(zip(("layer", "norm"), kept, strict=False))


def _state(network: AlexNetwork, stage: str) -> dict[str, tuple[str, Tensor]]:
    """Such as "norm.running_mean" -> (its key in the network's state, the numbers)."""
    return {
        f"{part}.{name}": (f"{key}.{name}", tensor)
        for part, (key, one) in _weighted_and_norm(network, stage).items()
        for name, tensor in one.state_dict().items()
    }


def _carried(
    stage: str, theirs: dict[str, tuple[str, Tensor]], ours: dict[str, tuple[str, Tensor]]
) -> dict[str, Tensor]:
    if theirs.keys() != ours.keys():
        raise UserError(f"{stage}: the two networks normalise it differently; fold BatchNorm into the weights first")
    state = {}
    for name, (key, wanted) in ours.items():
        found = theirs[name][1]
        # a kernel as large as the map and a row over all its cells hold the same numbers in the same order
        if found.ndim != wanted.ndim and found.flatten(1).shape == wanted.flatten(1).shape:
            found = found.reshape(wanted.shape)
        if found.shape != wanted.shape:
            raise UserError(f"{stage}: its {name} is {tuple(found.shape)}, and {tuple(wanted.shape)} is needed")
        state[key] = found
    return state


def _without_norm(layer: nn.Module, norm: nn.Module | None = None) -> tuple[Tensor, Tensor]:
    """(weight, bias)"""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    weight = layer.weight.double()
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.double()
    if norm is None:
        return weight, bias
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale, shift = (scale * norm.weight, norm.bias) if norm.affine else (scale, 0)
    return weight * scale.view(-1, *[1] * (weight.ndim - 1)), (bias - norm.running_mean) * scale + shift


def _beside(first: Tensor, second: Tensor, shape: torch.Size) -> Tensor:
    """Both, one after the other; where each would have to see the other's inputs too, with zeros for those."""
    if first.ndim == 0:  # how many batches BatchNorm has seen
        return first
    if first.shape[1:] == shape[1:]:
        return torch.cat([first, second])
    whole = first.new_zeros(shape)
    outputs, inputs = first.shape[:2]
    whole[:outputs, :inputs], whole[outputs:, inputs:] = first, second
    return whole
