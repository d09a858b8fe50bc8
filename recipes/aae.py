"""The adversarial autoencoder, as a row of Deep InfoMax's Tiny ImageNet table.

Makhzani, Shlens, Jaitly, Goodfellow & Frey, "Adversarial Autoencoders", arXiv 2015, arXiv:1511.05644, with the encoder
of Hjelm et al., ICLR 2019, arXiv:1808.06670, who never released their baselines and say little of them.

A decoder reconstructs the image x from its code y, as x'. D is trained to separate codes from draws v of the prior,
N(0, I), and the encoder to make codes that D takes for draws:

    encoder and decoder:  mean (x - x')² - gamma E[log D(y)]
    D:                    -E[log D(v)] - E[log (1 - D(y))]

Departures:
- Both terms are minimised in one step. Makhzani et al. take turns: first the image, then D, then the encoder alone.
- D is DIM's, without its penalty. As there, both losses of a step are computed from the same weights.
- The decoder is the VAE's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmark.backbones.alex64 import Alex64Network
from benchmark.backbones.contract import Backbone
from benchmark.blocks.adversaries import PriorMatching
from benchmark.core.bounds import Counts, NotNegative
from benchmark.core.draws import normal
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import Given
from recipes.dim import SMALL, SMALL_PRIOR, SOURCE_OF_LENGTH, dim_local, encoder
from recipes.vae import SMALL_DECODER, Decoded, decoder_of


@dataclass(frozen=True)
class AAE(Decoded):
    # NOTE: the paper gives no weight, and Makhzani et al., who take turns, need none. This is PyTorch-GAN's, beside a
    # mean of absolute errors. With DIM(L)'s 0.1 the error stays nearly twice as large, and most units of fc die
    gamma: NotNegative = 0.001
    prior_units: Counts = (1000, 200)  # of D's hidden layers, as in DIM

    def build(self, backbone: Backbone, given: Given) -> Method:
        return AdversarialAutoencoder(self, encoder(backbone))


class AdversarialAutoencoder(Method):
    error: Tensor

    def __init__(self, settings: AAE, backbone: Alex64Network) -> None:
        super().__init__()
        self.backbone, self.gamma = backbone, settings.gamma
        self.decoder = decoder_of(backbone, settings.channels)
        self.prior = PriorMatching(backbone.out_channels, settings.prior_units, penalty=0.0)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        x = self.backbone.input.prepare(batch.views["image"])
        y = self.backbone(x.contiguous(memory_format=torch.channels_last))  # (B, 64)
        decoded = self.decoder(y)
        # NOTE: a mean over pixels and colours; a sum would make the adversary count twelve thousand times less
        error = (x - decoded.float()).square().mean()
        self.error = error.detach()
        yield "main", error + self.gamma * self.prior.encoder_loss(y)
        # NOTE: a normal prior, as Makhzani et al.'s; the paper does not say whether it is DIM's uniform one
        yield "discriminator", self.prior.loss(normal(batch.seed, batch.index, y.shape[1]), y)

    def players(self) -> dict[str, list[nn.Parameter]]:
        main = [*self.backbone.parameters(), *self.decoder.parameters()]
        return {"main": main, "discriminator": list(self.prior.parameters())}

    def scalars(self) -> dict[str, float]:
        return {"squared_error": float(self.error)}


# NOTE: batch, rates and length are DIM's; the paper gives none for this row
aae = replace(
    dim_local,
    title="Adversarial autoencoder",
    method=AAE(),
    reported=f"18.04 / 17.27 / 11.49 % Tiny ImageNet top-1 at conv, fc and Y (DIM, Table 2); {SOURCE_OF_LENGTH}",
    desk=(*SMALL, SMALL_DECODER, *SMALL_PRIOR),
)
