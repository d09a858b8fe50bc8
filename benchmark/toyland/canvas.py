"""A canvas of numbered regions: polygons are filled with numbers first, colours and textures are looked up at the end.

Filling numbers instead of colours gives every object its exact visible mask for free, and turns a texture into one more
bit of the number.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Ink = tuple[int, int, int]

OVERSAMPLING = 2  # drawn this much larger, then averaged down, for smooth edges
MAX_REGIONS = 128  # the eighth bit of a pixel says which of a region's two colours its texture picks
MAX_SIDE = 200  # pixels of a canvas
TILE, TILE_PERIOD = 128, 32  # samples of a texture's tile, and of one period in it
BLUR = 1.0  # pixels: not every picture is equally sharp
NOISE_SIGMA = (3.0, 4.0)  # of 255, from picture to picture


@dataclass(frozen=True)
class Palette:
    """The colours of one picture: a single tint, so that colour says nothing about what is shown.

    hue and spread in turns (0…1); saturation 0…1.
    """

    hue: float
    saturation: float
    spread: float = 0.04

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Palette:
        return cls(hue=float(rng.random()), saturation=float(rng.uniform(0.15, 0.55)))

    def colour(self, rng: np.random.Generator, value: float) -> Ink:
        """A colour of brightness `value` (0…1) near the picture's tint."""
        shift, vividness = rng.random(2)
        hue = (self.hue + (shift - 0.5) * self.spread) % 1.0
        saturation = min(1.0, self.saturation * (0.9 + 0.2 * vividness))
        r, g, b = colorsys.hsv_to_rgb(hue, saturation, min(max(value, 0.05), 0.98))
        return int(r * 255), int(g * 255), int(b * 255)


@dataclass(frozen=True)
class Texture:
    """A pattern as it lies on one thing. angle: radians from upright. period: pixels of the finished picture. The
    pattern's origin is shifted by `offset` (x, y; shares of a tile)."""

    kind: str
    angle: float
    period: float
    offset: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator, period: float) -> Texture:
        """Any pattern, turned anyhow, whatever it lies on."""
        kind = list(_TILES)[int(rng.integers(len(_TILES)))]
        return cls(kind, float(rng.uniform(0, 2 * np.pi)), period, (float(rng.random()), float(rng.random())))

    def bits(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """0 or 1 at every point (x, y), in oversampled pixels."""
        scale = TILE_PERIOD / (self.period * OVERSAMPLING)
        across, down = np.float32(scale * np.cos(self.angle)), np.float32(scale * np.sin(self.angle))
        u = (x * across + y * down + np.float32((2 + self.offset[0]) * TILE)).astype(np.int32) & (TILE - 1)
        v = (y * across - x * down + np.float32((2 + self.offset[1]) * TILE)).astype(np.int32) & (TILE - 1)
        return _TILES[self.kind][v, u]


def _texture_tiles() -> dict[str, np.ndarray]:
    """kind → (TILE, TILE) uint8 of 0 and 1; every period divides TILE, so tiles wrap."""
    y, x = np.mgrid[0:TILE, 0:TILE]
    period, half = TILE_PERIOD, TILE_PERIOD // 2
    row = y // period
    dx, dy = (x + row % 2 * half) % period - half + 0.5, y % period - half + 0.5
    specks = np.random.default_rng(0).random((TILE // 8, TILE // 8)) < 0.3
    tiles = {
        "stripes": y % period < half,
        "checks": (x // half + y // half) % 2 == 0,
        "dots": dx**2 + dy**2 < (0.32 * period) ** 2,
        "bricks": (y % period < 0.2 * period) | ((x + row % 2 * period) % (2 * period) < 0.2 * period),
        "planks": x % period < 0.25 * period,
        "ripples": (y + np.rint(0.25 * period * np.sin(2 * np.pi * x / (2 * period))).astype(int)) % period < half,
        "specks": specks.repeat(8, axis=0).repeat(8, axis=1),
    }
    return {name: tile.astype(np.uint8) for name, tile in tiles.items()}


_TILES = _texture_tiles()
# one field for all pictures, each at a place of its own: to draw one anew would take longer than the picture
_NOISE = np.random.default_rng(1).normal(0, 1, (2 * MAX_SIDE, 2 * MAX_SIDE, 3)).astype(np.float32)


class Canvas:
    """Filled in painter's order; coordinates are pixels of the finished picture, x right, y down."""

    def __init__(self, width: int, height: int) -> None:
        if max(width, height) > MAX_SIDE:
            raise ValueError(f"a canvas has at most {MAX_SIDE} pixels a side")
        self.width, self.height = width, height
        self._image = Image.new("L", (width * OVERSAMPLING, height * OVERSAMPLING), 0)
        self._draw = ImageDraw.Draw(self._image)
        self._flat: list[Ink] = []
        self._other: list[Ink] = []
        self._textures: list[Texture | None] = []

    def region(self, colour: Ink, other: Ink | None = None, texture: Texture | None = None) -> int:
        """A new region number. `texture` alternates `colour` with `other`."""
        if len(self._flat) == MAX_REGIONS:
            raise ValueError(f"a canvas holds at most {MAX_REGIONS} regions")
        self._flat.append(colour)
        self._other.append(colour if other is None else other)
        self._textures.append(texture)
        return len(self._flat) - 1

    def fill(self, region: int, points: np.ndarray | Iterable[tuple[float, float]]) -> None:
        """Fill a polygon, points (n, 2)."""
        scaled = np.asarray(points, dtype=np.float32) * OVERSAMPLING
        self._draw.polygon(scaled.ravel().tolist(), fill=region)

    def box(self, region: int, x0: float, y0: float, x1: float, y1: float) -> None:
        self.fill(region, ((x0, y0), (x1, y0), (x1, y1), (x0, y1)))

    def ellipse(self, region: int, x: float, y: float, rx: float, ry: float) -> None:
        corners = np.array([x - rx, y - ry, x + rx, y + ry]) * OVERSAMPLING
        self._draw.ellipse(corners.tolist(), fill=region)

    def regions(self) -> np.ndarray:
        """(height, width) uint8: the region number at every pixel of the finished picture."""
        return np.asarray(self._image)[::OVERSAMPLING, ::OVERSAMPLING]

    def finish(self, rng: np.random.Generator) -> Image.Image:
        """A photograph, as RGB: out of focus by a little, a lighting gradient, sensor noise."""
        focus = self.render().filter(ImageFilter.BoxBlur(float(rng.uniform(0, BLUR))))
        return Image.fromarray(_light_and_noise(np.asarray(focus, dtype=np.float32), rng))

    def render(self) -> Image.Image:
        """The picture as RGB: textures, and averaging down."""
        numbers = np.array(self._image)
        for texture in dict.fromkeys(texture for texture in self._textures if texture):
            marked = np.zeros(256, dtype=bool)
            marked[: len(self._textures)] = [other == texture for other in self._textures]
            ys, xs = np.nonzero(marked[numbers])
            numbers[ys, xs] |= MAX_REGIONS * texture.bits(xs.astype(np.float32), ys.astype(np.float32))
        colours = np.zeros((2, MAX_REGIONS, 3), dtype=np.uint8)
        colours[0, : len(self._flat)] = self._flat
        colours[1, : len(self._other)] = self._other
        picture = Image.fromarray(numbers)
        picture.putpalette(colours.tobytes())
        return picture.convert("RGB").reduce(OVERSAMPLING)


def _light_and_noise(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) float → uint8. The light comes from above and from the left or the right, never from below."""
    height, width, _ = pixels.shape
    sideways, downwards = rng.uniform(-0.25, 0.25), rng.uniform(0.0, 0.3)
    light = 1.05 + sideways * np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :, None]
    light = light - downwards * np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None, None]
    x, y = rng.integers(2 * MAX_SIDE - width), rng.integers(2 * MAX_SIDE - height)
    noise = _NOISE[y : y + height, x : x + width] * np.float32(rng.uniform(*NOISE_SIGMA))
    return np.clip(pixels * light + noise, 0, 255).astype(np.uint8)
