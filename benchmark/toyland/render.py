"""One picture of each kind: a single object, a crowd with boxes and masks, a place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from benchmark.toyland.canvas import Canvas
from benchmark.toyland.catalogue import OBJECTS
from benchmark.toyland.places import PLACES, place
from benchmark.toyland.scene import BACKGROUNDS, Scene, clutter, land, stand
from benchmark.toyland.shapes import Shape


@dataclass(frozen=True)
class Instance:
    """One object in a picture.

    mask: (H, W) bool, its visible pixels. visible: the share of its painted pixels that nothing covers, 0…1.
    truncated: whether it touches the picture's edge.
    """

    name: str
    mask: np.ndarray
    visible: float
    truncated: bool

    def box(self) -> tuple[int, int, int, int]:
        """xmin, ymin, xmax, ymax of the visible pixels: 0-based, inclusive."""
        ys, xs = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        return int(xs[0]), int(ys[0]), int(xs[-1]), int(ys[-1])


def single(rng: np.random.Generator, shape: Shape, width: int, height: int) -> tuple[Image.Image, Instance]:
    """One object filling .62 … .95 of the frame, among clutter."""
    scene = land(rng, width, height)
    clutter(scene, int(rng.integers(3, 7)), 0.15, 0.45)
    size = rng.uniform(0.62, 0.95) * min(width, height)
    x = width / 2 + rng.uniform(-0.5, 0.5) * max(width - size, 0.15 * width)
    y = min(max(scene.horizon + rng.uniform(0.02, 0.15) * height, size * 1.02), height * 0.99)
    taken = stand(scene, shape, x, y, size)
    painted = int(_mask(scene.canvas, taken).sum())
    clutter(scene, int(rng.integers(0, 2)), 0.1, 0.25)
    pixels = scene.canvas.finish(rng)
    return pixels, _instance(scene.canvas, shape.name, taken, painted)


# What is seen together: background → objects.
CONTEXTS: dict[str, tuple[str, ...]] = {
    "land": ("bird", "cow", "dog", "horse", "person", "sheep", "aeroplane", "train"),
    "town": ("bicycle", "bus", "car", "motorbike", "person", "dog", "train"),
    "room": ("bottle", "cat", "chair", "diningtable", "pottedplant", "sofa", "tvmonitor", "person"),
    "water": ("boat", "bird", "person", "aeroplane"),
}
_SMALL = {"bottle": 0.5, "bird": 0.6, "cat": 0.65, "dog": 0.7, "pottedplant": 0.7, "sheep": 0.8}  # relative to others
_ALOFT = {"aeroplane", "bird"}


def crowd(
    rng: np.random.Generator, main: str, width: int, height: int, most: int = 4
) -> tuple[Image.Image, list[Instance]]:
    """One to `most` objects in a background where they belong, nearer ones larger, `main` among them."""
    context = str(rng.choice([name for name, members in CONTEXTS.items() if main in members]))
    scene = BACKGROUNDS[context](rng, width, height)
    clutter(scene, int(rng.integers(1, 5)), 0.1, 0.3)
    others = rng.choice(CONTEXTS[context], int(rng.choice(most, p=_crowding(most))))
    names = [main, *(str(name) for name in others)]
    depths = np.sort(rng.uniform(0, 1, len(names)))  # 0 at the horizon, 1 at the lower edge
    placed = []
    for depth, name in zip(depths, rng.permutation(names), strict=True):
        taken = _place_in_depth(rng, scene, str(name), depth, alone=len(names) == 1)
        placed.append((str(name), taken, int(_mask(scene.canvas, taken).sum())))
    pixels = scene.canvas.finish(rng)
    found = [_instance(scene.canvas, name, taken, painted) for name, taken, painted in placed]
    return pixels, [instance for instance in found if instance.mask.any()]


def _crowding(most: int) -> np.ndarray:
    """Chances of 0, 1, … most - 1 companions: fewer are likelier."""
    weights = np.arange(most, 0, -1, dtype=float)
    return weights / weights.sum()


def _place_in_depth(rng: np.random.Generator, scene: Scene, name: str, depth: float, alone: bool) -> range:
    """Stand an object at a depth, smaller when it is far away and larger when it is alone."""
    width, height = scene.canvas.width, scene.canvas.height
    size = height * (0.34 + 0.42 * depth) * rng.uniform(0.85, 1.2) * _SMALL.get(name, 1.0) * (1.3 if alone else 1.0)
    foot = scene.horizon + (0.08 + 0.85 * depth) * (height - scene.horizon)
    aloft = name in _ALOFT and rng.random() < 0.6
    if aloft:
        foot = rng.uniform(0.35, 0.95) * scene.horizon
    x = rng.uniform(0.08, 0.92) * width
    return stand(scene, OBJECTS[name], x, foot, size, shadow=not aloft)


def anything(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """What people upload: a place, one thing, or several things that need not belong together, rarely centred."""
    kind = rng.random()
    if kind < 0.2:
        return place(rng, str(rng.choice(list(PLACES))), width, height)
    scene = BACKGROUNDS[str(rng.choice(list(BACKGROUNDS)))](rng, width, height)
    clutter(scene, int(rng.integers(1, 7)), 0.1, 0.4)
    for depth in np.sort(rng.uniform(0, 1, int(rng.integers(1, 5)))):
        _place_in_depth(rng, scene, str(rng.choice(list(OBJECTS))), depth, alone=kind > 0.8)
    return scene.canvas.finish(rng)


def background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A random background with clutter and no object."""
    scene = BACKGROUNDS[str(rng.choice(list(BACKGROUNDS)))](rng, width, height)
    clutter(scene, int(rng.integers(1, 7)), 0.1, 0.4)
    return scene.canvas.finish(rng)


def _instance(canvas: Canvas, name: str, taken: range, painted: int) -> Instance:
    """What can still be seen of the regions `taken`, of which `painted` pixels were visible when just painted."""
    mask = _mask(canvas, taken)
    truncated = bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())
    return Instance(name, mask, float(mask.sum()) / max(painted, 1), truncated)


def _mask(canvas: Canvas, taken: range) -> np.ndarray:
    """(H, W) bool: the pixels that show any of the regions `taken`."""
    regions = canvas.regions()
    return (regions >= taken.start) & (regions < taken.stop)
