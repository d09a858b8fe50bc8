"""Places365-Standard, small images (Zhou et al. 2017, "Places: A 10 million Image Database for Scene Recognition").

    places365_standard/train/airfield/00000001.jpg …            256 × 256
    places365_standard/val/airfield/Places365_val_00000435.jpg …

As places365standard_easyformat.tar unpacks. A class index is the place of its folder in alphabetical order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmark.data.class_folders import require_same_classes
from benchmark.data.findings import Finding, bad
from benchmark.data.folders import FOLDERS, HIDDEN, NO_IMAGES, Skipped, contents
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes

NAME = "places365"
HOME = "places365_standard"
SPLITS = {"train": (1_803_460, 365), "val": (36_500, 365)}
LABELS = Classes
ALSO_CALLED: tuple[str, ...] = ("places365",)

UNPACK = "Unpack places365standard_easyformat.tar again."


def read(data_root: Path, split: str) -> ImageSet:
    root = data_root / HOME
    folder, skipped = root / split, Skipped()
    if not folder.is_dir():
        raise bad(folder, "there is no such folder", UNPACK)
    inside = contents(folder)
    if not inside.folders or inside.lost:
        what = f"{inside.lost[0]} is a link to what is not there" if inside.lost else "there are no class folders"
        raise bad(folder, what, UNPACK)
    other = root / ("val" if split == "train" else "train")
    require_same_classes(root, split, inside.folders, contents(other).folders if other.is_dir() else [])
    skipped.add(HIDDEN, inside.hidden, split)
    skipped.add("file(s) beside the class folders", [*inside.images, *inside.others], split)
    files, labels = [], []
    for label, name in enumerate(inside.folders):
        names = _of_class(folder / name, skipped, f"{split}/{name}")
        files += [f"{split}/{name}/{image}" for image in names]
        labels += [label] * len(names)
    classes = Classes(np.array(labels, dtype=np.int64), tuple(inside.folders))
    return ImageSet(f"{NAME}/{split}", root, files, classes, skipped.texts())


def _of_class(folder: Path, skipped: Skipped, below: str) -> list[str]:
    inside = contents(folder)
    if not inside.images:
        raise bad(folder, "the class folder contains no images", UNPACK)
    skipped.add(HIDDEN, inside.hidden, below)
    skipped.add(NO_IMAGES, inside.others + inside.lost, below)
    skipped.add(FOLDERS, inside.folders, below)
    return inside.images


def check(data_root: Path) -> list[Finding]:
    """Nothing besides what reading both splits tells."""
    return []
