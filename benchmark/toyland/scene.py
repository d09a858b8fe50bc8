"""Where things stand: land, town, room and water backgrounds, clutter, and the objects placed among them.

Which texture something has, how it is turned, how large and how strong it is, is drawn anew every time: no texture
belongs to a thing or to a background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmark.toyland.canvas import Canvas, Palette, Texture
from benchmark.toyland.shapes import BRICKS, Shape

# A figure keeps its form: what varies most is what the methods' own augmentations vary. With more tilt, stretch and
# clutter, minutes of training learn nothing of it (docs/toyland.md).
JITTER = 0.04  # of a cell: how far a brick stands out of line
STRETCH = 0.05  # of the figure's width and height
TILT = np.deg2rad(5)
TONES = 0.03  # of the range from black to white: how unlike a figure's bricks are
DARK = (0.05, 0.3)  # the brightness of figures, darker than plain grounds
TEXTURED = 0.15  # the share of things that have a texture
PERIODS = (3.0, 10.0)  # pixels of the finished picture


@dataclass
class Scene:
    """A canvas being painted: its palette, where the ground begins (pixels from the top) and how bright the two halves
    behind the objects are (0…1)."""

    canvas: Canvas
    palette: Palette
    rng: np.random.Generator
    horizon: float
    backdrop: float
    ground: float

    def between(self) -> float:
        """A brightness between the ground's and the backdrop's."""
        return float(self.ground + self.rng.random() * (self.backdrop - self.ground))

    def texture(self, periods: tuple[float, float] = PERIODS) -> Texture | None:
        """Any texture, for a share of what asks."""
        if self.rng.random() > TEXTURED:
            return None
        return Texture.draw(self.rng, float(np.exp(self.rng.uniform(*np.log(periods)))))

    def region(self, value: float, texture: Texture | None = None, step: float = 0.1) -> int:
        """A region of brightness `value`; a texture alternates it with one `step` away."""
        colour = self.palette.colour(self.rng, value)
        other = self.palette.colour(self.rng, value + step) if texture else None
        return self.canvas.region(colour, other, texture)

    def surface(self, value: float, strongest: float = 0.12) -> int:
        """A region of brightness `value` that may have any texture, up to `strongest` lighter or darker."""
        step = float(self.rng.uniform(0.3, 1.0) * strongest * self.rng.choice([-1, 1]))
        return self.region(value, self.texture(), step)


def plain(rng: np.random.Generator, width: int, height: int) -> Scene:
    """A light backdrop, a darker ground, and nothing else."""
    scene = _halves(rng, width, height, rng.uniform(0.75, 0.95), rng.uniform(0.5, 0.65))
    return _painted(scene, scene.region(scene.backdrop), scene.region(scene.ground))


def _landscape(rng: np.random.Generator, width: int, height: int) -> Scene:
    """Darker than a plain one, since things are painted on it, and either half may have a texture."""
    scene = _halves(rng, width, height, rng.uniform(0.62, 0.95), rng.uniform(0.35, 0.58))
    return _painted(scene, scene.surface(scene.backdrop, 0.06), scene.surface(scene.ground, 0.08))


def _halves(rng: np.random.Generator, width: int, height: int, backdrop: float, ground: float) -> Scene:
    return Scene(Canvas(width, height), Palette.draw(rng), rng, height * rng.uniform(0.45, 0.8), backdrop, ground)


def _painted(scene: Scene, backdrop: int, ground: int) -> Scene:
    """With these regions above and below the horizon."""
    right, bottom = scene.canvas.width + 1, scene.canvas.height + 1
    scene.canvas.box(backdrop, -1, -1, right, bottom)
    scene.canvas.box(ground, -1, scene.horizon, right, bottom)
    return scene


def land(rng: np.random.Generator, width: int, height: int) -> Scene:
    """Sky with the odd cloud, hills on the horizon, open ground."""
    scene = _landscape(rng, width, height)
    if rng.random() < 0.6:
        cloud = scene.region(scene.backdrop + 0.06)
        x, y, size = rng.uniform(0, width), rng.uniform(0.05, 0.3) * height, rng.uniform(0.06, 0.12) * height
        for shift in (-1.2, 0.0, 1.3):
            scene.canvas.ellipse(cloud, x + shift * size, y + rng.uniform(-0.3, 0.3) * size, size * 1.3, size * 0.7)
    if rng.random() < 0.7:
        ridge(scene, rng.uniform(0.05, 0.25) * height, (scene.backdrop + scene.ground) / 2)
    return scene


def ridge(scene: Scene, height: float, value: float, points: int = 6) -> None:
    """A line of hills standing on the horizon."""
    xs = np.linspace(-0.05, 1.05, points) * scene.canvas.width
    ys = scene.horizon - height * scene.rng.uniform(0.1, 1.0, points)
    base = [(xs[-1], scene.horizon + 0.5), (xs[0], scene.horizon + 0.5)]
    scene.canvas.fill(scene.surface(value), [*zip(xs, ys, strict=True), *base])


def town(rng: np.random.Generator, width: int, height: int) -> Scene:
    """A row of buildings with windows behind a road."""
    scene = _landscape(rng, width, height)
    buildings(scene, rng.uniform(0.25, 0.6) * height)
    kerb = scene.region(scene.ground + 0.12)
    scene.canvas.box(kerb, -1, scene.horizon, width + 1, scene.horizon + 0.03 * height)
    return scene


def buildings(scene: Scene, height: float) -> None:
    """House fronts along the horizon, up to `height` pixels tall."""
    walls = [scene.region(scene.between()) for _ in range(3)]
    window = scene.region(scene.rng.choice([scene.ground - 0.15, scene.backdrop + 0.05]))
    x = -scene.rng.uniform(0, 0.1) * scene.canvas.width
    number = 0
    while x < scene.canvas.width:
        wide, tall = scene.rng.uniform(0.14, 0.28) * scene.canvas.width, scene.rng.uniform(0.5, 1) * height
        scene.canvas.box(walls[number % 3], x, scene.horizon - tall, x + wide, scene.horizon)
        for row in np.arange(0.12, 0.8, 0.24):
            for column in (0.18, 0.58):
                left, top = x + column * wide, scene.horizon - tall * (1 - row)
                scene.canvas.box(window, left, top, left + 0.22 * wide, top + 0.12 * tall)
        x += wide
        number += 1


def room(rng: np.random.Generator, width: int, height: int) -> Scene:
    """A wall, a skirting board, a floor; perhaps a window or a picture."""
    scene = _landscape(rng, width, height)
    scene.canvas.box(scene.region(scene.backdrop - 0.2), -1, scene.horizon - 0.03 * height, width + 1, scene.horizon)
    if rng.random() < 0.7:
        x, y = rng.uniform(0.05, 0.7) * width, rng.uniform(0.05, 0.15) * height
        w, h = rng.uniform(0.2, 0.35) * width, rng.uniform(0.2, 0.3) * height
        scene.canvas.box(scene.region(scene.ground - 0.1), x, y, x + w, y + h)
        scene.canvas.box(scene.region(scene.backdrop + 0.1), x + 2, y + 2, x + w - 2, y + h - 2)
    return scene


def water(rng: np.random.Generator, width: int, height: int) -> Scene:
    """Sky, perhaps a far shore, water."""
    scene = _landscape(rng, width, height)
    if rng.random() < 0.6:
        ridge(scene, rng.uniform(0.04, 0.15) * height, scene.ground - 0.1)
    return scene


BACKGROUNDS: tuple[Callable[[np.random.Generator, int, int], Scene], ...] = (land, town, room, water)
PLAIN = 0.5  # the share of pictures without one of these, where any may be


def any_background(rng: np.random.Generator, width: int, height: int) -> Scene:
    kinds = (plain,) if rng.random() < PLAIN else BACKGROUNDS
    return kinds[int(rng.integers(len(kinds)))](rng, width, height)


def clutter(scene: Scene, count: int, low: float, high: float) -> None:
    """`count` irregular polygons of no class, their size `low` … `high` of the picture's height."""
    for _ in range(count):
        corners, rng = int(scene.rng.integers(3, 7)), scene.rng
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radii = rng.uniform(0.5, 1, corners) * rng.uniform(low, high) * scene.canvas.height / 2
        centre = rng.uniform(0, scene.canvas.width), rng.uniform(0.3, 1) * scene.canvas.height
        points = np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1) + centre
        scene.canvas.fill(scene.surface(scene.between() + rng.uniform(-0.12, 0.05)), points)


def stand_anywhere(scene: Scene, shape: Shape, cells: tuple[float, float]) -> range:
    """Build a figure where the protocols' central crop keeps most of it, its cells `cells` of the frame's shorter side;
    returns the region numbers it took."""
    rng, width, height = scene.rng, scene.canvas.width, scene.canvas.height
    side = min(width, height)
    cell = rng.uniform(*cells) * side
    wide, high = shape.width * cell, shape.height * cell
    x = width / 2 + rng.uniform(-1, 1) * max(0.46 * side - wide / 2, 0.03 * side)
    y = (height + high) / 2 + rng.uniform(-1, 1) * max(0.46 * side - high / 2, 0.03 * side)
    return stand(scene, shape, x, y, cell)


def stand(scene: Scene, shape: Shape, x: float, y: float, cell: float, turn: float = 0.0) -> range:
    """Build a figure with its feet at (x, y), its cells `cell` pixels wide; returns the region numbers it took.

    turn: by so many radians about its feet. The way it faces, its tones and its texture are random each time, its
    proportions and its tilt a little, and its bricks do not stand quite in line. Textures grow with the figure, and are
    turned anyhow.
    """
    to_pixels = proportions(scene.rng, turn) * (cell, -cell)
    return build(scene, shape, lambda points: points @ to_pixels + (x, y), cell)


def proportions(rng: np.random.Generator, turn: float = 0.0) -> np.ndarray:
    """(2, 2): from a figure's own cells to how it stands before the viewer, in cells."""
    stretch = np.exp(rng.uniform(-STRETCH, STRETCH, 2)) * (rng.choice([-1.0, 1.0]), 1.0)
    return _turned(rng.uniform(-TILT, TILT) + turn) * stretch[:, None]


def build(
    scene: Scene, shape: Shape, to_pixels: Callable[[np.ndarray], np.ndarray], cell: float, light: float = 1.0
) -> range:
    """Lay a figure's bricks where `to_pixels` puts their corners, (n, 2) in cells -> (n, 2); returns the region numbers
    it took. cell: pixels, about; textures grow with it. light: its brightness is multiplied by this."""
    rng = scene.rng
    value, brick = float(rng.uniform(*DARK)), BRICKS[shape.brick]
    texture, step = scene.texture((0.25 * cell, 0.8 * cell)), float(rng.uniform(0.08, 0.26))
    places = shape.cells + rng.uniform(-JITTER, JITTER, shape.cells.shape)
    regions = []
    for place in places:
        regions.append(scene.region((value + rng.uniform(-TONES, TONES)) * light, texture, step))
        scene.canvas.fill(regions[-1], to_pixels(brick + place))
    return range(regions[0], regions[-1] + 1)


def _turned(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
