"""A memory bank: one feature per pretraining image, an exponential moving average (Wu et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from benchmark.blocks.chunks import ChunkSettings
from benchmark.blocks.running_statistics import as_in_training
from benchmark.core import distributed
from benchmark.core.bounds import Probability
from benchmark.core.draws import mix, uniform_integers
from benchmark.core.errors import UserError
from benchmark.core.streams import Stream
from benchmark.data.batch import Batch

Rows = tuple[Tensor, Tensor]  # image indices (B,), features (B, ...)

ROWS_PER_DRAW = 1 << 14
GATHERED_ROWS = 1 << 20  # the most rows a sharded bank gathers at once: 512 MiB at 128 dimensions


@dataclass(frozen=True)
class BankSettings(ChunkSettings):
    """Settings of a method with a bank.

    bank_momentum: of the moving average. bank_init: unit vectors at random, or the images' features before the first
    step. sharded_bank: see MemoryBank.
    """

    bank_momentum: Probability = 0.5
    bank_init: Literal["random", "features"] = "random"
    sharded_bank: bool = False

    def bank(self, num_images: int, dim: int, number: int = 0) -> MemoryBank:
        return MemoryBank(num_images, dim, self.bank_momentum, self.sharded_bank, number)

    def first_rows(
        self, method: nn.Module, embed: Callable[[Batch], Tensor], embed_all: Callable[..., Iterator[Rows]]
    ) -> Iterator[Rows]:
        """For `Method.prepare`, what to fill the bank with: batches of (index (B,), embed(batch)) of all images, each
        by its batch's own statistics; none where the rows stay random."""
        if self.bank_init == "features":
            yield from embed_all(as_in_training(method, embed))


class MemoryBank(nn.Module):
    """rows: (num_images, dim) float32, each of unit length.

    sharded=True keeps only ceil(num_images / processes) consecutive rows on each process: 95 million rows of 128 take
    49 GB whole, or 6 GB on each of 8. Scores and updates are the same either way; only communication is added.
    number: of the banks of one method, each starts with rows of its own.
    """

    rows: Tensor

    def __init__(
        self, num_images: int, dim: int = 128, momentum: float = 0.5, sharded: bool = False, number: int = 0
    ) -> None:
        super().__init__()
        self.num_images, self.momentum, self.sharded = num_images, momentum, sharded
        self.share = -(-num_images // distributed.world_size()) if sharded else num_images
        self.start = self.share * distributed.rank() if sharded else 0
        self.divided = ("rows",) if sharded else ()
        self.register_buffer("rows", _random_rows(self.start, self.share, dim, number))

    def negatives(self, index: Tensor, count: int, seed: int) -> Tensor:
        """(B,) image indices -> (B, count) indices of other images, uniform with repetition, never the image itself.
        Raises UserError for a bank of one image."""
        if self.num_images < 2:
            raise UserError("the negatives of an image are others, and there is one image alone: add images")
        drawn = uniform_integers(seed, index, count, self.num_images - 1)
        return drawn + (drawn >= index[:, None])

    def own_and_others(self, v: Tensor, index: Tensor, count: int, seed: int) -> Tensor:
        """v (B, Q, D), index (B,) -> (B, Q, 1 + count) scores with the rows of the image itself and then of its
        negatives, the same for all its queries."""
        others = self.negatives(index, count, seed)
        with torch.autocast(v.device.type, enabled=False):
            return self.scores(v, torch.cat([index[:, None], others], dim=1))

    def scores(self, v: Tensor, index: Tensor) -> Tensor:
        """v (B, Q, D), index (B, N) -> (B, Q, N) inner products of each query with its own N rows. No gradient reaches
        the rows."""
        if self.sharded and distributed.world_size() > 1:
            return _ShardedScores.apply(v, index, self)
        if dense_is_cheaper(self.num_images, v.shape, index.shape[1]):
            every = v @ self.rows.T.detach()  # (B, Q, num_images)
            return every.gather(2, index[:, None, :].expand(-1, v.shape[1], -1))
        return v @ self.rows[index].detach().transpose(1, 2)  # (B, Q, D) @ (B, D, N)

    @torch.no_grad()
    def update(self, index: Tensor, v: Tensor) -> None:
        """rows[index] <- unit(momentum * rows[index] + (1 - momentum) * v) for the images of all processes.
        v (B, D) of unit length; if an image is in a batch twice, either row may win."""
        index, v = distributed.gather(index), distributed.gather(v.detach().float())
        mine = self._is_here(index)
        local = index[mine] - self.start
        mixed = self.momentum * self.rows[local] + (1 - self.momentum) * v[mine]
        self.rows[local] = normalize(mixed, dim=1)

    @torch.no_grad()
    def fill(self, features: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set rows from batches of (index (B,), features (B, D)); each process keeps those of its own rows."""
        for index, v in features:
            mine = self._is_here(index)
            self.rows[index[mine] - self.start] = normalize(v[mine], dim=1)

    def _is_here(self, index: Tensor) -> Tensor:
        return (index >= self.start) & (index < self.start + self.share)

    def local_scores(self, v: Tensor, index: Tensor) -> Tensor:
        """Like `scores` for the rows that this process holds, 0 for the others."""
        parts = [(v[k] @ rows.transpose(1, 2)) * mine for k, rows, mine in self._owned(index)]
        return torch.cat(parts)

    def local_gradient(self, gradient: Tensor, index: Tensor) -> Tensor:
        """gradient (B, Q, N) of the scores -> (B, Q, D) of the queries, from the rows that this process holds."""
        return torch.cat([(gradient[k] * mine) @ rows for k, rows, mine in self._owned(index)])

    def _owned(self, index: Tensor) -> Any:
        size = max(GATHERED_ROWS // index.shape[1], 1)
        for first in range(0, len(index), size):
            chunk = slice(first, first + size)
            local = index[chunk] - self.start
            mine = (local >= 0) & (local < self.share)
            yield chunk, self.rows[local.clamp(0, self.share - 1)], mine[:, None, :]


def dense_is_cheaper(num_images: int, v_shape: Sequence[int], N: int) -> bool:
    """Whether one product with all rows moves less memory than gathering B x N of them, forward and backward together.

    All rows are read twice, and the scores of all written and read, then their gradients. Gathered rows are read where
    they lie, written, and read twice. On two CPU cores the times crossed between 22 and 55 rows a negative for 16
    queries (this rule: 26), and between 36 and 43 for 64 pairs of them (43). Not measured on a GPU.
    """
    B, Q, D = v_shape
    return num_images * (2 * D + 4 * B * Q) <= 4 * B * N * D


class _ShardedScores(torch.autograd.Function):
    """Each process scores every query against the rows it holds; the sum over processes is the score."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, index: Tensor, bank: MemoryBank) -> Tensor:
        ctx.bank, ctx.index = bank, distributed.gather(index)
        scores = bank.local_scores(distributed.gather(v), ctx.index)
        return distributed.own_share(distributed.sum_over_processes(scores))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = ctx.bank.local_gradient(distributed.gather(gradients[0]), ctx.index)
        return distributed.own_share(distributed.sum_over_processes(gradient)), None, None


def _random_rows(start: int, share: int, dim: int, number: int) -> Tensor:
    """Rows start … start + share, of unit length, of an endless random matrix. It depends on the run's seed and the
    bank's number alone, not on how it is divided among processes."""
    rows = torch.empty(share, dim)
    seed = mix(torch.initial_seed(), Stream.BANK, number) if number else torch.initial_seed()
    if rows.is_meta:
        return rows
    for block in range(start // ROWS_PER_DRAW, -(-(start + share) // ROWS_PER_DRAW)):
        generator = torch.Generator(rows.device).manual_seed(mix(seed, block))
        drawn = torch.empty(ROWS_PER_DRAW, dim).uniform_(-1, 1, generator=generator)
        first = max(start, block * ROWS_PER_DRAW)
        last = min(start + share, (block + 1) * ROWS_PER_DRAW)
        rows[first - start : last - start] = drawn[first - block * ROWS_PER_DRAW : last - block * ROWS_PER_DRAW]
    return normalize(rows, dim=1)
