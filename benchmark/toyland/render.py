"""One picture of each kind: a single object, a crowd with boxes and masks, a place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from benchmark.toyland.canvas import Canvas
from benchmark.toyland.catalogue import OBJECTS, VOC_OBJECTS
from benchmark.toyland.places import PLACES, place
from benchmark.toyland.scene import Scene, any_background, clutter, plain, stand, stand_anywhere
from benchmark.toyland.shapes import Shape

CELLS = (0.075, 0.12)  # of the frame
COMPANIONS = (0.64, 0.27, 0.08, 0.01)  # the chances of none, one, two, three
ALIKE = 0.8  # of an object's companions are of its kind


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
    """One figure, anywhere on a plain ground."""
    scene = plain(rng, width, height)
    taken = stand_anywhere(scene, shape, CELLS)
    painted = int(_mask(scene.canvas, taken).sum())
    pixels = scene.canvas.finish(rng)
    return pixels, _instance(scene.canvas, shape.name, taken, painted)


def crowd(
    rng: np.random.Generator,
    main: str,
    width: int,
    height: int,
    companions: Sequence[float] = COMPANIONS,
    alike: float = ALIKE,
) -> tuple[Image.Image, list[Instance]]:
    """`main` and none, one, two … more objects (the chances of each: `companions`), a share `alike` of them its kind;
    nearer ones are larger and lower."""
    scene = plain(rng, width, height)
    others = [str(name) for name in rng.choice(VOC_OBJECTS, int(rng.choice(len(companions), p=companions)))]
    names = [main, *(main if rng.random() < alike else name for name in others)]
    depths = np.sort(rng.uniform(0, 1, len(names)))  # 0 far away, 1 near
    order = rng.permutation(len(names))
    size = 1.15 if len(names) == 1 else min(1.0, 3 / len(names))
    placed = []
    for depth, column, name in zip(depths, _columns(rng, len(names)), [names[i] for i in order], strict=True):
        taken = _place_in_depth(rng, scene, name, depth, column, size)
        placed.append((name, taken, int(_mask(scene.canvas, taken).sum())))
    pixels = scene.canvas.finish(rng)
    found = [_instance(scene.canvas, name, taken, painted) for name, taken, painted in placed]
    return pixels, [instance for instance in found if instance.mask.any()]


def _columns(rng: np.random.Generator, count: int) -> np.ndarray:
    """Where `count` objects stand, 0 at the left edge, 1 at the right one: a single one anywhere, several side by side,
    since figures in front of one another are hard to read."""
    if count == 1:
        return rng.uniform(0, 1, 1)
    return np.clip((rng.permutation(count) + rng.uniform(-0.3, 0.3, count)) / (count - 1), 0, 1)


def _place_in_depth(
    rng: np.random.Generator, scene: Scene, name: str, depth: float, column: float, size: float
) -> range:
    """Stand an object at a depth and a share of the width, smaller when it is far away; `size` multiplies it."""
    shape, width, height = OBJECTS[name], scene.canvas.width, scene.canvas.height
    cell = height * (0.115 + 0.03 * depth) * rng.uniform(0.9, 1.15) * size
    wide, high = shape.width * cell, shape.height * cell
    x = wide / 2 + column * max(width - wide, 0)
    return stand(scene, shape, x, high + depth * max(0.99 * height - high, 0), cell)


def anything(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """What people upload: a place, one thing, or several things that need not belong together, rarely centred."""
    kind = rng.random()
    if kind < 0.2:
        return place(rng, str(rng.choice(list(PLACES))), width, height)
    scene = any_background(rng, width, height)
    clutter(scene, int(rng.integers(0, 4)), 0.1, 0.3)
    for depth in np.sort(rng.uniform(0, 1, int(rng.integers(1, 5)))):
        _place_in_depth(rng, scene, str(rng.choice(list(OBJECTS))), depth, rng.random(), 1.15 if kind > 0.8 else 1.0)
    return scene.canvas.finish(rng)


def empty(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A crowd's plain ground with clutter and no object."""
    scene = plain(rng, width, height)
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
