"""ImageNet ILSVRC2012 (Russakovsky et al. 2015, "ImageNet Large Scale Visual Recognition Challenge", IJCV).

    imagenet/train/n01440764/n01440764_10026.JPEG …          1,281,167 images
    imagenet/val/n01440764/ILSVRC2012_val_00000293.JPEG …    50,000 images, sorted into folders; or flat, as downloaded:
    imagenet/val/ILSVRC2012_val_00000001.JPEG …
    imagenet/ILSVRC2012_devkit_t12/data/{meta.mat, ILSVRC2012_validation_ground_truth.txt}

A class index is the position of its WNID in alphabetical order, as in torchvision's ImageFolder and Caffe's lists. The
devkit's ILSVRC2012_ID (1…1000) has another order and is only ever used as a key into meta.mat.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from benchmark.data.class_folders import (
    LEFTOVERS,
    UNPACK_CLASS,
    beside_class_folders,
    class_folders,
    image_names,
    require_same_classes,
)
from benchmark.data.findings import BadData, Finding, Level, bad, some
from benchmark.data.folders import HIDDEN, NO_IMAGES, Contents, Skipped, contents
from benchmark.data.ilsvrc_devkit import GROUND_TRUTH, devkit, devkit_places, val_wnids
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes

NAME = "imagenet"
HOME = "imagenet"
SPLITS = {"train": (1_281_167, 1000), "val": (50_000, 1000)}
LABELS = Classes
ALSO_CALLED: tuple[str, ...] = ("ILSVRC2012", "ILSVRC", "imagenet-1k", "CLS-LOC")

FLAT_VAL = re.compile(r"ILSVRC2012_val_(\d{8})(?:_(n\d{8}))?\.(?:JPEG|jpe?g)", re.IGNORECASE)


def read(data_root: Path, split: str) -> ImageSet:
    root = data_root / HOME
    if split == "val" and not class_folders(root / "val"):
        return _read_flat_val(data_root)
    classes = _classes(root, split)
    skipped = beside_class_folders(root / split, split)
    files: list[str] = []
    counts = []
    for wnid in classes:
        names = image_names(root / split / wnid, wnid, skipped, f"{split}/{wnid}")
        files += [f"{split}/{wnid}/{name}" for name in names]
        counts.append(len(names))
    labels = np.repeat(np.arange(len(classes)), counts)
    return ImageSet(f"{NAME}/{split}", root, files, Classes(labels, tuple(classes)), skipped.texts())


def _classes(root: Path, split: str) -> list[str]:
    """The classes of a split kept in folders."""
    found = class_folders(root / split)
    if not found:
        raise _no_folders(root / split)
    require_same_classes(root, split, found, class_folders(root / ("val" if split == "train" else "train")))
    return found


def _no_folders(folder: Path) -> BadData:
    if not folder.is_dir():
        return bad(folder, "there is no such folder", f"Unpack the images there, or link it to your {folder.name}/.")
    if any(name.endswith(".tar") for name in os.listdir(folder)):
        return bad(folder, "contains archives, not class folders", UNPACK_CLASS)
    return bad(folder, "contains no class folder such as n01440764", "Unpack the images into one folder per WNID.")


def _read_flat_val(data_root: Path) -> ImageSet:
    root = data_root / HOME
    if not (root / "val").is_dir():
        raise _no_folders(root / "val")
    inside = contents(root / "val")
    name_of = _numbered(root / "val", inside.images)
    if not name_of:
        held = f"; it holds {some([*inside.images, *inside.others, *inside.folders])}" if inside != Contents() else ""
        what = f"contains neither class folders nor ILSVRC2012_val_*.JPEG{held}"
        raise bad(root / "val", what, "Unpack ILSVRC2012_img_val.tar.")
    wnids = _flat_wnids(data_root, name_of)
    skipped = Skipped()
    skipped.add(HIDDEN, inside.hidden, "val")
    skipped.add("file(s) without a number of the validation set", sorted({*inside.images} - {*name_of.values()}), "val")
    skipped.add(NO_IMAGES, inside.others + inside.lost, "val")
    skipped.add("folder(s) that are not classes", inside.folders, "val")
    classes = class_folders(root / "train") or sorted(set(wnids))
    strange = sorted(set(wnids) - set(classes))
    if strange:
        what = f"has images of {len(strange):,} class(es) that train/ lacks: {some(strange)}"
        raise bad(root / "val", what, "Unpack them into train/, or for a subset sort val/ into class folders.")
    index = {wnid: i for i, wnid in enumerate(classes)}
    labels = np.array([index[wnid] for wnid in wnids], dtype=np.int64)
    files = [f"val/{name_of[number]}" for number in sorted(name_of)]
    return ImageSet(f"{NAME}/val", root, files, Classes(labels, tuple(classes)), skipped.texts())


def _numbered(folder: Path, names: list[str]) -> dict[int, str]:
    """Number -> name of the images of a flat val/, which people also rename to .jpg or give their WNID."""
    name_of: dict[int, str] = {}
    for name in names:
        if match := FLAT_VAL.fullmatch(name):
            other = name_of.setdefault(int(match[1]), name)
            if other != name:
                raise bad(folder, f"{other} and {name} are the same image", "Keep one of each.")
    return name_of


def _flat_wnids(data_root: Path, name_of: dict[int, str]) -> list[str]:
    """The WNIDs of a flat val/ by number: the devkit's, which those in the names must be too; or the names' alone."""
    folder = data_root / HOME / "val"
    named = {number: match[2] for number, name in name_of.items() if (match := FLAT_VAL.fullmatch(name)) and match[2]}
    if len(named) == len(name_of) and not any(place.is_dir() for place in devkit_places(data_root, HOME)):
        _same_images(folder, name_of, max(name_of), "their numbers")
        return [named[number] for number in sorted(named)]
    wnids = val_wnids(devkit(data_root, HOME))
    _same_images(folder, name_of, len(wnids), GROUND_TRUTH)
    wrong = [name_of[number] for number, wnid in sorted(named.items()) if wnids[number - 1] != wnid]
    if wrong:
        what = f"{len(wrong):,} image(s) are called after another class than the devkit's: {some(wrong)}"
        raise bad(folder, what, "Unpack ILSVRC2012_img_val.tar and the devkit again.")
    return wnids


def _same_images(folder: Path, numbers: Collection[int], expected: int, labels_in: str) -> None:
    """Line i of the ground truth is image i, so the images must be numbers 1 … expected without a gap."""
    missing = sorted(set(range(1, expected + 1)) - {*numbers})
    if missing:
        named = some([f"ILSVRC2012_val_{i:08d}.JPEG" for i in missing])
        what = f"{len(missing):,} of the {expected:,} images in {labels_in} missing: {named}"
        raise bad(folder, what, "Unpack ILSVRC2012_img_val.tar again.")
    if len(numbers) > expected:
        what = f"{len(numbers):,} images but only {expected:,} labels in {labels_in}"
        raise bad(folder, what, "Use the devkit of the same release.")


def check(data_root: Path) -> list[Finding]:
    root = data_root / HOME
    return [found for split in SPLITS for found in _leftovers(root / split)] + _check_devkit(data_root)


def _leftovers(folder: Path) -> list[Finding]:
    """A half-sorted split: its class folders lack the images that lie beside them."""
    images = contents(folder).images if class_folders(folder) else []
    if not images:
        return []
    fix = "Sort them into the class folders too, or remove them; so far they are not read."
    return [Finding("error", NAME, str(folder), f"{len(images):,} {LEFTOVERS}: {some(images)}", fix)]


def _check_devkit(data_root: Path) -> list[Finding]:
    """If there is a devkit, the class folders must agree with it."""
    root = data_root / HOME
    if not any(place.is_dir() for place in devkit_places(data_root, HOME)):
        return []
    wnids = val_wnids(devkit(data_root, HOME))
    return _missing_classes(root, wnids) + _misplaced(root, wnids)


def _missing_classes(root: Path, wnids: list[str]) -> list[Finding]:
    """Classes of the devkit without a training folder. A few look like an accident, most of them like a subset."""
    expected = set(wnids)
    missing = sorted(expected - set(class_folders(root / "train")))
    if not missing:
        return []
    level: Level = "warning" if len(missing) < len(expected) / 2 else "note"
    what = f"{len(missing):,} of the devkit's {len(expected):,} classes have no folder: {some(missing)}"
    return [Finding(level, NAME, str(root / "train"), what, "Unpack them, unless you mean to use a subset.")]


def _misplaced(root: Path, wnids: list[str]) -> list[Finding]:
    """Images in another class's folder of val/."""
    wrong = []
    for wnid in class_folders(root / "val"):
        for name in os.listdir(root / "val" / wnid):
            match = FLAT_VAL.fullmatch(name)
            if match and int(match[1]) <= len(wnids) and wnids[int(match[1]) - 1] != wnid:
                wrong.append(f"{wnid}/{name}")
    if not wrong:
        return []
    fix = "Sort val/ into folders again, mapping the ground truth's ids through meta.mat; they are not in WNID order."
    what = f"{len(wrong):,} image(s) in the wrong class folder, according to the devkit: {some(wrong)}"
    return [Finding("error", NAME, str(root / "val"), what, fix)]
