"""COCO 2017: many objects per picture, each outlined by polygons; groups as crowds; some pictures without objects."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
from scipy.ndimage import binary_fill_holes

from benchmark.toyland.catalogue import VOC_OBJECTS
from benchmark.toyland.layouts.base import LayoutWriter, Picture, ScaleName, save_jpeg, write_text
from benchmark.toyland.layouts.voc import FORMATS
from benchmark.toyland.render import Instance, crowd, empty
from benchmark.toyland.rng import generator

SIZES: dict[ScaleName, dict[str, int]] = {"desk": {"train": 600, "val": 200}, "smoke": {"train": 24, "val": 12}}
CROWDING = tuple(weight / 28 for weight in range(7, 0, -1))  # the chances of one, two … seven objects in a picture
ALIKE = 0.3  # of an object's companions are of its kind
EMPTY_EVERY = 12  # one picture in so many shows nothing: more than in COCO, so that even a small set has one
CROWD = 3  # this many or more of a class in one picture are annotated as one crowd
LEAST_PIXELS = 12  # objects with fewer visible pixels are not annotated, as nobody would outline them
IDS = 600_000  # image ids are drawn below this

# What COCO calls VOC's twenty, with the ids it gives them: category -> (id, name, supercategory)
CATEGORIES: dict[str, tuple[int, str, str]] = {
    "person": (1, "person", "person"),
    "bicycle": (2, "bicycle", "vehicle"),
    "car": (3, "car", "vehicle"),
    "motorbike": (4, "motorcycle", "vehicle"),
    "aeroplane": (5, "airplane", "vehicle"),
    "bus": (6, "bus", "vehicle"),
    "train": (7, "train", "vehicle"),
    "boat": (9, "boat", "vehicle"),
    "bird": (16, "bird", "animal"),
    "cat": (17, "cat", "animal"),
    "dog": (18, "dog", "animal"),
    "horse": (19, "horse", "animal"),
    "sheep": (20, "sheep", "animal"),
    "cow": (21, "cow", "animal"),
    "bottle": (44, "bottle", "kitchen"),
    "chair": (62, "chair", "furniture"),
    "sofa": (63, "couch", "furniture"),
    "pottedplant": (64, "potted plant", "furniture"),
    "diningtable": (67, "dining table", "furniture"),
    "tvmonitor": (72, "tv", "electronic"),
}


@dataclass(frozen=True)
class CocoNote:
    """size: width, height. objects: annotations, still without their id and their image's."""

    size: tuple[int, int]
    objects: list[dict[str, Any]]


def pictures(scale: ScaleName, seed: int) -> list[Picture]:
    """Every class is the main one equally often; one picture in twelve shows nothing. Ids are in no order."""
    total = sum(SIZES[scale].values())
    ids = iter(generator(seed, "coco2017", "ids").choice(IDS, total, replace=False).tolist())
    found = []
    for split, count in SIZES[scale].items():
        for index in range(count):
            empty = index % EMPTY_EVERY == EMPTY_EVERY - 1
            main = "" if empty else VOC_OBJECTS[(index - index // EMPTY_EVERY) % len(VOC_OBJECTS)]
            found.append(Picture(split, index, main, f"coco/{split}2017/{next(ids):012d}.jpg"))
    return found


def draw(root: Path, picture: Picture, seed: int) -> CocoNote:
    rng = generator(seed, "coco2017", picture.split, picture.index)
    size = FORMATS[int(rng.integers(len(FORMATS)))]
    image, instances = crowd(rng, picture.shows, *size, CROWDING, ALIKE) if picture.shows else (empty(rng, *size), [])
    save_jpeg(image, root / picture.path)
    return CocoNote(size, outlined(instances))


def outlined(instances: Sequence[Instance]) -> list[dict[str, Any]]:
    """The annotation of each object that is visible enough; three or more of a class are one crowd."""
    by_class: defaultdict[str, list[np.ndarray]] = defaultdict(list)
    for instance in instances:
        if instance.mask.sum() >= LEAST_PIXELS:
            by_class[instance.name].append(instance.mask)
    found = []
    for name, masks in by_class.items():
        if len(masks) >= CROWD:
            found.append(_entry(name, np.any(masks, axis=0), is_crowd=True))
        else:
            found += [_entry(name, mask, is_crowd=False) for mask in masks]
    return found


def _entry(name: str, mask: np.ndarray, is_crowd: bool) -> dict[str, Any]:
    mask = mask if is_crowd else binary_fill_holes(mask)  # COCO's polygons have no holes
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(xs[0]), int(ys[0])
    return {
        "segmentation": run_lengths(mask) if is_crowd else polygons(mask),
        "area": float(mask.sum()),
        "iscrowd": int(is_crowd),
        "bbox": [left, top, int(xs[-1]) + 1 - left, int(ys[-1]) + 1 - top],
        "category_id": CATEGORIES[name][0],
    }


def polygons(mask: np.ndarray) -> list[list[float]]:
    """The outline of each part of a mask without holes, along the pixels' edges with cut corners: x and y in turn."""
    lines = contourpy.contour_generator(z=np.pad(mask, 1).astype(float)).lines(0.5)
    return [_corners(np.asarray(line)[:-1] - 0.5).ravel().tolist() for line in lines]  # the last point is the first


def _corners(points: np.ndarray) -> np.ndarray:
    """The points (K, 2) of a closed line at which it turns."""
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    return points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """Lengths of runs of 0 and 1 in turn, down the columns; the first may be 0."""
    pixels = np.concatenate([[False], mask.ravel(order="F")])
    starts = np.flatnonzero(pixels[1:] != pixels[:-1])
    return {"size": list(mask.shape), "counts": np.diff([0, *starts, mask.size]).tolist()}


def finish(root: Path, scale: ScaleName, seed: int, pictures: Sequence[Picture], notes: Sequence[CocoNote]) -> None:
    for split in SIZES[scale]:
        chosen = [(p, note) for p, note in zip(pictures, notes, strict=True) if p.split == split]
        write_text(root / "coco" / "annotations" / f"instances_{split}2017.json", json.dumps(listing(chosen, seed)))


def listing(chosen: Sequence[tuple[Picture, CocoNote]], seed: int) -> dict[str, Any]:
    """One annotation file. As in COCO's, neither images nor annotations are in any order."""
    split = chosen[0][0].split
    images, objects = [], []
    for picture, note in chosen:
        path = Path(picture.path)
        width, height = note.size
        images.append({"license": 1, "file_name": path.name, "width": width, "height": height, "id": int(path.stem)})
        objects += [{**entry, "image_id": int(path.stem)} for entry in note.objects]
    images, objects = (
        [entries[place] for place in generator(seed, "coco2017", split, what).permutation(len(entries)).tolist()]
        for what, entries in (("images", images), ("annotations", objects))
    )
    return {
        "info": {"year": 2017, "version": "1.0", "description": "Toyland, drawn in the layout of COCO 2017"},
        "licenses": [{"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
        "images": images,
        "annotations": [{**entry, "id": 100 * number} for number, entry in enumerate(objects, start=1)],
        "categories": [
            {"supercategory": above, "id": number, "name": name} for number, name, above in CATEGORIES.values()
        ],
    }


LAYOUT = LayoutWriter("coco2017", ("coco",), pictures, draw, finish)
