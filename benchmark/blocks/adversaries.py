"""Discriminators and what they and their opponents lose, on logits: the higher, the likelier real."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus


def told_apart(real: Tensor, made: Tensor) -> Tensor:
    """What a discriminator loses (Goodfellow et al., NIPS 2014): -E log D(real) - E log (1 - D(made))."""
    return softplus(-real).mean() + softplus(made).mean()


def taken_for_real(made: Tensor) -> Tensor:
    """What the opponent loses, -E log D(made), whose gradient does not vanish where it is easily told."""
    return softplus(-made).mean()


class PriorMatching(nn.Module):
    """Brings codes to a prior: a discriminator tells draws of the prior from codes, which learn not to be told.

    units: of its hidden layers. penalty: weight of its squared gradient, at draws and at codes alike (Mescheder et al.,
    "Which Training Methods for GANs do actually Converge?", ICML 2018).
    """

    def __init__(self, numbers: int, units: tuple[int, ...], penalty: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip((numbers, *units), units, strict=False):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
        self.discriminator = nn.Sequential(*layers, nn.Linear((numbers, *units)[-1], 1))
        self.penalty = penalty

    def loss_of_codes(self, codes: Tensor) -> Tensor:
        """(B, numbers)"""
        with torch.autocast(codes.device.type, enabled=False):
            return taken_for_real(self.discriminator(codes.float()))

    def loss(self, prior: Tensor, codes: Tensor) -> Tensor:
        """The discriminator's own. prior, codes: (B, numbers) each, which it does not train."""
        codes = codes.detach().float()
        with torch.autocast(codes.device.type, enabled=False):
            loss = told_apart(self.discriminator(prior), self.discriminator(codes))
            if not self.penalty:
                return loss
            return loss + self.penalty * (self._squared_gradient(prior) + self._squared_gradient(codes)) / 2

    def _squared_gradient(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.discriminator(x).sum(), x, create_graph=True)
        return gradient.square().sum(dim=1).mean()
