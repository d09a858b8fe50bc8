"""Contrastive losses over batches larger than memory: a gradient cache (Gao et al., "Scaling Deep Contrastive Learning
Batch Size under Memory Limited Setup", RepL4NLP 2021, arXiv:2101.06983).

A batch is encoded a chunk at a time, and nothing is kept of a chunk but its codes. The loss is one of all codes. When
its gradient comes back, each chunk is encoded again, with the random numbers that it had, for its part of the gradient.
This costs one more forward pass.

The gradient is that of the whole batch where a row's code depends on no other row, as with GroupNorm, or on none beyond
its chunk, as with BatchNorm over groups that lie within chunks. BatchNorm over more, all images or a process's own,
takes a chunk's statistics instead; plan and record say so (benchmark.method.Method.depends_on_processes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmark.blocks.running_statistics import running_statistics_kept, running_statistics_of_part
from benchmark.core.bounds import Count
from benchmark.core.errors import UserError
from benchmark.core.groups import layers_over_groups
from benchmark.core.plain import later
from benchmark.recipe.contract import Settings


@dataclass(frozen=True)
class ChunkSettings(Settings):
    """chunk: images, views or patches that each process encodes at a time; None is all. PIRL's are images with all
    their patches. The method says the same as `Method.chunk`."""

    chunk: Count | None = later(None)


def features_in_chunks(backbone: Any, pixels: Tensor, chunk: int | None, rows: int = 1) -> Tensor:
    """Images as a batch has them, uint8 (B, 3, H, W), -> the backbone's output for each, (B, channels), by way of at
    most `chunk` at a time. backbone: a benchmark.backbones.contract.Backbone. rows: of pixels that are one
    image, of which `chunk` are then encoded at a time."""

    def features(part: Tensor) -> Tensor:
        x = backbone.input.prepare(part)
        return backbone(x.contiguous(memory_format=torch.channels_last))

    return encoded_in_chunks(backbone, features, pixels, chunk, rows)


def encoded_in_chunks(
    network: nn.Module, encode: Callable[[Tensor], Tensor], x: Tensor, chunk: int | None, rows: int = 1
) -> Tensor:
    """encode(x) for x (B, ...), by way of at most `chunk` images at a time; None is all of them. network: what `encode`
    runs, whose running statistics then move once, by the mean over chunks. rows: how many consecutive rows of x are one
    image, such as its patches. Raises UserError where chunks would not be of one size."""

    grouped, images = layers_over_groups(network), len(x) // rows

    def encode_part(part: Tensor) -> Tensor:  # backward runs it again
        with _rows_of_each_image(grouped, rows):
            return encode(part)

    if chunk is None or chunk >= images:
        return encode_part(x)
    if images % chunk:
        raise UserError(
            f"{images} images or views on each process cannot be divided into chunks of {chunk}: set "
            "--recipe.method.chunk to a number that divides them, or --recipe.batch-size"
        )
    for layer in grouped:
        if chunk % layer.over:
            raise UserError(
                f"chunks of {chunk} are no number of BatchNorm's groups of {layer.over}: set --recipe.method.chunk to "
                "a multiple of it, or --recipe.backbone.over"
            )

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), running_statistics_kept(network)  # the second pass has no news for them

    codes, parts = [], x.split(chunk * rows)
    for number, part in enumerate(parts):
        with running_statistics_of_part(network, number, len(parts)):
            codes.append(checkpoint(encode_part, part, use_reentrant=False, context_fn=contexts))
    return torch.cat(codes)


@contextmanager
def _rows_of_each_image(layers: list[Any], rows: int) -> Iterator[None]:
    """While the block runs, BatchNorm's groups of n images are groups of n * rows rows."""
    before = [layer.over for layer in layers]
    for layer in layers:
        layer.over *= rows
    try:
        yield
    finally:
        for layer, over in zip(layers, before, strict=True):
            layer.over = over
