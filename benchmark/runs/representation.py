"""How features fill their space, in four numbers that need no labels. All are computed in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-7  # RankMe, equation 1
COLLAPSED = 1e-6  # of the largest variance: a thousandth of the largest standard deviation


def rank_me(features: Tensor) -> float:
    """(N, D) -> the effective rank, from 1 to min(N, D): exp(-Σ p_k log p_k) with p_k = σ_k / Σ_j σ_j + 1e-7, over the
    singular values σ of the features, which are not centred. 0 where all features are 0.

    Garrido et al., "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised Representations by
    Their Rank", ICML 2023 (arXiv:2210.02885), equation 1. They compare runs of one method, not methods.
    """
    values = torch.linalg.svdvals(features.double())
    if not values.any():
        return 0.0
    p = values / values.sum() + EPSILON
    entropy = -(p * p.log()).sum()
    return float(entropy.exp())


def alignment(features: Tensor, others: Tensor) -> float:
    """(N, D) features of two random views of each image -> the mean of |f(x) - f(y)|², with every feature brought to
    length 1; from 0, all views of an image alike, to 4.

    Wang & Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", ICML 2020 (arXiv:2005.10242), section 4.1, with α = 2.
    """
    return float((_of_length_1(features) - _of_length_1(others)).square().sum(dim=1).mean())


def uniformity(features: Tensor) -> float:
    """(N, D) features of different images -> log of the mean over all pairs of exp(-2 |f(x) - f(y)|²), with every
    feature brought to length 1; 0 where all are alike, about -4 where they are spread over the sphere.

    Wang & Isola, ICML 2020, section 4.1, with t = 2.
    """
    return float(torch.pdist(_of_length_1(features)).square().mul(-2).exp().mean().log())


def collapsed_share(features: Tensor) -> float:
    """(N, D) -> of the min(N - 1, D) directions in which so many images can differ, the share in which they hardly do:
    eigenvalues of the features' covariance below 1e-6 of the largest. 1 where all features are alike.

    Jing et al., "Understanding Dimensional Collapse in Contrastive Self-Supervised Learning", ICLR 2022
    (arXiv:2110.09348), section 3: the spectrum whose end is at 0. NOTE: where 0 begins is ours; they plot it.
    """
    centred = features.double() - features.double().mean(dim=0)
    variances = torch.linalg.svdvals(centred).square()[: len(features) - 1]
    return float((variances <= COLLAPSED * variances.max()).double().mean())


def _of_length_1(features: Tensor) -> Tensor:
    return F.normalize(features.double())
