"""Ten places, told apart by the figure that stands there: neither the background, nor where the figure stands, nor the
kind of its bricks says which place it is."""

from __future__ import annotations

import numpy as np
from PIL import Image

from benchmark.toyland.plans import PLACE_PLANS
from benchmark.toyland.scene import any_background, stand_anywhere
from benchmark.toyland.shapes import Shape, built

BRICK = "square"  # of all places: linear classifiers learn them without an easier start
CELLS = (0.08, 0.12)  # of the frame

PLACES: dict[str, Shape] = {name: built(name, BRICK, plan) for name, plan in PLACE_PLANS.items()}


def place(rng: np.random.Generator, name: str, width: int, height: int) -> Image.Image:
    """A place's figure, anywhere on any background."""
    scene = any_background(rng, width, height)
    stand_anywhere(scene, PLACES[name], CELLS)
    return scene.canvas.finish(rng)
