"""What networks that solve jigsaw puzzles share: tiles of equal light and contrast, and the layers above nine tiles."""

from __future__ import annotations

from torch import Tensor, nn

from benchmark.blocks.permutations import TILES


def standardised_each(x: Tensor, std: float = 50.0) -> Tensor:
    """(B, 3, H, W) -> each image of mean 0 and such a standard deviation over all its numbers, so that light and
    contrast tell nothing of where a tile was."""
    x = x - x.mean(dim=(1, 2, 3), keepdim=True)
    return std * x / x.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1.0)


class PuzzleHead(nn.Module):
    """fc7 and fc8 of the context-free network (Noroozi & Favaro, ECCV 2016): codes of the nine tiles of each puzzle,
    one after the other, (9 B, features) -> what each of the permutations scores, (B, permutations)."""

    def __init__(self, features: int, hidden: int, permutations: int, dropout: float) -> None:
        super().__init__()
        self.fc7, self.fc8 = nn.Linear(TILES * features, hidden), nn.Linear(hidden, permutations)
        self.relu, self.dropout = nn.ReLU(), nn.Dropout(dropout)
        nn.init.ones_(self.fc7.bias)  # as in Caffe's AlexNet: every unit is on at the start
        nn.init.zeros_(self.fc8.bias)

    def forward(self, codes: Tensor) -> Tensor:
        side_by_side = codes.unflatten(0, (-1, TILES)).flatten(1)
        return self.fc8(self.dropout(self.relu(self.fc7(side_by_side))))
