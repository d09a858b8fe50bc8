"""What things look like: every thing is a figure of eight bricks, and only where they stand tells what it is.

Bricks of several kinds are at hand; which one a picture's figure is built of is left to chance, as are tones, textures
and sizes. So no brick, edge, corner or tone says what a picture shows: small patches look alike whatever it shows.
Coordinates have x to the right and y up, feet at y = 0, and the middle at x = 0; a brick's cell is 1 wide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_GAP = 0.04


def _circle(first: float, last: float, corners: int) -> np.ndarray:
    angles = np.linspace(first, last, corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * 0.5


_OUTLINES = {
    "square": np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]),
    "disc": _circle(0, 2 * np.pi, 17),
    "dome": np.concatenate([_circle(0, np.pi, 9) * (1, 2) - (0, 0.5)]),
    "hexagon": _circle(0, 2 * np.pi, 7),
}
BRICKS: tuple[np.ndarray, ...] = tuple((outline * (1 - 2 * _GAP)).astype(np.float32) for outline in _OUTLINES.values())


@dataclass(frozen=True)
class Shape:
    """name; cells: (8, 2) float32, the middle of every brick; width and height in cells."""

    name: str
    cells: np.ndarray
    width: int
    height: int


def built(name: str, plan: str) -> Shape:
    """The shape of a plan: its rows, upper one first, separated by blanks."""
    rows = plan.split()
    width, height = len(rows[0]), len(rows)
    cells = [
        (column + 0.5 - width / 2, height - row - 0.5)
        for row, line in enumerate(rows)
        for column, brick in enumerate(line)
        if brick == "#"
    ]
    return Shape(name, np.array(cells, dtype=np.float32), width, height)
