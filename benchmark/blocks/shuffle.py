"""Shuffled BatchNorm (He et al., "Momentum Contrast", CVPR 2020, arXiv:1911.05722, section 3.3).

Where a query and its key lie in one group of images with shared statistics, these tell which key belongs to it. So keys
are encoded in another order: by the processes of others, or with `BatchNorm2d(over=32)` in other groups of one process.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from benchmark.core import distributed
from benchmark.core.draws import mix, permutation
from benchmark.core.streams import Stream


def encoded_in_other_order(encode: Callable[[Tensor], Tensor], x: Tensor, seed: int) -> Tensor:
    """encode(x) for this process's x (B, ...), with its gradient if it has one; call it under torch.no_grad() if no
    loss trains what encodes the keys. The rows of all processes change places as `seed` says (batch.seed: the same on
    all of them), are encoded, and change back. Raises ValueError where `encode` does not give a row for each row: rows
    of others would come back."""
    every = distributed.gather(x)  # (processes * B, ...)
    order = permutation(len(every), mix(seed, Stream.SHUFFLE)).to(x.device)
    k = encode(distributed.own_share(every[order]))
    if k.shape[:1] != x.shape[:1]:
        raise ValueError(
            f"a shuffle needs one output row per input row: {len(x)} images were encoded as {tuple(k.shape)}"
        )
    return distributed.own_share(distributed.gather(k, gradient=k.requires_grad)[order.argsort()])
