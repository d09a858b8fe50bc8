"""COCO 2017 (Lin et al. 2014, "Microsoft COCO: Common Objects in Context", ECCV): what an annotation file says.

    coco/train2017/000000391895.jpg …
    coco/annotations/instances_{train,val}2017.json
        images       id, file_name, width, height
        categories   id, name: 80 of them, whose ids are not contiguous (1…90)
        annotations  id, image_id, category_id, bbox, area, iscrowd, segmentation; in no order

A bbox is x, y, width, height, 0-based and with fractions. The segmentation of an object is its polygons, each a list of
x and y in turn; that of a crowd (iscrowd 1: a group annotated as a whole) is {"size": [height, width], "counts":
lengths of runs of 0 and 1 in turn, down the columns}. A label is the position of the category's id in increasing order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.data.annotation import Annotation
from benchmark.data.entries import check_entries
from benchmark.data.findings import BadData, bad
from benchmark.data.folders import unlisted
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Presence

NAME = "coco2017"
HOME = "coco"
POINTS = 3  # a list with fewer is not a polygon; pycocotools takes one of two points for a box

Entry = dict[str, Any]
Fault = Callable[[str], BadData]  # from what is wrong to the error that says where


@dataclass(frozen=True)
class Listing:
    """One annotation file. annotations: by image file below `home`, in the order in which the file lists the images."""

    home: Path
    split: str
    annotations: dict[str, Annotation]
    classes: tuple[str, ...]

    def images(self) -> ImageSet:
        """Labels (N, classes): 1 where an image shows an object or a crowd of the class, else 0."""
        labels = np.zeros((len(self.annotations), len(self.classes)), dtype=np.int64)
        for row, annotation in zip(labels, self.annotations.values(), strict=True):
            row[annotation.labels] = 1
        skipped = unlisted(self.home / f"{self.split}2017", {file.partition("/")[2] for file in self.annotations})
        files = list(self.annotations)
        return ImageSet(f"{NAME}/{self.split}", self.home, files, Presence(labels, self.classes), skipped.texts())


def annotation_file(data_root: Path, split: str) -> Path:
    return data_root / HOME / "annotations" / f"instances_{split}2017.json"


def unpack(split: str) -> str:
    return f"Unpack {split}2017.zip and annotations_trainval2017.zip again."


def read_listing(data_root: Path, split: str) -> Listing:
    """UserError, with the file and the entry, for a file that is missing or not JSON; for a key that is missing; for an
    image without a file or listed twice; for an annotation of an unknown image or category, with a box outside its
    image, or with an invalid mask."""
    path = annotation_file(data_root, split)
    content = _load(path, split)
    numbers = _categories(path, split, content["categories"])
    files, sizes = _images(path, split, content["images"])
    found: dict[int, list[Entry]] = {image_id: [] for image_id in files}
    seen: set[int] = set()
    for number, entry in enumerate(content["annotations"]):
        fault = _fault(f"{path}, annotations[{number}]", split)
        _check_references(entry, found, numbers, seen, fault)
        found[entry["image_id"]].append(_parsed(entry, numbers, sizes[entry["image_id"]], fault))
    annotations = {files[image_id]: _annotation(found[image_id], sizes[image_id]) for image_id in files}
    classes = tuple(str(entry["name"]) for entry in sorted(content["categories"], key=lambda entry: entry["id"]))
    return Listing(data_root / HOME, split, annotations, classes)


def _fault(where: Path | str, split: str) -> Fault:
    return lambda what: bad(where, what, unpack(split))


def _load(path: Path, split: str) -> dict[str, list[Entry]]:
    fault = _fault(path, split)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise fault("there is no such file") from error
    except (ValueError, RecursionError) as error:
        raise fault(f"is not JSON ({error})") from error
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not entries:
            raise fault(f"has no list of {key}")
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise _fault(f"{path}, {key}[{number}]", split)(f"is {type(entry).__name__}, not an object with keys")
    return content


def _whole(entry: Entry, key: str, least: int, fault: Fault) -> int:
    value = entry.get(key)
    if type(value) is not int or value < least:  # not bool, which is an int to Python
        raise fault(f"{key} is {value!r}, not a whole number of at least {least}" if key in entry else f"has no {key}")
    return value


def _categories(path: Path, split: str, entries: list[Entry]) -> dict[int, int]:
    """Category id -> label."""
    ids: list[int] = []
    for number, entry in enumerate(entries):
        fault = _fault(f"{path}, categories[{number}]", split)
        ids.append(_whole(entry, "id", 0, fault))
        if "name" not in entry:
            raise fault("has no name")
        if ids[-1] in ids[:-1]:
            raise fault(f"id {ids[-1]} is listed twice")
    return {category: label for label, category in enumerate(sorted(ids))}


def _images(path: Path, split: str, entries: list[Entry]) -> tuple[dict[int, str], dict[int, tuple[int, int]]]:
    """By image id: the file below coco/, and (width, height)."""
    files: dict[int, str] = {}
    sizes: dict[int, tuple[int, int]] = {}
    for number, entry in enumerate(entries):
        fault = _fault(f"{path}, images[{number}]", split)
        image_id = _whole(entry, "id", 0, fault)
        if image_id in files:
            raise fault(f"id {image_id} is listed twice")
        if not isinstance(entry.get("file_name"), str):
            raise fault("has no file_name")
        files[image_id] = f"{split}2017/{entry['file_name']}"
        sizes[image_id] = _whole(entry, "width", 1, fault), _whole(entry, "height", 1, fault)
    names = [entry["file_name"] for entry in entries]
    # checked from the images' folder, because it is often a link to another disk
    check_entries(names, path.parents[1] / f"{split}2017", lambda i: f"{path}, images[{i}]")
    return files, sizes


def _check_references(
    entry: Entry, images: dict[int, list[Entry]], categories: dict[int, int], seen: set[int], fault: Fault
) -> None:
    own = _whole(entry, "id", 1, fault)  # pycocotools reads 0 as "matched nothing"
    if own in seen:
        raise fault(f"id {own} is listed twice")
    seen.add(own)
    for key, known in (("image_id", images), ("category_id", categories)):
        if _whole(entry, key, 0, fault) not in known:
            raise fault(f"{key} {entry[key]} is not in {'images' if key == 'image_id' else 'categories'}")
    if not _is_number(entry.get("area")):
        raise fault("area is missing or not a number")


def _parsed(entry: Entry, numbers: dict[int, int], size: tuple[int, int], fault: Fault) -> Entry:
    crowd = entry.get("iscrowd")
    if crowd not in (0, 1):
        raise fault(f"iscrowd is {crowd!r}, not 0 or 1")
    mask = _run_lengths(entry, size, fault) if crowd else _polygons(entry, fault)
    return {"box": _box(entry, size, fault), "label": numbers[entry["category_id"]], "crowd": crowd, "mask": mask}


def _annotation(objects: list[Entry], size: tuple[int, int]) -> Annotation:
    return Annotation(
        np.array([one["box"] for one in objects], dtype=np.float32).reshape(-1, 4),
        np.array([one["label"] for one in objects], dtype=np.int64),
        np.array([one["crowd"] for one in objects], dtype=bool),
        size,
        tuple(one["mask"] for one in objects),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _box(entry: Entry, size: tuple[int, int], fault: Fault) -> tuple[float, ...]:
    """x1, y1, x2, y2, clipped to the image. Two of train2017 have no height. That is not an error, but they are not
    trained on."""
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        raise fault(f"bbox is {box!r}, not four numbers")
    x, y, width, height = box
    if width < 0 or height < 0:
        raise fault(f"the box {box} has a negative side")
    if x + width < 0 or y + height < 0 or x > size[0] or y > size[1] or (width and height and _beside(box, size)):
        raise fault(f"the box {box} lies outside the image of {size[0]} × {size[1]}")
    corners = ((x, size[0]), (y, size[1]), (x + width, size[0]), (y + height, size[1]))
    return tuple(min(max(value, 0), most) for value, most in corners)


def _beside(box: list[float], size: tuple[int, int]) -> bool:
    """Whether a box that is not empty shares no more than an edge with its image."""
    return box[0] + box[2] <= 0 or box[1] + box[3] <= 0 or box[0] >= size[0] or box[1] >= size[1]


def _polygons(entry: Entry, fault: Fault) -> tuple[np.ndarray, ...]:
    polygons = entry.get("segmentation")
    if not isinstance(polygons, list):
        raise fault("segmentation is not a list of polygons, which an object must have")
    long_enough = [_points(polygon, fault) for polygon in polygons if not _is_short(polygon)]
    if not long_enough:
        raise fault(f"segmentation has no polygon of {POINTS} points or more")
    return tuple(long_enough)


def _is_short(polygon: object) -> bool:
    return isinstance(polygon, list) and len(polygon) < 2 * POINTS and len(polygon) % 2 == 0


def _points(polygon: object, fault: Fault) -> np.ndarray:
    """(K, 2) float32. NumPy checks the numbers, for speed: train2017 has 860,001 objects."""
    try:
        values = np.asarray(polygon)
    except ValueError:  # lists of several lengths
        values = np.empty(0, dtype=object)
    if values.ndim != 1 or len(values) % 2 or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise fault(f"the polygon {polygon!r} is not x and y in turn")
    return values.astype(np.float32).reshape(-1, 2)


def _run_lengths(entry: Entry, size: tuple[int, int], fault: Fault) -> tuple[np.ndarray, ...]:
    mask = entry.get("segmentation")
    counts = mask.get("counts") if isinstance(mask, dict) else None
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise fault("segmentation has no list of counts, which a crowd must have")
    assert isinstance(mask, dict)
    if mask.get("size") != [size[1], size[0]]:
        raise fault(f"the mask's size is {mask.get('size')!r}, but its image's is [{size[1]}, {size[0]}]")
    if sum(counts) != size[0] * size[1]:
        raise fault(f"the mask's counts add up to {sum(counts):,} pixels, but its image has {size[0] * size[1]:,}")
    return (np.array(counts, dtype=np.int64),)
