"""Predicting rows of a grid of patches from the rows above them, as contrastive predictive coding does."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from benchmark.blocks.accuracy import share_right
from benchmark.core import distributed
from benchmark.core.errors import UserError


class RowContext(nn.Module):
    """c of z, each (B, dim, H, W): what a cell's own row and those above it say together, as in a PixelCNN (van den
    Oord et al., arXiv:1606.05328). The layers are those of Henaff et al. (arXiv:1905.09272), appendix A.

    hidden: channels of a layer. layers: each sees one row further up, and one column further to either side.
    """

    def __init__(self, dim: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(RowLayer(dim, hidden) for _ in range(layers))

    def forward(self, z: Tensor) -> Tensor:
        c = z
        for layer in self.layers:
            c = c + layer(c)
        return c.relu()


class RowLayer(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.into, self.out = nn.Conv2d(dim, hidden, 1), nn.Conv2d(hidden, dim, 1)
        self.along = nn.Conv2d(hidden, hidden, (1, 3), padding=(0, 1))  # the row
        self.down = nn.Conv2d(hidden, hidden, (2, 1))  # from the row above

    def forward(self, x: Tensor) -> Tensor:
        x = self.along(self.into(x).relu())
        return self.out(self.down(pad(x, (0, 0, 1, 0))).relu())  # an empty row above the first: no row moves up


def rows_below(first: int, last: int, rows: int) -> range:
    """The k that are predicted in a grid of so many rows. Raises UserError for those that lie outside of it."""
    if not first <= last < rows:
        raise UserError(
            f"what is predicted lies {first} to {last} rows below, and the grid has {rows} rows: set "
            "--recipe.method.k-first and --recipe.method.k-last, or cut more patches"
        )
    return range(first, last + 1)


def row_info_nce(predicted: Tensor, z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """InfoNCE of what is predicted k rows below each cell: (the mean over cells that have such a row, the share of them
    whose own patch scores highest), scalars.

    predicted, z: (B, D, H, W), at each cell what is predicted k rows below it, and what is there. The negatives are all
    other patches of all images on all processes: of the same image, and of the others.
    """
    with torch.autocast(z.device.type, enabled=False):  # bf16 is too coarse under exp
        wide = torch.promote_types(z.dtype, torch.float32)
        B, _, H, W = z.shape
        every = distributed.gather(_as_rows(z.to(wide)), gradient=True)  # (N H W, D)
        scores = _as_rows(predicted[:, :, : H - k].to(wide)) @ every.T  # (B (H - k) W, N H W)
        place = torch.arange(B * H * W, device=z.device).view(B, H, W) + distributed.rank() * B * H * W
        own = place[:, k:].flatten()
        return cross_entropy(scores, own), share_right(scores, own)


def _as_rows(x: Tensor) -> Tensor:
    """(B, D, H, W) -> (B H W, D)"""
    return x.permute(0, 2, 3, 1).flatten(0, 2)
