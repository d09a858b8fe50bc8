"""How often a classifier is right, for the log."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def share_right(logits: Tensor, y: Tensor) -> Tensor:
    """(B, classes) and the true classes (B,) -> the share of rows whose highest score is the true class's."""
    return (logits.argmax(dim=1) == y).float().mean()
