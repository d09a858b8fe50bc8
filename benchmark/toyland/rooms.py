"""Rendered scenes: a room with figures and boxes in it, and what a renderer knows of every pixel.

A camera at the origin looks along z into a room of five faces; x is to the right, y up, and lengths are metres. All
surfaces are flat, so that depths and normals are exact: each pixel's is where its ray meets the plane of what it shows.
A face is the brighter the more it is turned to the light. Walls and floors have patches of other tones, which are no
contours. Unlike Toyland's photographs, the pictures are sharp and have no noise, as renderings are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from benchmark.toyland.canvas import Canvas, Palette
from benchmark.toyland.catalogue import IMAGENET_OBJECTS, OBJECTS
from benchmark.toyland.scene import Scene, build, proportions
from benchmark.toyland.shapes import Shape

NEAR, FAR = 0.05, 60.0  # metres: no map shows less or more
FIGURES, BOXES = (1, 4), (0, 3)  # at least, and fewer than
CELLS = (0.22, 0.34)  # of a figure
TURN = np.deg2rad(50)  # of a figure, about the vertical
PATCHED = 0.5  # of a room's faces
MARGIN = 0.8  # metres: no thing stands nearer to a wall, so that none reaches into it
AMBIENT = 0.55  # of the light
SAMPLE = 0.25  # of a pixel: the middle of the one of its parts that regions() shows


@dataclass(frozen=True)
class Rendered:
    """picture: RGB. depth: (H, W) metres along z. normals: (H, W, 3), of unit length, z towards the camera. things:
    (H, W), another number for each wall, the floor, the ceiling, each figure and each box."""

    picture: Image.Image
    depth: np.ndarray
    normals: np.ndarray
    things: np.ndarray

    @property
    def contours(self) -> np.ndarray:
        """(H, W) bool: pixels that show another thing than the one to their right, or below."""
        found = np.zeros(self.things.shape, dtype=bool)
        found[:, :-1] |= self.things[:, 1:] != self.things[:, :-1]
        found[:-1] |= self.things[1:] != self.things[:-1]
        return found


@dataclass
class _View:
    """What the camera sees. normals, offsets, things: of each region's plane, {p: normal . p = offset}."""

    scene: Scene
    focal: float  # pixels
    light: np.ndarray
    normals: list[np.ndarray] = field(default_factory=list)
    offsets: list[float] = field(default_factory=list)
    things: list[int] = field(default_factory=list)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """(n, 3) -> (n, 2)"""
        canvas = self.scene.canvas
        across, up = (points[:, :2] * self.focal / points[:, 2:]).T
        return np.stack([canvas.width / 2 + across, canvas.height / 2 - up], axis=1)

    def lit(self, normal: np.ndarray) -> float:
        return AMBIENT + (1 - AMBIENT) * max(0.0, float(normal @ self.light))

    def face(self, corners: np.ndarray, normal: np.ndarray, value: float, thing: int) -> None:
        """Fill a flat polygon, corners (n, 3); `value` is its brightness in full light."""
        self.scene.canvas.fill(self.scene.surface(value * self.lit(normal)), self.pixels(corners))
        self.is_of(thing, normal, corners[0])

    def is_of(self, thing: int, normal: np.ndarray, point: np.ndarray) -> None:
        """Say of the next region without a plane in which it lies, and what it shows."""
        self.normals.append(normal)
        self.offsets.append(float(normal @ point))
        self.things.append(thing)

    def rendered(self) -> Rendered:
        canvas = self.scene.canvas
        y, x = np.mgrid[0 : canvas.height, 0 : canvas.width] + SAMPLE
        rays = np.stack([x - canvas.width / 2, canvas.height / 2 - y, np.full(x.shape, self.focal)], axis=2)
        shown = canvas.regions()
        normals = np.array(self.normals)[shown]
        depth = np.array(self.offsets)[shown] / (normals * rays / self.focal).sum(axis=2)
        towards_camera = normals * (1.0, 1.0, -1.0)
        things = np.array(self.things)[shown]
        return Rendered(canvas.render(), depth.clip(NEAR, FAR), towards_camera, things)


@dataclass(frozen=True)
class _Walls:
    """Where the room ends: at x = left and right, y = floor and ceiling, z = back."""

    left: float
    right: float
    floor: float
    ceiling: float
    back: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Walls:
        return cls(-rng.uniform(1.2, 2.4), rng.uniform(1.2, 2.4), -rng.uniform(1.1, 1.7), rng.uniform(0.8, 1.5),
                   rng.uniform(3.5, 6.5))  # fmt: skip


def rendered_room(rng: np.random.Generator, width: int, height: int) -> Rendered:
    """Any room, with one to three figures and none to two boxes."""
    walls = _Walls.draw(rng)
    view = _view(rng, width, height)
    _faces(view, walls)
    kinds = [True] * int(rng.integers(*FIGURES)) + [False] * int(rng.integers(*BOXES))
    distances = rng.uniform(2.0, walls.back - MARGIN, len(kinds))
    for number in np.argsort(-distances).tolist():  # the farthest first, for what is nearer hides it
        z = float(distances[number])
        reach = 0.42 * width / view.focal * z
        x = float(rng.uniform(max(walls.left + MARGIN, -reach), min(walls.right - MARGIN, reach)))
        thing = len(_FACES) + number
        if kinds[number]:
            name = IMAGENET_OBJECTS[int(rng.integers(len(IMAGENET_OBJECTS)))]
            _figure(view, OBJECTS[name], np.array([x, walls.floor, z]), thing)
        else:
            _box(view, np.array([x, walls.floor, z]), thing)
    return view.rendered()


def _view(rng: np.random.Generator, width: int, height: int) -> _View:
    scene = Scene(Canvas(width, height), Palette.draw(rng), rng, 0.0, rng.uniform(0.7, 1.0), rng.uniform(0.45, 0.7))
    light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(0.4, 1.0), -rng.uniform(0.3, 1.0)])
    return _View(scene, rng.uniform(0.75, 1.05) * min(width, height), light / np.linalg.norm(light))


# Of each face of a room: its wall, across which axis it lies, and whether it faces along that or against it.
_FACES = (("back", 2, -1), ("left", 0, 1), ("right", 0, -1), ("floor", 1, 1), ("ceiling", 1, -1))


def _faces(view: _View, walls: _Walls) -> None:
    """The room itself, with patches of other tones on some of its faces."""
    rng, scene = view.scene.rng, view.scene
    spans = ((walls.left, walls.right), (walls.floor, walls.ceiling), (NEAR, walls.back))
    seen = (*spans[:2], (walls.back / 2, walls.back))  # what lies nearer is mostly beside the picture
    for thing, (wall, axis, sign) in enumerate(_FACES):
        normal = sign * np.eye(3)[axis]
        value = scene.ground if wall == "floor" else scene.backdrop + float(rng.uniform(-0.08, 0.08))
        view.face(_rectangle(axis, getattr(walls, wall), spans), normal, value, thing)
        if rng.random() < PATCHED:
            tone = value + float(rng.choice([-1, 1]) * rng.uniform(0.08, 0.25))
            patch = [sorted(rng.uniform(*span, 2).tolist()) for span in seen]
            view.face(_rectangle(axis, getattr(walls, wall), patch), normal, tone, thing)


def _rectangle(axis: int, fixed: float, spans: Sequence[Sequence[float]]) -> np.ndarray:
    """(4, 3): its corners; of the spans of x, y and z, that of the axis has no part in it."""
    one, other = (span for number, span in enumerate(spans) if number != axis)
    corners = np.array([(one[i], other[j]) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))])
    return np.insert(corners, axis, fixed, axis=1)


def _figure(view: _View, shape: Shape, foot: np.ndarray, thing: int) -> None:
    """Flat, upright, turned about the vertical."""
    rng = view.scene.rng
    turn, cell = float(rng.uniform(-TURN, TURN)), float(rng.uniform(*CELLS))
    across, normal = np.array([np.cos(turn), 0, np.sin(turn)]), np.array([np.sin(turn), 0, -np.cos(turn)])
    stance = proportions(rng) * cell

    def to_pixels(points: np.ndarray) -> np.ndarray:
        right, up = (points @ stance).T
        return view.pixels(foot + right[:, None] * across + up[:, None] * (0.0, 1.0, 0.0))

    for _ in build(view.scene, shape, to_pixels, cell * view.focal / foot[2], view.lit(normal)):
        view.is_of(thing, normal, foot)


def _box(view: _View, foot: np.ndarray, thing: int) -> None:
    """Those of its faces that the camera sees; none of them hides another."""
    rng = view.scene.rng
    turn, (wide, deep), high = rng.uniform(0, np.pi / 2), rng.uniform(0.2, 0.5, 2), float(rng.uniform(0.3, 1.0))
    across, along = np.array([np.cos(turn), 0, np.sin(turn)]), np.array([-np.sin(turn), 0, np.cos(turn)])
    up, value = np.array([0.0, high, 0.0]), float(rng.uniform(0.3, 0.9))
    sides = [(across, wide, along, deep), (-across, wide, along, deep), (along, deep, across, wide),
             (-along, deep, across, wide)]  # fmt: skip
    for normal, out, beside, half in sides:
        middle = foot + normal * out
        if normal @ middle < 0:
            ends = middle - beside * half, middle + beside * half
            view.face(np.array([ends[0], ends[1], ends[1] + up, ends[0] + up]), normal, value, thing)
    if foot[1] + high < 0:
        corners = [foot + up + i * wide * across + j * deep * along for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        view.face(np.array(corners), np.array([0.0, 1.0, 0.0]), value, thing)
