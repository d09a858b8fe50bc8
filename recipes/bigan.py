"""BiGAN: a generator and an encoder trained against one discriminator, as a row of Deep InfoMax's Tiny ImageNet table.

Donahue, Krähenbühl & Darrell, "Adversarial Feature Learning", ICLR 2017, arXiv:1605.09782, with the encoder of Hjelm et
al., ICLR 2019, arXiv:1808.06670. What the papers leave open is as in the authors' jeffdonahue/bigan.

G makes images of codes z, E codes of images x, and D is trained to separate pairs (x, E(x)) from pairs (G(z), z). At
the optimum it cannot, and E inverts G:

    min over G, E, max over D:  E[log D(x, E(x))] + E[log (1 - D(G(z), z))],    z uniform from -1 to 1

G and E minimise D's loss with the labels of the pairs swapped. In each step both losses are computed from the same
weights, before either side moves.

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
from benchmark.blocks.adversaries import discriminator_loss
from benchmark.core.bounds import Counts
from benchmark.core.draws import uniform
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import Adam, Change, Given, without
from recipes.dim import SMALL, SOURCE_OF_LENGTH, dim_local, encoder
from recipes.vae import SMALL_DECODER, Decoded, decoder_of


@dataclass(frozen=True)
class BiGAN(Decoded):
    discriminator_channels: Counts = (64, 128, 256, 512)  # of D's convolutions

    def build(self, backbone: Backbone, given: Given) -> Method:
        return BidirectionalGAN(self, encoder(backbone))


class BidirectionalGAN(Method):
    accuracy: Tensor

    def __init__(self, settings: BiGAN, backbone: Alex64Network) -> None:
        super().__init__()
        self.backbone = backbone  # E
        self.G = decoder_of(backbone, settings.channels)
        self.D = JointDiscriminator(backbone, settings.discriminator_channels)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        x = self.backbone.input.prepare(batch.views["image"]).contiguous(memory_format=torch.channels_last)
        z = 2 * uniform(batch.seed, batch.index, self.backbone.out_channels) - 1  # (B, 64)
        y, generated = self.backbone(x), self.G(z).contiguous(memory_format=torch.channels_last)
        real, fake = self.D(x, y), self.D(generated, z)
        yield "main", discriminator_loss(real=fake.float(), fake=real.float())  # labels swapped
        # the same numbers again: the step left D as it was, but used up the graph through it
        real, fake = self.D(x, y.detach()), self.D(generated.detach(), z)
        self.accuracy = ((real > 0).float().mean() + (fake < 0).float().mean()).detach() / 2
        yield "discriminator", discriminator_loss(real=real.float(), fake=fake.float())

    def players(self) -> dict[str, list[nn.Parameter]]:
        main = [*self.backbone.parameters(), *self.G.parameters()]
        return {"main": main, "discriminator": list(self.D.parameters())}

    def scalars(self) -> dict[str, float]:
        return {"discriminator_accuracy": float(self.accuracy)}


class JointDiscriminator(nn.Module):
    """(B, C, H, W) images and (B, numbers) codes -> (B, 1) logits. The code stands beside the image in every layer: as
    a bias of each channel, before BatchNorm. BatchNorm sees real images in one batch, and generated ones in another."""

    def __init__(self, encoder: Alex64Network, counts: tuple[int, ...]) -> None:
        super().__init__()
        spec, over = encoder.input, encoder.architecture.over
        channels = [spec.channels, *counts]
        self.convolutions = nn.ModuleList(nn.Conv2d(*ends, 5, 2, 2, bias=False) for ends in pairwise(channels))
        self.of_code = nn.ModuleList(nn.Linear(encoder.out_channels, count) for count in counts)
        self.norms = nn.ModuleList(BatchNorm2d(count, over=over) for count in counts)
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
    reported=f"24.38 / 20.21 / 13.06 % Tiny ImageNet top-1 at conv, fc and Y (DIM, Table 2); {SOURCE_OF_LENGTH}",
    desk=(
        *without(SMALL, "optimizers.main"),  # the authors' rate at every scale; desk's own was not tried
        SMALL_DECODER,
        Change("method.discriminator_channels", (16, 32, 64, 128), "a quarter of the channels, as in the encoder"),
    ),
)
