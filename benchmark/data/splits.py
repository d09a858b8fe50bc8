"""Parts of a training set, drawn by seed: the same on every machine, whatever was drawn before.

Each draw depends only on the seed, the class name and the number of images in the class, so a class keeps its draw when
other classes are removed.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmark.core.errors import UserError
from benchmark.core.streams import SplitStream
from benchmark.data.entries import read_lines
from benchmark.data.findings import bad, some
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes

Groups = list[tuple[str, np.ndarray]]  # (class name, positions of its images)


def percent_of(images: ImageSet, percent: float, seed: int) -> ImageSet:
    """So many per cent of a training set: those of a list such as 1percent.txt where one lies beside the images, as
    papers share them, else a draw. Recipes and transfers that say 1 % thereby mean the same images. 100 are all."""
    if percent == 100:
        return images
    path = images.root / f"{percent:g}percent.txt"
    if path.is_file():
        return from_list_file(images, path)
    draw = unlabelled_fraction if images.labels is None else labelled_fraction
    return draw(images, percent / 100, seed)


def unlabelled_fraction(images: ImageSet, fraction: float, seed: int) -> ImageSet:
    """A plain draw of round(fraction · n) images, at least one. In the order of `images`, and nested as with labels."""
    return _fraction_of_each(_undivided(images), images, fraction, seed)


def labelled_fraction(images: ImageSet, fraction: float, seed: int) -> ImageSet:
    """A class-balanced part: round(fraction · n) of each class's n images, at least one. In the order of `images`.

    Nested: with the same seed, a smaller fraction is part of a larger one (as in the lists in circulation).
    """
    return _fraction_of_each(_by_class(images), images, fraction, seed)


def _fraction_of_each(groups: Groups, images: ImageSet, fraction: float, seed: int) -> ImageSet:
    _check_fraction(fraction)
    chosen = []
    for name, members in groups:
        count = max(1, _round(fraction * len(members)))
        chosen.append(members[_permutation(len(members), seed, SplitStream.LABELLED, name)[:count]])
    return images.subset(np.sort(np.concatenate(chosen)), f"{100 * fraction:g}%, seed {seed}")


def held_out(images: ImageSet, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """(fit, held): a training set split in two, for choosing stages and regularisation without looking at the test set.

    Single labels: round(fraction · n) of each class's n images are held out, at least one, never a class's only image.
    Several labels per image, or none: a plain draw, at least one.
    """
    _check_fraction(fraction)
    groups = _by_class(images) if _single_label(images) else _undivided(images)
    held = []
    for name, members in groups:
        count = min(max(1, _round(fraction * len(members))), len(members) - 1)
        held.append(members[_permutation(len(members), seed, SplitStream.HELD_OUT, name)[:count]])
    is_held = np.zeros(len(images), dtype=bool)
    is_held[np.concatenate(held)] = True
    if not is_held.any():
        raise UserError(f"{images.name} has a single image in each class, so none can be held out.")
    suffix = f"{100 * fraction:g}%, seed {seed}"
    return (
        images.subset(np.flatnonzero(~is_held), f"without held out {suffix}"),
        images.subset(np.flatnonzero(is_held), f"held out {suffix}"),
    )


def from_list_file(images: ImageSet, path: Path) -> ImageSet:
    """The images that a list names, one per line, by file name (as 1percent.txt does) or by path below `images.root`.

    In the order of `images`. A name that is unknown, ambiguous or repeated is an error that gives the line; that of an
    image left out as unreadable is skipped.
    """
    fix = "Use a list made for this dataset and split."
    lines = [line.strip() for line in read_lines(path, "Check the path of the list.")]
    place_of = _places(images, {line for line in lines if line})
    left_out = {name for file in images.unreadable for name in (file, file.rpartition("/")[2])}
    skipped: list[str] = []
    line_of: dict[int, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        places = place_of.get(line, [])
        if not places and line in left_out:
            skipped.append(line)
            continue
        if len(places) != 1:
            what = f"{line!r} is the name of {len(places)} images" if places else f"{line!r} is not in {images.name}"
            raise bad(f"{path}, line {number}", what, fix)
        if places[0] in line_of:
            raise bad(f"{path}, line {number}", f"{line!r} is already in line {line_of[places[0]]}", fix)
        line_of[places[0]] = number
    if not line_of:
        raise bad(path, "names no image", fix)
    part = images.subset(np.array(sorted(line_of)), path.stem)
    if not skipped:
        return part
    text = f"{len(skipped):,} name(s) in {path.name} of images listed as unreadable: {some(skipped)}"
    return replace(part, skipped=(*part.skipped, text))


def _places(images: ImageSet, wanted: set[str]) -> dict[str, list[int]]:
    """Where in `images` each wanted name or path is."""
    places: dict[str, list[int]] = {}
    for i, file in enumerate(images.files):
        for name in {file, file.rpartition("/")[2]} & wanted:
            places.setdefault(name, []).append(i)
    return places


def _single_label(images: ImageSet) -> bool:
    return isinstance(images.labels, Classes)


def _undivided(images: ImageSet) -> Groups:
    return [("", np.arange(len(images)))]


def _by_class(images: ImageSet) -> Groups:
    """Of every class that has any."""
    labels = images.labelled(Classes).values
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=len(images.classes)))
    members = np.split(order, ends[:-1])
    return [(name, part) for name, part in zip(images.classes, members, strict=True) if len(part)]


def _permutation(count: int, seed: int, purpose: SplitStream, name: str) -> np.ndarray:
    """Argsort of uniform numbers, because of all NumPy's streams theirs is the least likely ever to change."""
    generator = np.random.default_rng([seed, purpose, zlib.crc32(name.encode())])
    return np.argsort(generator.random(count), kind="stable")


def _round(value: float) -> int:
    """Rounds half up. Python's own `round` rounds half to even, so 1 % of 50 images would round down and of 150 up."""
    return math.floor(value + 0.5)


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise UserError(f"The fraction {fraction} is not between 0 and 1.")
