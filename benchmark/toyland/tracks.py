"""The ends of a track: one figure in two frames of a video, as a tracker's box cuts it out.

Between the two it moves in the box, turns, comes nearer or goes away, and the camera follows it before other ground and
into other light: neither background nor tint says that two patches belong together. What stays is the figure: its
arrangement, its bricks, the way it faces, its tone and its texture. The frames in between are never drawn, nor is what
lies outside the box.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from benchmark.toyland.scene import any_background, stand
from benchmark.toyland.shapes import Shape

CELLS = (0.1, 0.15)  # of the patch: a figure of five cells fills half to three quarters of it
DRIFT = 0.1  # of the patch: how far from its middle the tracker holds the figure
TURN = np.deg2rad(15)


def tracked(frame: np.random.Generator, figure: np.random.Generator, shape: Shape, side: int) -> Image.Image:
    """A patch of side x side pixels. frame: what changes from frame to frame; figure: what does not, so in each frame a
    generator that begins at the same number."""
    scene = any_background(frame, side, side)
    cell, turn = side * frame.uniform(*CELLS), frame.uniform(-TURN, TURN)
    x, y = side * (0.5 + frame.uniform(-DRIFT, DRIFT, 2))
    half = shape.height * cell / 2  # from the feet, about which it turns, to its middle, which is at (x, y)
    stand(replace(scene, rng=figure), shape, x - half * np.sin(turn), y + half * np.cos(turn), cell, turn)
    return scene.canvas.finish(frame)
