"""What tells the drawn world's classes without learning: descriptors of the protocols' own views, and the plans.

docs/toyland.md says what was measured, and what is not bounded here: the power spectrum of a whole picture.
"""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from torch import Tensor

from benchmark.backbones.descriptors import descriptors_of
from benchmark.data.images import open_rgb
from benchmark.toyland.catalogue import OBJECTS
from benchmark.toyland.layouts import LAYOUTS
from benchmark.toyland.layouts.base import Picture
from benchmark.toyland.places import PLACES
from benchmark.toyland.plans import IMAGENET_PLANS, PLACE_PLANS, SPECIES_PLANS, VOC_PLANS
from benchmark.toyland.species import SPECIES
from benchmark.transfers.preprocessing import centre_crop, squash


def binary_patterns(images: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) → (N, 1024): how often which of a pixel's eight neighbours are brighter than it, by more than 3 of
    255, at two distances and two resolutions. A descriptor that the benchmark's own do not include."""
    grey, found = images.mean(axis=3), []
    for picture in (grey, (grey[:, ::2, ::2] + grey[:, 1::2, ::2] + grey[:, ::2, 1::2] + grey[:, 1::2, 1::2]) / 4):
        for far in (1, 2):
            inner, side = picture[:, far:-far, far:-far], picture.shape[1]
            shifts = [(y, x) for y in (0, far, 2 * far) for x in (0, far, 2 * far) if (y, x) != (far, far)]
            around = [picture[:, y : side - 2 * far + y, x : side - 2 * far + x] > inner + 3 for y, x in shifts]
            codes = sum(brighter.astype(int) << bit for bit, brighter in enumerate(around))
            found.append([np.bincount(one.ravel(), minlength=256) for one in codes])
    return np.sqrt(np.concatenate(found, axis=1))


PICTURES = 800  # of each dataset; two thirds are learned from
VIEWS = {"imagenet": centre_crop, "places205": centre_crop, "inat2018": centre_crop, "voc2007": squash}
POSITION_FREE = ("colour", "orientations", "dct_mean", "dct_max")
OTHERS = ("binary patterns", "thumbnail", "hog", "joined")
# What the best of each told here, and five points: two standard errors of a share of 270 pictures.
MOST = {"imagenet": (25, 31), "places205": (17, 25), "inat2018": (21, 21), "voc2007": (23, 34)}


@dataclass(frozen=True)
class Seen:
    """images: (N, 3, 64, 64) uint8, as the protocols show them to a network; classes: (N,)."""

    images: Tensor
    classes: np.ndarray


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shortcuts")


@cache
def seen(name: str, root: Path) -> Seen:
    """Some of the desk world's pictures, written as files and read again."""
    layout, view = LAYOUTS[name], VIEWS[name](64)
    chosen = balanced(layout.pictures("desk", 0))[:PICTURES]
    images = []
    for picture in chosen:
        (root / picture.path).parent.mkdir(parents=True, exist_ok=True)
        layout.draw(root, picture, 0)
        images.append(view(open_rgb(root, picture.path))["image"])
    return Seen(torch.stack(images), np.unique([picture.shows for picture in chosen], return_inverse=True)[1])


def balanced(pictures: list[Picture]) -> list[Picture]:
    """The first of every class, then the second of every class and so on, for iNaturalist has a long tail."""
    counts = Counter[str]()
    ranks = []
    for picture in pictures:
        ranks.append(counts[picture.shows])
        counts[picture.shows] += 1
    return [pictures[number] for number in np.argsort(ranks, kind="stable")]


def told(features: np.ndarray, classes: np.ndarray) -> float:
    """Percent of the last third classified right, by a ridge regression on the others."""
    train = len(features) * 2 // 3
    scaled = (features - features[:train].mean(axis=0)) / (features[:train].std(axis=0) + 1e-3 * features[:train].std())
    model = RidgeClassifier(alpha=scaled.shape[1]).fit(scaled[:train], classes[:train])
    return 100 * float(model.score(scaled[train:], classes[train:]))


def told_by(pictures: Seen, descriptors: Sequence[str]) -> dict[str, float]:
    found = {name: features.numpy() for name, features in descriptors_of(pictures.images).items()}
    if "binary patterns" in descriptors:
        found["binary patterns"] = binary_patterns(pictures.images.permute(0, 2, 3, 1).numpy())
    return {name: told(found[name], pictures.classes) for name in descriptors}


@pytest.mark.parametrize("name", VIEWS)
def test_no_descriptor_tells_the_class(name, root):
    scores = told_by(seen(name, root), (*POSITION_FREE, *OTHERS))
    for descriptors, most in zip((POSITION_FREE, OTHERS), MOST[name], strict=True):
        for descriptor in descriptors:
            assert scores[descriptor] < most, descriptor


def test_descriptors_would_see_a_shortcut(root):
    """So the bounds above can be missed: a tint or a faint texture for each class."""
    pictures = seen("imagenet", root)
    images, classes = pictures.images.permute(0, 2, 3, 1).numpy(), pictures.classes
    tints = np.array([colorsys.hsv_to_rgb(number / 20, 0.8, 1.0) for number in classes])
    tinted = with_pixels(images.mean(axis=3, keepdims=True) * tints[:, None, None], classes)
    assert told_by(tinted, ["colour"])["colour"] > 90
    y, x = np.mgrid[0:64, 0:64]
    angles, periods = np.pi * classes / 20, 3 + classes % 4
    along = x * np.cos(angles)[:, None, None] + y * np.sin(angles)[:, None, None]
    stripes = 12 * np.sin(2 * np.pi * along / periods[:, None, None])
    striped = with_pixels(images + stripes[..., None], classes)
    for descriptor, score in told_by(striped, ("orientations", "dct_mean", "dct_max", "binary patterns")).items():
        assert score > 40, descriptor
    places = np.stack([y // 16 * 4 + x // 16 == number % 16 for number in classes])
    lit = with_pixels(images + 60 * places[..., None], classes)
    for descriptor, score in told_by(lit, ("thumbnail", "hog", "joined")).items():
        assert score > 40, descriptor


def with_pixels(images: np.ndarray, classes: np.ndarray) -> Seen:
    return Seen(torch.from_numpy(np.clip(images, 0, 255).astype(np.uint8)).permute(0, 3, 1, 2), classes)


PLAN_SETS = {
    "imagenet": [*IMAGENET_PLANS.values()],
    "voc": [*VOC_PLANS.values()],
    "places": [*PLACE_PLANS.values()],
    "species": [plan for family in SPECIES_PLANS.values() for plan in family.values()],
}
SHARING = {"imagenet": 5, "voc": 5, "places": 10, "species": 8}  # how many share a kind of brick


def bricks(plan: str) -> set[tuple[int, int]]:
    return {(x, y) for y, row in enumerate(plan.split()) for x, brick in enumerate(row) if brick == "#"}


def shared_bricks(one: set[tuple[int, int]], other: set[tuple[int, int]]) -> int:
    """The most bricks that two figures can share, moved and mirrored."""
    return max(max(Counter((x - side * u, y - v) for x, y in one for u, v in other).values()) for side in (1, -1))


def windows(plan: str, high: int, wide: int) -> Counter[tuple[bool, ...]]:
    """How often which bricks stand in a window of cells, in the figure and in its mirror image."""
    counts = Counter[tuple[bool, ...]]()
    for side in (1, -1):
        found = {(side * x, y) for x, y in bricks(plan)}
        corners = {(x - dx, y - dy) for x, y in found for dx in range(wide) for dy in range(high)}
        counts.update(tuple((x + dx, y + dy) in found for dy in range(high) for dx in range(wide)) for x, y in corners)
    return counts


@pytest.mark.parametrize("name", PLAN_SETS)
def test_figures_of_a_kind_of_brick_look_alike_in_small_windows(name):
    plans = PLAN_SETS[name]
    assert {len(bricks(plan)) for plan in plans} == {8}
    for first in range(0, len(plans), SHARING[name]):
        of_a_kind = plans[first : first + SHARING[name]]
        assert all(windows(plan, 2, 2) == windows(plans[first], 2, 2) for plan in of_a_kind)
        for (one, other), shape in product(combinations(of_a_kind, 2), ((2, 3), (3, 2))):
            ours, theirs = windows(one, *shape), windows(other, *shape)
            assert (ours - theirs).total() <= 0.36 * ours.total()


@pytest.mark.parametrize("name", PLAN_SETS)
def test_figures_of_a_set_are_unlike_each_other(name):
    found = [bricks(plan) for plan in PLAN_SETS[name]]
    for number, one in enumerate(found):
        for before, other in enumerate(found[:number]):
            nearest = name == "imagenet" and number // SHARING[name] == before // SHARING[name]
            assert shared_bricks(one, other) <= (4 if nearest else 5)


def test_no_figure_of_another_set_is_one_of_imagenets():
    others = [bricks(plan) for name in ("voc", "places", "species") for plan in PLAN_SETS[name]]
    assert max(shared_bricks(bricks(plan), other) for plan in PLAN_SETS["imagenet"] for other in others) <= 6


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("imagenet", [OBJECTS[name] for name in IMAGENET_PLANS]),
        ("voc", [OBJECTS[name] for name in VOC_PLANS]),
        ("places", [*PLACES.values()]),
        ("species", [shape for _, shape in SPECIES]),
    ],
)
def test_a_kind_of_brick_is_shared(name, shapes):
    """Knowing it, which small patches tell, leaves as many classes to choose from everywhere: five at least."""
    kinds = [shape.brick for shape in shapes]
    assert set(Counter(kinds).values()) == {SHARING[name]}
    assert kinds == sorted(kinds, key=kinds.index)  # the plans that share one follow each other
