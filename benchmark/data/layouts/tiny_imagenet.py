"""Tiny ImageNet (Stanford CS231n): 200 classes of ImageNet at 64 × 64.

    tiny-imagenet-200/wnids.txt                                      200 WNIDs, not in alphabetical order
    tiny-imagenet-200/train/n01443537/images/n01443537_0.JPEG …      500 per class
    tiny-imagenet-200/val/images/val_0.JPEG …                        10,000 in one folder
    tiny-imagenet-200/val/val_annotations.txt                        file, WNID, x1, y1, x2, y2, separated by tabs

A class index is the position of its WNID in alphabetical order. `test/` has no labels and is not read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmark.data.class_folders import WNID, beside_class_folders, class_folders, image_names
from benchmark.data.entries import check_entries, read_lines
from benchmark.data.findings import Finding, bad, some
from benchmark.data.folders import Skipped, contents, unlisted
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes

NAME = "tiny_imagenet"
HOME = "tiny-imagenet-200"
SPLITS = {"train": (100_000, 200), "val": (10_000, 200)}
LABELS = Classes
ALSO_CALLED: tuple[str, ...] = ("tiny-imagenet",)

UNPACK = "Unpack tiny-imagenet-200.zip again."
UNLISTED = "class folder(s) that wnids.txt does not list"
LEFTOVERS = "image(s) beside their class's images/"


def read(data_root: Path, split: str) -> ImageSet:
    root = data_root / HOME
    classes = _classes(root)
    files, labels, skipped = _train(root, classes) if split == "train" else _val(root, classes)
    values = np.array(labels, dtype=np.int64)
    return ImageSet(f"{NAME}/{split}", root, files, Classes(values, tuple(classes)), skipped.texts())


def _classes(root: Path) -> list[str]:
    wnids = [line.strip() for line in read_lines(root / "wnids.txt", UNPACK) if line.strip()]
    for number, wnid in enumerate(wnids, start=1):
        if not WNID.fullmatch(wnid):
            raise bad(f"{root / 'wnids.txt'}, line {number}", f"{wnid!r} is not a WNID", UNPACK)
    if not wnids:
        raise bad(root / "wnids.txt", "the list is empty", UNPACK)
    return sorted(set(wnids))


def _train(root: Path, classes: list[str]) -> tuple[list[str], list[int], Skipped]:
    there = class_folders(root / "train")
    missing = sorted(set(classes) - set(there))
    if missing:
        what = f"{len(missing):,} class folder(s) listed in wnids.txt are missing: {some(missing)}"
        raise bad(root / "train", what, "Unpack tiny-imagenet-200.zip again, or for a subset shorten wnids.txt.")
    skipped = beside_class_folders(root / "train", "train")
    skipped.add(UNLISTED, sorted(set(there) - set(classes)), "train")
    files, labels = [], []
    for index, wnid in enumerate(classes):
        folder = root / "train" / wnid / "images"
        if not folder.is_dir():
            raise bad(folder, "there is no such folder", UNPACK)
        names = image_names(folder, wnid, skipped, f"train/{wnid}/images")
        skipped.add(LEFTOVERS, contents(folder.parent).images, f"train/{wnid}")
        files += [f"train/{wnid}/images/{name}" for name in names]
        labels += [index] * len(names)
    return files, labels, skipped


def _val(root: Path, classes: list[str]) -> tuple[list[str], list[int], Skipped]:
    """In the order of val_annotations.txt."""
    path = root / "val" / "val_annotations.txt"
    index = {wnid: i for i, wnid in enumerate(classes)}
    names, labels = [], []
    for number, line in enumerate(read_lines(path, UNPACK), start=1):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) < 2 or fields[1] not in index:
            raise bad(f"{path}, line {number}", f"{line!r} does not start with a file and a WNID in wnids.txt", UNPACK)
        names.append(fields[0])
        labels.append(index[fields[1]])
    if not names:
        raise bad(path, "the list is empty", UNPACK)
    check_entries(names, root / "val" / "images", lambda i: f"{path}, line {i + 1}")
    return [f"val/images/{name}" for name in names], labels, unlisted(root / "val" / "images", {*names})


def check(data_root: Path) -> list[Finding]:
    """Photos that a class has beside its images/ are missing from it."""
    root = data_root / HOME / "train"
    beside = [f"{wnid}/{name}" for wnid in class_folders(root) for name in contents(root / wnid).images]
    if not beside:
        return []
    fix = "Move them into images/, or remove them; so far they are not read."
    return [Finding("error", NAME, str(root), f"{len(beside):,} {LEFTOVERS}: {some(beside)}", fix)]
