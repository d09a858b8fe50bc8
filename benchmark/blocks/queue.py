"""A queue of keys: the last ones are the negatives (He et al., CVPR 2020, arXiv:1911.05722, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from benchmark.core import distributed


class KeyQueue(nn.Module):
    """First in, first out. keys: (K, dim) float32 of unit length, at first random ones. oldest: (), the row that the
    next key overwrites. Any K will do: less than a batch too, and what no batch divides."""

    keys: Tensor
    oldest: Tensor

    def __init__(self, K: int, dim: int = 128) -> None:
        super().__init__()
        self.register_buffer("keys", normalize(torch.randn(K, dim), dim=1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))

    def scores(self, q: Tensor) -> Tensor:
        """q (B, dim) -> (B, K) inner products with all keys, in no particular order. No gradient reaches the keys."""
        return q @ self.keys.T

    @torch.no_grad()
    def put(self, k: Tensor) -> None:
        """Take in the keys (B, dim) of every process, in the order of the batch, and forget as many of the oldest. To
        be called after the last `yield` of `losses`: the backward pass still needs the keys as they were."""
        k = distributed.gather(k.detach().float())  # (processes * B, dim)
        K, count = len(self.keys), len(k)
        kept = k[-K:]  # a batch may be larger than the queue
        rows = (self.oldest + count - len(kept) + torch.arange(len(kept), device=k.device)) % K
        self.keys[rows] = kept
        self.oldest.copy_((self.oldest + count) % K)
