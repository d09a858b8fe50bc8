"""What things look like: every thing is a figure of eight bricks, and only where they stand tells what it is.

Tones, textures and sizes are left to chance. The kind of bricks tells no more than a family, as five or more objects
share it. So edges and corners in small patches say which family a picture shows at most: within one all look alike.
Coordinates have x to the right and y up, feet at y = 0, and the middle at x = 0; a brick's cell is 1 wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_GAP = 0.04


def _circle(first: float, last: float, corners: int) -> np.ndarray:
    angles = np.linspace(first, last, corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * 0.5


_OUTLINES = {
    "square": np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]),
    "disc": _circle(0, 2 * np.pi, 17),
    "triangle": np.array([(-0.5, -0.5), (0.5, -0.5), (0.0, 0.5)]),
    "dome": np.concatenate([_circle(0, np.pi, 9) * (1, 2) - (0, 0.5)]),
}
BRICKS = {kind: (outline * (1 - 2 * _GAP)).astype(np.float32) for kind, outline in _OUTLINES.items()}


@dataclass(frozen=True)
class Shape:
    """name; brick: the kind of its bricks; cells: (8, 2) float32, their middles; width and height in cells."""

    name: str
    brick: str
    cells: np.ndarray
    width: int
    height: int


def in_families(plans: Mapping[str, str], size: int) -> dict[str, Shape]:
    """name -> shape; each `size` plans in a row are a family, which shares a kind of brick."""
    kinds = list(BRICKS)
    return {name: built(name, kinds[number // size], plan) for number, (name, plan) in enumerate(plans.items())}


def built(name: str, brick: str, plan: str) -> Shape:
    """The shape of a plan: its rows, upper one first, separated by blanks."""
    rows = plan.split()
    width, height = len(rows[0]), len(rows)
    cells = [
        (column + 0.5 - width / 2, height - row - 0.5)
        for row, line in enumerate(rows)
        for column, brick in enumerate(line)
        if brick == "#"
    ]
    return Shape(name, brick, np.array(cells, dtype=np.float32), width, height)
