"""Losses of adversarial training, and a discriminator of codes. They take logits: the higher, the likelier real."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-E log D(real) - E log (1 - D(fake)) (Goodfellow et al., NIPS 2014)."""
    return softplus(-real).mean() + softplus(fake).mean()


def non_saturating_generator_loss(fake: Tensor) -> Tensor:
    """-E log D(fake). Its gradient does not vanish where D is sure, as that of E log (1 - D(fake)) does."""
    return softplus(-fake).mean()


class PriorMatching(nn.Module):
    """Matches codes to a prior: a discriminator is trained to separate draws of the prior from codes, and the encoder
    to make codes that it takes for draws.

    units: of its hidden layers. penalty: weight of its squared gradient, at both draws and codes (Mescheder et al.,
    "Which Training Methods for GANs do actually Converge?", ICML 2018).
    """

    def __init__(self, numbers: int, units: tuple[int, ...], penalty: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip((numbers, *units), units, strict=False):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
        self.discriminator = nn.Sequential(*layers, nn.Linear((numbers, *units)[-1], 1))
        self.penalty = penalty

    def encoder_loss(self, codes: Tensor) -> Tensor:
        """(B, numbers)"""
        with torch.autocast(codes.device.type, enabled=False):
            return non_saturating_generator_loss(self.discriminator(codes.float()))

    def loss(self, prior: Tensor, codes: Tensor) -> Tensor:
        """The discriminator's own. prior, codes: (B, numbers) each, which it does not train."""
        codes = codes.detach().float()
        with torch.autocast(codes.device.type, enabled=False):
            loss = discriminator_loss(real=self.discriminator(prior), fake=self.discriminator(codes))
            if not self.penalty:
                return loss
            return loss + self.penalty * (self._squared_gradient(prior) + self._squared_gradient(codes)) / 2

    def _squared_gradient(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.discriminator(x).sum(), x, create_graph=True)
        return gradient.square().sum(dim=1).mean()
