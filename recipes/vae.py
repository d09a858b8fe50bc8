"""The variational autoencoder, as a row of Deep InfoMax's Tiny ImageNet table.

Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114, with the encoder of Hjelm et al., ICLR
2019, arXiv:1808.06670, who never released their baselines and say little of them.

An encoder says of an image x where its code lies and how surely, q(z|x) = N(mu, diag sigma²). A decoder makes an image
of a code drawn from there, and with p(z) = N(0, I) what is learned is the bound

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
from benchmark.recipe import Given
from recipes.dim import SMALL, WholeImages, dim_local, encoder

FIRST_SIDE = 4  # of the decoder's first map


@dataclass(frozen=True)
class Decoded(WholeImages):
    """What methods share that make an image of a code."""

    channels: Counts = (512, 256, 128, 64)  # of the decoder's maps, 4 x 4 to 32 x 32, at the encoder's width 1


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
        made = self.decoder(z).float()
        # NOTE: a variance of 1 for each number of an image, which is how much an error counts beside KL
        surprise, divergence = squared_error(x, made) / 2, from_standard_normal(mu, log_variance)
        self.figures = {"surprise": surprise.detach().mean(), "divergence": divergence.detach().mean()}
        return (surprise + divergence).mean()

    def scalars(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.figures.items()}


def decoder_of(backbone: Alex64Network, counts: tuple[int, ...]) -> nn.Sequential:
    """(B, 64) codes -> images like those the encoder sees, from -1 to 1. Kernels of 4 x 4 make each map from one of
    half its side (Radford et al., "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
    Networks", ICLR 2016). counts: channels of the maps of 4 x 4, 8 x 8 and so on, at width 1."""
    spec, architecture = backbone.input, backbone.architecture
    if (made := FIRST_SIDE * 2 ** len(counts)) != spec.size:
        raise UserError(
            f"{len(counts)} channels make images of {made} pixels; set others for --recipe.input.size {spec.size}"
        )
    channels, over = [*map(architecture.scaled, counts)], architecture.over
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


def squared_error(x: Tensor, made: Tensor) -> Tensor:
    """(B,), summed over an image."""
    return (x - made).square().sum(dim=(1, 2, 3))


def from_standard_normal(mu: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mu, sigma²) || N(0, I)): (B, d) each -> (B,)"""
    return (mu.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2


vae = replace(
    dim_local,
    title="Variational autoencoder",
    # NOTE: rate, batch and length are those of DIM's rows, since the paper does not say
    method=VAE(),
    optimizers={"main": dim_local.optimizers["main"]},
    reported="18.63 / 16.88 / 11.93 % Tiny ImageNet top-1 at conv, fc and Y (DIM, Table 2)",
    desk=SMALL,
)
