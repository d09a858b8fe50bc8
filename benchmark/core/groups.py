"""Which BatchNorm layers take their statistics over groups of so many images (benchmark.backbones.norms)."""

from __future__ import annotations

from typing import Any

from torch import nn


def layers_over_groups(module: nn.Module) -> list[Any]:
    """Those of the module whose `over` is a number of images."""
    return [layer for layer in module.modules() if group_size(layer)]


def group_size(normalised: object) -> int | None:
    """How many images a BatchNorm layer, or a backbone's settings, take statistics over, if over groups."""
    over = getattr(normalised, "over", None)
    return over if isinstance(over, int) else None
