"""ILSVRC2012: train folders named by WNID, a flat val, and a devkit whose ids are not in WNID order."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.toyland.catalogue import IMAGENET_OBJECTS, OBJECTS
from benchmark.toyland.layouts.base import LayoutWriter, Picture, ScaleName, lines, save_jpeg, write_text
from benchmark.toyland.render import single
from benchmark.toyland.rng import generator

PIXELS = 96
SIZES: dict[ScaleName, tuple[int, int, int]] = {
    "desk": (20, 100, 50),
    "smoke": (4, 12, 4),
}  # classes; train and val images of each
DEVKIT = "imagenet/ILSVRC2012_devkit_t12/data"

WNIDS = {
    "truck": "n04490091",
    "house": "n03544360",
    "castle": "n02980441",
    "giraffe": "n02439033",
    "rocket": "n04099429",
    "cup": "n03147509",
    "lamp": "n03636649",
    "snowman": "n10629020",
    "windmill": "n04587559",
    "umbrella": "n04507155",
    "guitar": "n03467517",
    "anchor": "n02709367",
    "lighthouse": "n02814860",
    "teapot": "n04398044",
    "helicopter": "n03512147",
    "robot": "n02761392",
    "clock": "n03046257",
    "turtle": "n01662784",
    "elephant": "n02503517",
    "scissors": "n04148054",
}
_GROUPS = {"n00003553": "whole", "n00004475": "organism", "n00021939": "artifact"}  # synsets above the leaves
_FIELDS = (
    *("ILSVRC2012_ID", "WNID", "words", "gloss"),
    *("num_children", "children", "wordnet_height", "num_train_images"),
)


def class_names(count: int) -> list[str]:
    """The first `count` objects, in the order of their WNIDs: the order of the class indices."""
    return sorted(IMAGENET_OBJECTS[:count], key=WNIDS.__getitem__)


def devkit_ids(names: Sequence[str]) -> dict[str, int]:
    """name → ILSVRC2012_ID, 1 … n: as in the real devkit, not in the order of the WNIDs."""
    order = generator(0, "imagenet", "devkit").permutation(len(names))
    if (np.diff(order) > 0).all():
        order = order[::-1]
    return {name: int(rank) + 1 for name, rank in zip(names, order, strict=True)}


def pictures(scale: ScaleName, seed: int) -> list[Picture]:
    classes, train, val = SIZES[scale]
    names = class_names(classes)
    found = []
    for index in range(classes * train):
        name = names[index % classes]
        number = (index * 7919 + 10026) % 50021  # neither sequential nor padded, and unique: 50021 is prime
        found.append(Picture("train", index, name, f"imagenet/train/{WNIDS[name]}/{WNIDS[name]}_{number}.JPEG"))
    order = generator(seed, "imagenet", "val order").permutation(classes * val)
    for index, place in enumerate(order.tolist()):
        found.append(Picture("val", index, names[place % classes], f"imagenet/val/ILSVRC2012_val_{index + 1:08d}.JPEG"))
    return found


def draw(root: Path, picture: Picture, seed: int) -> None:
    rng = generator(seed, "imagenet", picture.split, picture.index)
    image, _ = single(rng, OBJECTS[picture.shows], PIXELS, PIXELS)
    save_jpeg(image, root / picture.path)


def finish(root: Path, scale: ScaleName, seed: int, pictures: Sequence[Picture], notes: Sequence[Any]) -> None:
    names = class_names(SIZES[scale][0])
    ids = devkit_ids(names)
    truth = [str(ids[picture.shows]) for picture in pictures if picture.split == "val"]
    write_text(root / DEVKIT / "ILSVRC2012_validation_ground_truth.txt", lines(truth))
    (root / DEVKIT / "meta.mat").write_bytes(_meta_mat(names, ids, images_each=SIZES[scale][1]))


def _meta_mat(names: Sequence[str], ids: dict[str, int], images_each: int) -> bytes:
    """The devkit's `synsets` struct: leaves by ILSVRC2012_ID, then the synsets above them with the ids that follow."""
    from scipy.io import savemat  # slow to import, and only this file needs it

    leaves = sorted(names, key=ids.__getitem__)
    everything = list(range(1, len(leaves) + 1))
    rows: list[tuple[Any, ...]] = [
        (ids[name], WNIDS[name], name, f"a drawn {name}", 0, np.zeros((1, 0)), 0, images_each) for name in leaves
    ]
    for offset, (wnid, words) in enumerate(_GROUPS.items()):
        children = np.array(everything[offset :: len(_GROUPS)], dtype=float)
        number = len(leaves) + 1 + offset
        rows.append((number, wnid, words, f"a kind of {words}", len(children), children, 1, 0))
    synsets = np.empty((len(rows), 1), dtype=[(field, object) for field in _FIELDS])
    for row, values in enumerate(rows):
        synsets[row, 0] = values
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": synsets})
    header = b"MATLAB 5.0 MAT-file, Toyland"  # instead of scipy's, which holds the time of day: same world, same bytes
    return header.ljust(116) + buffer.getvalue()[116:]


LAYOUT = LayoutWriter("imagenet", ("imagenet",), pictures, draw, finish)
