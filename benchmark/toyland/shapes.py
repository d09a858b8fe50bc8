"""What things look like: every object is a few polygons with tones, in its own coordinates.

Objects differ in outline, parts and texture, never in colour: a picture has one tint whatever it shows. The coordinates
have x to the right and y up, feet at y = 0; every object is normalised so that the longer side of its box is 1. A tone
says how much lighter (up to 1) or darker (down to -1) a part is than the object. Parts with a strong tone are plain;
the others have the object's texture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PLAIN_FROM = 0.5  # parts with a tone at least this strong have no texture: windows, wheels, eyes, legs
_ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)


@dataclass(frozen=True)
class Polygon:
    """points: (n, 2) float32 polygon; tone: -1 dark … 1 light."""

    points: np.ndarray
    tone: float

    @property
    def plain(self) -> bool:
        return abs(self.tone) >= PLAIN_FROM


@dataclass(frozen=True)
class Shape:
    """name, parts from back to front, and the texture of the parts that are not plain."""

    name: str
    parts: tuple[Polygon, ...]
    texture: str


def poly(tone: float, *coordinates: float) -> Polygon:
    """A polygon from x0, y0, x1, y1, …"""
    return Polygon(np.array(coordinates, dtype=np.float32).reshape(-1, 2), tone)


def box(tone: float, x0: float, y0: float, x1: float, y1: float) -> Polygon:
    return poly(tone, x0, y0, x1, y0, x1, y1, x0, y1)


def disc(tone: float, x: float, y: float, rx: float, ry: float | None = None) -> Polygon:
    """An ellipse, or a circle if there is no `ry`."""
    points = np.stack([x + rx * np.cos(_ANGLES), y + (rx if ry is None else ry) * np.sin(_ANGLES)], axis=1)
    return Polygon(points.astype(np.float32), tone)


def dome(tone: float, x: float, y: float, rx: float, ry: float) -> Polygon:
    """The upper half of an ellipse."""
    angles = np.linspace(0, np.pi, 11)
    points = np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)
    return Polygon(points.astype(np.float32), tone)


def bar(tone: float, x0: float, y0: float, x1: float, y1: float, width: float) -> Polygon:
    """A thick line."""
    start, end = np.array([x0, y0]), np.array([x1, y1])
    along = (end - start) / np.linalg.norm(end - start)
    side = np.array([-along[1], along[0]]) * width / 2
    return Polygon(np.stack([start + side, end + side, end - side, start - side]).astype(np.float32), tone)


def ring(tone: float, x: float, y: float, radius: float, width: float) -> Polygon:
    """A hoop that you can see through: outer circle, then inner circle backwards, as one outline."""
    angles = np.linspace(0, 2 * np.pi, 19)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.array([x, y]) + np.concatenate([circle * radius, circle[::-1] * (radius - width)])
    return Polygon(points.astype(np.float32), tone)


def petals(tone: float, x: float, y: float, count: int, length: float, width: float) -> tuple[Polygon, ...]:
    """Leaves or petals around a centre."""
    parts = []
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False) + np.pi / 2:
        out, side = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        outline = [0 * out, 0.6 * length * out + width * side, length * out, 0.6 * length * out - width * side]
        parts.append(Polygon((np.array([x, y]) + np.stack(outline)).astype(np.float32), tone))
    return tuple(parts)


def normalised(name: str, parts: Sequence[Polygon], texture: str) -> Shape:
    """Feet on y = 0, centred on x = 0, longer side 1."""
    points = np.concatenate([part.points for part in parts])
    low, high = points.min(axis=0), points.max(axis=0)
    origin = np.array([(low[0] + high[0]) / 2, low[1]], dtype=np.float32)
    size = float((high - low).max())
    return Shape(name, tuple(Polygon((part.points - origin) / size, part.tone) for part in parts), texture)
