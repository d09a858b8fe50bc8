"""BiGAN: a generator and an encoder that are not to be told apart, as a row of Deep InfoMax's Tiny ImageNet table.

Donahue, Krähenbühl & Darrell, "Adversarial Feature Learning", ICLR 2017, arXiv:1605.09782, with the encoder of Hjelm et
al., ICLR 2019, arXiv:1808.06670. What the papers leave open is as in the authors' jeffdonahue/bigan.

G makes images of codes z, E codes of images x, and D tells pairs (x, E(x)) from pairs (G(z), z). Where it cannot, E
inverts G:

    min over G, E, max over D:  E[log D(x, E(x))] + E[log (1 - D(G(z), z))],    z uniform from -1 to 1

G and E minimise what D would lose with its answers exchanged, in one step with D's, from the same weights.

Departures:
- The code is Deep InfoMax's y, of 64 numbers. The authors' has 200.
- G is the VAE's decoder: kernels of 4 x 4 and a tanh. The authors' has 5 x 5 and a sigmoid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from benchmark.backbones.alex64 import Alex64Network
from benchmark.backbones.contract import Backbone
from benchmark.backbones.norms import BatchNorm2d
from benchmark.blocks.adversaries import told_apart
from benchmark.core.bounds import Counts
from benchmark.core.draws import uniform
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import Adam, Given
from recipes.dim import SMALL, dim_local, encoder
from recipes.vae import Decoded, decoder_of


@dataclass(frozen=True)
class BiGAN(Decoded):
    told_by: Counts = (64, 128, 256, 512)  # channels of D's convolutions, at the encoder's width 1

    def build(self, backbone: Backbone, given: Given) -> Method:
        return BidirectionalGAN(self, encoder(backbone))


class BidirectionalGAN(Method):
    told: Tensor

    def __init__(self, settings: BiGAN, backbone: Alex64Network) -> None:
        super().__init__()
        self.backbone = backbone  # E
        self.G = decoder_of(backbone, settings.channels)
        self.D = JointDiscriminator(backbone, settings.told_by)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        x = self.backbone.input.prepare(batch.views["image"]).contiguous(memory_format=torch.channels_last)
        z = 2 * uniform(batch.seed, batch.index, self.backbone.out_channels) - 1  # (B, 64)
        y, made = self.backbone(x), self.G(z).contiguous(memory_format=torch.channels_last)
        of_images, of_made = self.D(x, y), self.D(made, z)
        yield "main", told_apart(real=of_made.float(), made=of_images.float())
        # the same again, for the step has changed nothing of D, but its own graph is gone
        of_images, of_made = self.D(x, y.detach()), self.D(made.detach(), z)
        self.told = ((of_images > 0).float().mean() + (of_made < 0).float().mean()).detach() / 2
        yield "discriminator", told_apart(real=of_images.float(), made=of_made.float())

    def players(self) -> dict[str, list[nn.Parameter]]:
        main = [*self.backbone.parameters(), *self.G.parameters()]
        return {"main": main, "discriminator": list(self.D.parameters())}

    def scalars(self) -> dict[str, float]:
        """told_apart: how often D is right."""
        return {"told_apart": float(self.told)}


class JointDiscriminator(nn.Module):
    """(B, C, H, W) images and (B, numbers) codes -> (B, 1) logits. The code stands beside the image in every layer: as
    a bias of each channel, before BatchNorm. Images that were made have a BatchNorm of their own batch."""

    def __init__(self, encoder: Alex64Network, counts: tuple[int, ...]) -> None:
        super().__init__()
        spec, architecture = encoder.input, encoder.architecture
        channels = [spec.channels, *map(architecture.scaled, counts)]
        self.convolutions = nn.ModuleList(nn.Conv2d(*ends, 5, 2, 2, bias=False) for ends in pairwise(channels))
        self.of_code = nn.ModuleList(nn.Linear(encoder.out_channels, count) for count in channels[1:])
        self.norms = nn.ModuleList(BatchNorm2d(count, over=architecture.over) for count in channels[1:])
        side = spec.size
        for _ in counts:
            side = -(-side // 2)
        self.last = nn.Linear(channels[-1] * side**2, 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        for convolution, of_code, norm in zip(self.convolutions, self.of_code, self.norms, strict=True):
            x = leaky_relu(norm(convolution(x) + of_code(z)[:, :, None, None]), 0.2)
        return self.last(x.flatten(1))


GAN = Adam(lr=2e-4, betas=(0.5, 0.999), weight_decay=2.5e-5)

bigan = replace(
    dim_local,
    title="BiGAN, on 64 px",
    # NOTE: batch and length are those of DIM's rows, at a constant rate. The authors train 50 epochs in batches of 128,
    # and 50 more at a rate that falls to a hundredth.
    method=BiGAN(),
    optimizers={"main": GAN, "discriminator": GAN},
    reported="24.38 / 20.21 / 13.06 % Tiny ImageNet top-1 at conv, fc and Y (DIM, Table 2)",
    # at desk's rate two adversaries run away from each other
    desk=tuple(change for change in SMALL if change.key != "optimizers.main"),
)
