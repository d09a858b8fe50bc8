"""One rate of learning for all layers, by their scales alone: the between-layer normalisation of Krähenbühl, Doersch,
Donahue & Darrell, "Data-dependent Initializations of Convolutional Neural Networks", ICLR 2016, arXiv:1511.06856, their
Algorithm 2, for a network that has been started by its data (recipes/random_rescaled.py).

In a step of gradient descent layer k changes by a share of itself that is in proportion to

    C_k = sqrt(E[||∂ℓ/∂W_k||²] / ||W_k||²),    ℓ = ηᵀ z_N,    η ~ N(0, I)

z_N is what the last affine layer gives. Its gradient is random, for the loss of the task is not known yet; E is over
images and η. Where layer k is multiplied by r_k, and the r_k of all layers by one another are 1, the network computes
the same and C_k is divided by r_k². So r_k = sqrt(C_k / C̃), with C̃ the geometric mean of all C_k, makes all rates C̃.
Local response normalisation is not in proportion to its input: there it takes some sweeps, and the function changes.

Departures:
- Gradients are squared image by image, as in the expectation. Those of the authors' philkr/magic_init are of the sum
  over one batch, which is noisier.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from benchmark.backbones.alexnet import AlexNetwork
from benchmark.backbones.contract import Backbone
from benchmark.core.errors import UserError

Affine = nn.Conv2d | nn.Linear
SWEEPS = 10
EVEN = 0.01  # rates that differ by so little are equal
TOGETHER = 16  # images at a time; unfolded, those of conv2 take 112 MB in CaffeNet


def rate_corrections(network: Backbone, x: Tensor, seed: int) -> Tensor:
    """sqrt(C_k / C̃) of every affine layer: (layers,) float64 on the CPU, whose product is 1. Raises UserError for a
    layer that no gradient reaches."""
    rates = change_rates(network, x, seed)
    for stage, rate in zip(affine_layers(network), rates.tolist(), strict=True):
        if not 0 < rate < float("inf"):
            raise UserError(
                f"{stage} has weights or gradients of 0 for these images, so no scale gives a rate; use others"
            )
    return (rates.log() - rates.log().mean()).div(2).exp()


def are_even(corrections: Tensor) -> bool:
    """Whether the rates that these are of are equal, to 1 %."""
    return bool((2 * corrections.log().abs() < EVEN).all())


def change_rates(network: Backbone, x: Tensor, seed: int) -> Tensor:
    """C_k of every affine layer: (layers,) float64 on the CPU. x: (N, C, H, W) as the network takes it. seed: of η,
    one for each image."""
    layers = affine_layers(network)
    generator = torch.Generator().manual_seed(seed)
    squares = torch.zeros(len(layers), dtype=torch.float64)
    for part in x.split(TOGETHER):
        with torch.enable_grad():
            found = seen(network, part)
            inputs, outputs = zip(*found.values(), strict=True)
            z = outputs[-1]
            eta = torch.randn(z.shape, generator=generator, dtype=z.dtype).to(z.device)
            gradients = torch.autograd.grad((eta * z).sum(), outputs)
        each = [_squared_gradients(*one) for one in zip(layers.values(), inputs, gradients, strict=True)]
        squares += torch.stack(each).double().sum(dim=1).cpu()
    sizes = torch.stack([layer.weight.detach().double().square().sum() for layer in layers.values()]).cpu()
    return (squares / len(x) / sizes).sqrt()


def affine_layers(network: Backbone) -> dict[str, Affine]:
    """The convolution or linear layer of each stage, from the first to the last. Raises UserError unless it is an
    AlexNet without BatchNorm: in others, layers do not just follow one another, or no scale of theirs matters."""
    if not isinstance(network, AlexNetwork):
        raise UserError(f"{type(network).__name__} cannot be rescaled: name an AlexNet; its layers follow one another")
    if network.architecture.normed != "none":
        raise UserError("where BatchNorm follows a layer its scale does not matter; fold BatchNorm into the weights")
    return {
        stage: next(one for one in layer.children() if isinstance(one, nn.Conv2d | nn.Linear))
        for stage, layer in network.layers.items()
    }


def seen(network: Backbone, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """stage -> what its affine layer is given and what it gives, before the ReLU."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(stage: str, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def note(_: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
            found[stage] = given[0].detach(), output
            return output.clone()  # the ReLU writes over what it is given

        return layer.register_forward_hook(note)

    handles = [watch(stage, layer) for stage, layer in affine_layers(network).items()]
    try:
        network.forward_stages(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _squared_gradients(layer: Affine, x: Tensor, y: Tensor) -> Tensor:
    """||∂ℓ/∂W||² of each image (B,): x what the layer is given, y the gradient of what it gives."""
    if isinstance(layer, nn.Linear):  # of the outer product of the two
        return x.square().sum(dim=1) * y.square().sum(dim=1)
    columns, y = (one.unflatten(1, (layer.groups, -1)) for one in (columns_of(layer, x), y.flatten(2)))
    return torch.einsum("bgip,bgop->bgio", columns, y).square().sum(dim=(1, 2, 3))


def columns_of(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """The patches that the layer multiplies its kernels with: (B, inputs of all groups, places)."""
    assert not isinstance(layer.padding, str)
    return unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
