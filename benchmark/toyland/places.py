"""Ten scene categories, told apart by layout: where things are, not which objects there are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from benchmark.toyland.canvas import Canvas, Palette
from benchmark.toyland.catalogue import OBJECTS
from benchmark.toyland.scene import Scene, buildings, clutter, ridge, stand

WIDEST = 1.4  # a view is up to this much wider and higher than the picture cut out of it


def _scene(
    rng: np.random.Generator, size: tuple[int, int], horizon: tuple[float, float], ground_texture: str | None
) -> Scene:
    """Sky (or wall) above ground (or floor), the horizon within the given shares of the height. Unlike in the
    backgrounds of objects, either half may be the lighter one: brightness must not give a place away."""
    width, height = size
    backdrop, ground = rng.permutation([rng.uniform(0.6, 0.92), rng.uniform(0.35, 0.6)])
    scene = Scene(Canvas(width, height), Palette.draw(rng), rng, height * rng.uniform(*horizon), backdrop, ground)
    scene.canvas.box(scene.region(backdrop), -1, -1, width + 1, height + 1)
    scene.canvas.box(scene.region(ground, ground_texture, 0.07), -1, scene.horizon, width + 1, height + 1)
    return scene


def _apartments(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """One broad front filling the picture: rows of windows with balconies."""
    scene = _scene(rng, size, (0.85, 0.95), "grass")
    width, height = size
    left, right, top = rng.uniform(-0.1, 0.15) * width, rng.uniform(0.85, 1.1) * width, rng.uniform(0, 0.15) * height
    scene.canvas.box(scene.region(rng.uniform(0.3, 0.9), "bricks", 0.08), left, top, right, scene.horizon)
    window, balcony = scene.region(rng.uniform(0.1, 0.95)), scene.region(rng.uniform(0.1, 0.95))
    rows, columns = int(rng.integers(4, 7)), int(rng.integers(3, 6))
    high, wide = (scene.horizon - top) / rows, (right - left) / columns
    for row in range(rows):
        for column in range(columns):
            x, y = left + column * wide, top + row * high
            scene.canvas.box(window, x + 0.25 * wide, y + 0.2 * high, x + 0.75 * wide, y + 0.75 * high)
            scene.canvas.box(balcony, x + 0.15 * wide, y + 0.75 * high, x + 0.85 * wide, y + 0.88 * high)
    return scene


def _room(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """A corner seen in perspective: back wall, two side walls meeting floor and ceiling."""
    scene = _scene(rng, size, (0.6, 0.72), "planks")
    width, height = size
    left, right, top = rng.uniform(0.1, 0.25) * width, rng.uniform(0.75, 0.9) * width, rng.uniform(0.08, 0.18) * height
    side = scene.region(scene.backdrop - 0.1)
    low = scene.horizon
    scene.canvas.fill(side, [(left, top), (left, low), (-1, height * 0.95), (-1, -1)])
    scene.canvas.fill(side, [(right, top), (right, low), (width + 1, height * 0.95), (width + 1, -1)])
    scene.canvas.fill(scene.region(scene.backdrop + 0.08), [(left, top), (right, top), (width + 1, -1), (-1, -1)])
    return scene


def _bedroom(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """A room with a bed (headboard, mattress, pillow) and a window."""
    scene = _room(rng, size)
    width, height = size
    x = rng.uniform(0.2, 0.35) * width
    wide, top, foot = rng.uniform(0.4, 0.5) * width, scene.horizon - 0.04 * height, rng.uniform(0.84, 0.94) * height
    frame = scene.region(rng.uniform(0.1, 0.9), "stripes_wide")
    scene.canvas.box(frame, x, top - 0.16 * height, x + wide, top + 0.05 * height)
    blanket = scene.region(rng.uniform(0.3, 0.95), "checks_wide", 0.1)
    scene.canvas.fill(blanket, [(x, top), (x + wide, top), (x + 1.15 * wide, foot), (x - 0.15 * wide, foot)])
    pillow = scene.region(rng.choice([0.15, 0.95]))
    for share in (0.25, 0.72):
        scene.canvas.ellipse(pillow, x + share * wide, top + 0.05 * height, 0.18 * wide, 0.04 * height)
    return scene


def _kitchen(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """A room with wall cupboards, a worktop along the wall and tiles in between."""
    scene = _room(rng, size)
    width, height = size
    doors, edge = scene.region(rng.uniform(0.2, 0.9)), scene.region(rng.uniform(0.1, 0.95))
    tiles = scene.region(scene.backdrop, "checks_fine", 0.08)
    scene.canvas.box(tiles, 0, 0.35 * height, width, 0.6 * height)
    count = int(rng.integers(3, 6))
    for column in range(count):
        x0, x1 = (column + 0.05) * width / count, (column + 0.95) * width / count
        scene.canvas.box(doors, x0, 0.14 * height, x1, 0.36 * height)
        scene.canvas.box(doors, x0, 0.62 * height, x1, 0.9 * height)
        for y in (0.33, 0.66):
            scene.canvas.box(edge, x1 - 0.08 * width / count - 1, y * height - 2, x1 - 0.04 * width / count, y * height)
    scene.canvas.box(edge, -1, 0.58 * height, width + 1, 0.62 * height)
    return scene


def _coast(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """Sky, sea, and a beach cutting in from one side."""
    scene = _scene(rng, size, (0.35, 0.55), "ripples")
    width, height = size
    near, far = rng.uniform(0.55, 0.7) * height, rng.uniform(0.8, 1.05) * height
    if rng.random() < 0.5:
        near, far = far, near
    foam = [
        (-1, near),
        (width * 0.5, (near + far) / 2 + 3),
        (width + 1, far),
        (width + 1, height + 9),
        (-1, height + 9),
    ]
    scene.canvas.fill(scene.region(scene.ground + 0.3), np.array(foam) - (0, 2))
    scene.canvas.fill(scene.region((scene.ground + scene.backdrop) / 2, "grass", 0.05), foam)
    return scene


def _desert(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """Rows of dunes with long shaded sides, and a sun."""
    scene = _scene(rng, size, (0.4, 0.55), None)
    width, height = size
    radius = rng.uniform(0.05, 0.09) * height
    scene.canvas.ellipse(
        scene.region(0.97), rng.uniform(0.1, 0.9) * width, rng.uniform(0.12, 0.25) * height, radius, radius
    )
    for depth in np.linspace(0.0, 0.35, 3):
        base, peak = scene.horizon + depth * height, rng.uniform(0.2, 0.8) * width
        rise = rng.uniform(0.08, 0.2) * height
        lit, shaded = scene.region(scene.ground + 0.12 - 0.2 * depth), scene.region(scene.ground - 0.1 - 0.2 * depth)
        floor = height + 1
        scene.canvas.fill(
            lit, [(-1, base), (peak, base - rise), (width + 1, base + 3), (width + 1, floor), (-1, floor)]
        )
        lean = rng.uniform(0.1, 0.3) * width
        scene.canvas.fill(
            shaded, [(peak, base - rise), (width + 1, base + 3), (width + 1, floor), (peak + lean, floor)]
        )
    return scene


def _field(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """Open ground with tufts that get larger towards the viewer, and a low hedge far away."""
    scene = _scene(rng, size, (0.25, 0.5), "grass")
    ridge(scene, 0.05 * size[1], scene.ground - 0.1, points=9)
    tuft = scene.region(scene.ground + rng.choice([-0.15, 0.15]))
    for depth in np.sort(rng.random(40)):
        x, y = rng.uniform(0, size[0]), scene.horizon + depth * (size[1] - scene.horizon)
        tall = (0.03 + 0.09 * depth) * size[1]
        scene.canvas.fill(
            tuft, [(x - 0.25 * tall, y), (x + rng.uniform(-0.2, 0.2) * tall, y - tall), (x + 0.25 * tall, y)]
        )
    return scene


def _forest(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """Trunks from top to bottom on both sides of a path that narrows towards the horizon."""
    scene = _scene(rng, size, (0.5, 0.65), "grass")
    width, height = size
    middle = rng.uniform(0.4, 0.6) * width
    path = [
        (middle - 2, scene.horizon),
        (middle + 2, scene.horizon),
        (0.85 * width, height + 1),
        (0.15 * width, height + 1),
    ]
    scene.canvas.fill(scene.region(scene.ground + 0.15), path)
    leaves = scene.region(scene.backdrop - 0.2, "dots_fine", 0.1)
    trunks = [scene.region(rng.uniform(0.1, 0.4), "stripes_fine", 0.06) for _ in range(3)]
    for depth in np.linspace(0.05, 1.0, 9):
        offset = (0.08 + 0.45 * depth) * width * rng.uniform(0.8, 1.3) * rng.choice([-1, 1])
        wide, foot = (0.015 + 0.05 * depth) * width, scene.horizon + depth * 0.42 * height
        x = middle + offset
        scene.canvas.box(trunks[int(rng.integers(3))], x - wide, -1, x + wide, foot)
        scene.canvas.ellipse(leaves, x, rng.uniform(-0.05, 0.12) * height, 0.16 * width, 0.12 * height)
    return scene


def _harbor(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """Boats with masts in a row on water, and a quay."""
    scene = _scene(rng, size, (0.4, 0.55), "ripples")
    buildings(scene, 0.15 * size[1])
    for share in np.linspace(0.12, 0.88, int(rng.integers(3, 5))):
        y = scene.horizon + rng.uniform(0.1, 0.3) * size[1]
        stand(scene, OBJECTS["boat"], share * size[0], y, rng.uniform(0.3, 0.42) * size[1], shadow=False)
    wide = rng.uniform(0.1, 0.3) * size[0]
    plank = [(0, size[1] + 1), (0, 0.85 * size[1]), (wide, 0.85 * size[1]), (2 * wide, size[1] + 1)]
    scene.canvas.fill(scene.region(scene.ground - 0.15, "planks"), plank)
    return scene


def _mountain(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """High peaks with snow caps above a low horizon."""
    scene = _scene(rng, size, (0.75, 0.88), "grass")
    width, height = size
    rock, snow = scene.region((scene.backdrop + scene.ground) / 2 - 0.15), scene.region(0.97)
    for x in np.sort(rng.uniform(0.05, 0.95, int(rng.integers(2, 5))) * width):
        top, half = rng.uniform(0.1, 0.4) * height, rng.uniform(0.3, 0.5) * width
        scene.canvas.fill(rock, [(x - half, scene.horizon), (x, top), (x + half, scene.horizon)])
        share = rng.uniform(0.25, 0.4)
        drop, slope = share * (scene.horizon - top), share * half
        zigzag = [(x - slope, top + drop), (x, top), (x + slope, top + drop), (x + 0.3 * slope, top + 0.7 * drop)]
        scene.canvas.fill(snow, [*zigzag, (x, top + drop), (x - 0.4 * slope, top + 0.7 * drop)])
    return scene


def _skyscrapers(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """Slender towers of very different heights, with lit windows in a grid."""
    scene = _scene(rng, size, (0.85, 0.97), None)
    width, height = size
    window = scene.region(rng.choice([0.1, 0.97]))
    for x in np.linspace(0.0, 0.88, 6) * width:
        wide, top = rng.uniform(0.1, 0.17) * width, rng.uniform(0.05, 0.55) * height
        scene.canvas.box(scene.region(rng.uniform(0.2, 0.75)), x, top, x + wide, scene.horizon)
        if rng.random() < 0.4:
            scene.canvas.box(window, x + 0.45 * wide, top - 0.1 * height, x + 0.55 * wide, top)
        for y in np.arange(top + 4, scene.horizon - 4, 6):
            for share in (0.2, 0.6):
                scene.canvas.box(window, x + share * wide, y, x + (share + 0.2) * wide, y + 2.5)
    return scene


# Places205's own class paths. Three of them are a folder deeper, as some are there.
PLACES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Scene]] = {
    "a/apartment_building/outdoor": _apartments,
    "b/bedroom": _bedroom,
    "c/coast": _coast,
    "d/desert/sand": _desert,
    "f/field/wild": _field,
    "f/forest_path": _forest,
    "h/harbor": _harbor,
    "k/kitchen": _kitchen,
    "m/mountain": _mountain,
    "s/skyscraper": _skyscrapers,
}


def place(rng: np.random.Generator, name: str, width: int, height: int) -> Image.Image:
    """A window cut out of a wider view of a place, with a little clutter and often a person, an animal or a chair that
    could be anywhere."""
    zoom = rng.uniform(1.0, WIDEST)
    wide, high = int(zoom * width), int(zoom * height)
    scene = PLACES[name](rng, (wide, high))
    clutter(scene, int(rng.integers(0, 5)), 0.08, 0.25)
    if rng.random() < 0.6:
        visitor = OBJECTS[str(rng.choice(["person", "dog", "chair", "bird", "cat"]))]
        size = rng.uniform(0.2, 0.4) * high
        stand(scene, visitor, rng.uniform(0.1, 0.9) * wide, rng.uniform(0.8, 0.98) * high, size)
    picture = scene.canvas.finish(rng)
    x, y = int(rng.integers(wide - width + 1)), int(rng.integers(high - height + 1))
    picture = picture.crop((x, y, x + width, y + height))
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else picture
