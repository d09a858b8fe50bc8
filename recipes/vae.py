"""The variational autoencoder, as a row of Deep InfoMax's Tiny ImageNet table.

Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114, with the encoder of Hjelm et al., ICLR
2019, arXiv:1808.06670, who never released their baselines and say little of them.

An encoder maps an image x to a distribution of codes, q(z|x) = N(mu, diag sigma²). A decoder makes an image x' of a
code drawn from it. With p(z) = N(0, I), training maximises the bound

    log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || p(z)),    log p(x|z) = -||x - x'||² / 2 but for a constant

mu is what transfers as Y; sigma comes from fc by a layer of its own.

Departures:
- The decoder is that of a DCGAN for 64 px. The authors' released one, for other purposes, is for images of 32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from benchmark.backbones.alex64 import Alex64Network, connected
from benchmark.backbones.contract import Backbone
from benchmark.backbones.norms import BatchNorm2d
from benchmark.core.bounds import Counts
from benchmark.core.draws import normal
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import Change, Given
from recipes.dim import SMALL, SOURCE_OF_LENGTH, WholeImages, dim_local, encoder

FIRST_SIDE = 4  # of the decoder's first map
SMALL_DECODER = Change("method.channels", (128, 64, 32, 16), "a quarter of the channels, as in the encoder")


@dataclass(frozen=True)
class Decoded(WholeImages):
    """What methods with a decoder share."""

    channels: Counts = (512, 256, 128, 64)  # of the decoder's maps, 4 x 4 to 32 x 32


@dataclass(frozen=True)
class VAE(Decoded):
    def build(self, backbone: Backbone, given: Given) -> Method:
        return VariationalAutoencoder(self, encoder(backbone))


class VariationalAutoencoder(Method):
    figures: dict[str, Tensor]

    def __init__(self, settings: VAE, backbone: Alex64Network) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder_of(backbone, settings.channels)
        self.log_variance = nn.Linear(backbone.stages["fc"].channels, backbone.out_channels)

    def loss(self, batch: Batch) -> Tensor:
        x = self.backbone.input.prepare(batch.views["image"])  # (B, 3, 64, 64)
        stages = self.backbone.forward_stages(x.contiguous(memory_format=torch.channels_last))
        mu, log_variance = stages["y"].float(), self.log_variance(stages["fc"]).float()  # (B, 64)
        z = mu + (log_variance / 2).exp() * normal(batch.seed, batch.index, mu.shape[1])
        decoded = self.decoder(z).float()
        # NOTE: a variance of 1 for each number of an image, which is how much an error counts beside KL
        error, kl = squared_error(x, decoded) / 2, kl_from_standard_normal(mu, log_variance)
        self.figures = {"reconstruction_error": error.detach().mean(), "kl": kl.detach().mean()}
        return (error + kl).mean()

    def scalars(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.figures.items()}


def decoder_of(backbone: Alex64Network, channels: tuple[int, ...]) -> nn.Sequential:
    """(B, 64) codes -> images like those the encoder sees, from -1 to 1. Kernels of 4 x 4 make each map from one of
    half its side (Radford et al., "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
    Networks", ICLR 2016). channels: of the maps of 4 x 4, 8 x 8 and so on."""
    spec, over = backbone.input, backbone.architecture.over
    if (side := FIRST_SIDE * 2 ** len(channels)) != spec.size:
        raise UserError(
            f"{len(channels)} channels make images of {side} pixels; set others for --recipe.input.size {spec.size}"
        )
    first = channels[0] * FIRST_SIDE**2
    layers: list[nn.Module] = [*connected(backbone.out_channels, first, over)]
    layers.append(nn.Unflatten(1, (channels[0], FIRST_SIDE, FIRST_SIDE)))
    for ends in pairwise(channels):
        layers += [
            nn.ConvTranspose2d(*ends, 4, 2, 1, bias=False),
            BatchNorm2d(ends[1], over=over),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels[-1], spec.channels, 4, 2, 1), nn.Tanh())


def squared_error(x: Tensor, decoded: Tensor) -> Tensor:
    """(B,), summed over an image."""
    return (x - decoded).square().sum(dim=(1, 2, 3))


def kl_from_standard_normal(mu: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mu, sigma²) || N(0, I)): (B, d) each -> (B,)"""
    return (mu.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2


vae = replace(
    dim_local,
    title="Variational autoencoder",
    # NOTE: rate, batch and length are those of DIM's rows, since the paper does not say
    method=VAE(),
    optimizers={"main": dim_local.optimizers["main"]},
    reported=f"18.63 / 16.88 / 11.93 % Tiny ImageNet top-1 at conv, fc and Y (DIM, Table 2); {SOURCE_OF_LENGTH}",
    desk=(*SMALL, SMALL_DECODER),
)
