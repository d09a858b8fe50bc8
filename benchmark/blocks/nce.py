"""Contrastive losses on similarities, written as the papers write them.

positive: (B,) similarity of each row to its own target; negative: (B, N) to the N others. All take cosine similarities,
divide by the temperature tau themselves, and return the mean over rows, a scalar.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid, softplus

from benchmark.core import distributed


def nce(positive: Tensor, negative: Tensor, tau: float) -> Tensor:
    """Noise-contrastive loss of Misra & van der Maaten (CVPR 2020), equations 3 and 4.

    With e(x) = exp(x / tau) and S = sum over the N negatives of e(s'), the posterior is h = e(s) / (e(s) + S), and the
    loss is -log h(positive) - sum over the negatives of log(1 - h(negative)).
    NOTE: one survey document prints the sum of equation 3 over s(v_I', v_I'), each negative with itself, which is a
    constant. The paper sums over s(v_It, v_I'), the transformed image with each negative, and so does this.
    """
    s, s_ = positive / tau, negative / tau  # (B,), (B, N)
    log_S = torch.logsumexp(s_, dim=1)  # (B,)
    log_h = -softplus(log_S - s)  # (B,) log of e(s) / (e(s) + S)
    log_1_h = -softplus(s_ - log_S[:, None])  # (B, N) log of S / (e(s') + S)
    return -(log_h + log_1_h.sum(dim=1)).mean()


def nce_constant_partition(positive: Tensor, negative: Tensor, tau: float, Z: Tensor, n: int) -> Tensor:
    """Noise-contrastive loss of Wu et al. (CVPR 2018), equations 6 and 7, as released: P(i|v) = exp(s / tau) / Z with a
    constant Z, noise P_n = 1 / n over the n images of the set, m = N noise samples per image, h = P / (P + m P_n)."""
    m = negative.shape[1]
    log_m_Pn = torch.tensor(m / n, device=positive.device).log()
    log_odds = positive / tau - Z.log() - log_m_Pn  # (B,) log of P / (m P_n)
    log_odds_ = negative / tau - Z.log() - log_m_Pn  # (B, N)
    return -(logsigmoid(log_odds) + logsigmoid(-log_odds_).sum(dim=1)).mean()


@torch.no_grad()
def fix_partition(Z: Tensor, s: Tensor, tau: float, n: int) -> None:
    """Where Z is still 0, set it to its estimate from the first batch, and then never again, as released: n times the
    mean of exp(s / tau), over all processes. s: similarities of any shape to entries of a set of n."""
    if Z == 0:
        Z.copy_(n * distributed.mean_over_processes((s.detach() / tau).exp().mean()))


def info_nce(positive: Tensor, negative: Tensor, tau: float) -> Tensor:
    """InfoNCE (van den Oord et al., arXiv:1807.03748): cross-entropy of the positive among 1 + N candidates."""
    logits = torch.cat([positive[:, None], negative], dim=1) / tau  # (B, 1 + N)
    return cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))
