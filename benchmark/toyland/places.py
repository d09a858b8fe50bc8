"""Ten places, told apart by the two figures that stand there together: neither their background nor where they stand
says which place it is."""

from __future__ import annotations

import numpy as np
from PIL import Image

from benchmark.toyland.plans import PLACE_PLANS
from benchmark.toyland.scene import BACKGROUNDS, loose_bricks, stand
from benchmark.toyland.shapes import Shape, built

CELLS = (0.075, 0.105)  # of the frame
SLOTS = (0.29, 0.71)  # of the width: where the middles of the two figures are, give or take SHIFT
SHIFT = 0.06

PLACES: dict[str, tuple[Shape, ...]] = {
    name: tuple(built(name, plan) for plan in plans) for name, plans in PLACE_PLANS.items()
}


def place(rng: np.random.Generator, name: str, width: int, height: int) -> Image.Image:
    """A place's two figures, either on the left, on any background."""
    scene = BACKGROUNDS[str(rng.choice(list(BACKGROUNDS)))](rng, width, height)
    side = min(width, height)
    loose_bricks(scene, int(rng.integers(0, 3)), CELLS[0] * side, CELLS[1] * side)
    for slot, number in zip(SLOTS, rng.permutation(2), strict=True):
        shape, cell = PLACES[name][number], rng.uniform(*CELLS) * side
        high = shape.height * cell
        foot = rng.uniform(min(0.1 * height + high, 0.95 * height), 0.95 * height)
        stand(scene, shape, (slot + rng.uniform(-SHIFT, SHIFT)) * width, foot, cell)
    return scene.canvas.finish(rng)
