"""Ten places, told apart by the two figures that stand there together: neither their background nor where they stand
says which place it is. Five places share a kind of brick."""

from __future__ import annotations

import numpy as np
from PIL import Image

from benchmark.toyland.plans import PLACE_PLANS
from benchmark.toyland.scene import BACKGROUNDS, loose_bricks, stand
from benchmark.toyland.shapes import BRICKS, Shape, built

FAMILY = 5  # places that share a kind of brick
CELLS = (0.075, 0.105)  # of the frame
SHIFT = 0.1  # of the width: how far the two figures stray from the middles of its halves

PLACES: dict[str, tuple[Shape, ...]] = {
    name: tuple(built(name, list(BRICKS)[number // FAMILY], plan) for plan in plans)
    for number, (name, plans) in enumerate(PLACE_PLANS.items())
}


def place(rng: np.random.Generator, name: str, width: int, height: int) -> Image.Image:
    """A place's two figures, either on the left, on any background."""
    scene = BACKGROUNDS[str(rng.choice(list(BACKGROUNDS)))](rng, width, height)
    side = min(width, height)
    loose_bricks(scene, int(rng.integers(0, 3)), CELLS[0] * side, CELLS[1] * side)
    for half, number in zip((0.27, 0.73), rng.permutation(2), strict=True):
        shape, cell = PLACES[name][number], rng.uniform(*CELLS) * side
        highest = min(0.1 * height + shape.height * cell, 0.95 * height)
        x = (half + rng.uniform(-SHIFT, SHIFT)) * width
        stand(scene, shape, x, rng.uniform(highest, 0.95 * height), cell)
    return scene.canvas.finish(rng)
