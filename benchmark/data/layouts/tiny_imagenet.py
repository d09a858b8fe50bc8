"""Tiny ImageNet (Stanford CS231n): 200 classes of ImageNet at 64 × 64.

    tiny-imagenet-200/wnids.txt                                      200 WNIDs, not in alphabetical order
    tiny-imagenet-200/train/n01443537/images/n01443537_0.JPEG …      500 per class
    tiny-imagenet-200/val/images/val_0.JPEG …                        10,000 in one folder
    tiny-imagenet-200/val/val_annotations.txt                        file, WNID, x1, y1, x2, y2, separated by tabs

A class index is the position of its WNID in alphabetical order. `test/` has no labels and is not read.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from benchmark.data.entries import check_entries, read_lines
from benchmark.data.findings import Finding, bad, some
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes
from benchmark.data.layouts.imagenet import WNID, class_folders, image_names

NAME = "tiny_imagenet"
HOME = "tiny-imagenet-200"
SPLITS = {"train": (100_000, 200), "val": (10_000, 200)}
LABELS = Classes

UNPACK = "Unpack tiny-imagenet-200.zip again."


def read(data_root: Path, split: str) -> ImageSet:
    root = data_root / HOME
    classes = _classes(root)
    files, labels = _train(root, classes) if split == "train" else _val(root, classes)
    return ImageSet(f"{NAME}/{split}", root, files, Classes(np.array(labels, dtype=np.int64), tuple(classes)))


def _classes(root: Path) -> list[str]:
    wnids = [line.strip() for line in read_lines(root / "wnids.txt", UNPACK) if line.strip()]
    for number, wnid in enumerate(wnids, start=1):
        if not WNID.fullmatch(wnid):
            raise bad(f"{root / 'wnids.txt'}, line {number}", f"{wnid!r} is not a WNID", UNPACK)
    return sorted(set(wnids))


def _train(root: Path, classes: list[str]) -> tuple[list[str], list[int]]:
    missing = sorted(set(classes) - set(class_folders(root / "train")))
    if missing:
        what = f"{len(missing):,} class folder(s) listed in wnids.txt are missing: {some(missing)}"
        raise bad(root / "train", what, "Unpack tiny-imagenet-200.zip again, or for a subset shorten wnids.txt.")
    files, labels = [], []
    for index, wnid in enumerate(classes):
        folder = root / "train" / wnid / "images"
        if not folder.is_dir():
            raise bad(folder, "there is no such folder", UNPACK)
        names = image_names(folder)
        files += [f"train/{wnid}/images/{name}" for name in names]
        labels += [index] * len(names)
    return files, labels


def _val(root: Path, classes: list[str]) -> tuple[list[str], list[int]]:
    """In the order of val_annotations.txt."""
    path = root / "val" / "val_annotations.txt"
    index = {wnid: i for i, wnid in enumerate(classes)}
    names, labels = [], []
    for number, line in enumerate(read_lines(path, UNPACK), start=1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in index:
            raise bad(f"{path}, line {number}", f"{line!r} does not start with a file and a WNID in wnids.txt", UNPACK)
        names.append(fields[0])
        labels.append(index[fields[1]])
    check_entries(names, root / "val" / "images", lambda i: f"{path}, line {i + 1}")
    return [f"val/images/{name}" for name in names], labels


def check(data_root: Path) -> list[Finding]:
    root = data_root / HOME
    images = root / "val" / "images"
    listed = {line.split("\t")[0] for line in read_lines(root / "val" / "val_annotations.txt", UNPACK)}
    extra = sorted(set(os.listdir(images)) - listed)
    if not extra:
        return []
    what = f"{len(extra):,} file(s) without a label in val_annotations.txt: {some(extra)}"
    return [Finding("warning", NAME, str(images), what, "They are never read. " + UNPACK)]
