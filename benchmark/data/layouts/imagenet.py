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
from pathlib import Path

import numpy as np

from benchmark.data.findings import BadData, Finding, Level, bad, some
from benchmark.data.image_set import ImageSet
from benchmark.data.images import is_image_name
from benchmark.data.labels import Classes

NAME = "imagenet"
HOME = "imagenet"
SPLITS = {"train": (1_281_167, 1000), "val": (50_000, 1000)}
LABELS = Classes

WNID = re.compile(r"n\d{8}")
FLAT_VAL = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
DEVKIT = Path("ILSVRC2012_devkit_t12/data")


def read(data_root: Path, split: str) -> ImageSet:
    root = data_root / HOME
    if split == "val" and not class_folders(root / "val"):
        return _read_flat_val(data_root)
    classes = _classes(root, split)
    files: list[str] = []
    counts = []
    for wnid in classes:
        names = image_names(root / split / wnid)
        files += [f"{split}/{wnid}/{name}" for name in names]
        counts.append(len(names))
    labels = np.repeat(np.arange(len(classes)), counts)
    return ImageSet(f"{NAME}/{split}", root, files, Classes(labels, tuple(classes)))


def class_folders(folder: Path) -> list[str]:
    """The WNID folders in `folder`, in alphabetical order, which is the order of class indices."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if WNID.fullmatch(entry.name) and entry.is_dir())


def image_names(folder: Path) -> list[str]:
    """The images directly in one class folder, sorted; there must be at least one."""
    names = sorted(name for name in os.listdir(folder) if is_image_name(name))
    if not names:
        raise bad(
            folder, "the class folder contains no images", "Unpack the class's archive into it, or remove the folder."
        )
    return names


def _classes(root: Path, split: str) -> list[str]:
    """The classes of a split kept in folders. Training and validation must agree: a missing folder on either side would
    shift the index of every class after it."""
    found = class_folders(root / split)
    if not found:
        raise _no_folders(root / split)
    other = class_folders(root / ("val" if split == "train" else "train"))
    for mine, theirs, folder in ((found, other, split), (other, found, "train" if split == "val" else "val")):
        missing = sorted(set(theirs) - set(mine))
        if other and missing:
            what = f"{len(missing):,} class folder(s) that the other split has are missing: {some(missing)}"
            raise bad(root / folder, what, "Unpack them, or for a subset remove them from both train/ and val/.")
    return found


def _no_folders(folder: Path) -> BadData:
    if not folder.is_dir():
        return bad(folder, "there is no such folder", f"Unpack the images there, or link it to your {folder.name}/.")
    if any(name.endswith(".tar") for name in os.listdir(folder)):
        return bad(folder, "contains archives, not class folders", "Unpack each n….tar into a folder of the same name.")
    return bad(folder, "contains no class folder such as n01440764", "Unpack the images into one folder per WNID.")


def _read_flat_val(data_root: Path) -> ImageSet:
    root = data_root / HOME
    if not (root / "val").is_dir():
        raise _no_folders(root / "val")
    names = sorted(name for name in os.listdir(root / "val") if FLAT_VAL.fullmatch(name))
    if not names:
        raise bad(
            root / "val", "contains neither class folders nor ILSVRC2012_val_*.JPEG", "Unpack ILSVRC2012_img_val.tar."
        )
    wnids = _val_wnids(devkit(data_root))
    _same_images(root / "val", names, len(wnids))
    classes = class_folders(root / "train") or sorted(set(wnids))
    strange = sorted(set(wnids) - set(classes))
    if strange:
        what = f"has images of {len(strange):,} class(es) that train/ lacks: {some(strange)}"
        raise bad(root / "val", what, "Unpack them into train/, or for a subset sort val/ into class folders.")
    index = {wnid: i for i, wnid in enumerate(classes)}
    labels = np.array([index[wnid] for wnid in wnids], dtype=np.int64)
    return ImageSet(f"{NAME}/val", root, [f"val/{name}" for name in names], Classes(labels, tuple(classes)))


def _same_images(folder: Path, names: list[str], expected: int) -> None:
    """Line i of the ground truth is image i, so the images must be numbers 1 … expected without a gap."""
    numbers = {int(name[len("ILSVRC2012_val_") : -len(".JPEG")]) for name in names}
    missing = sorted(set(range(1, expected + 1)) - numbers)
    if missing:
        named = some([f"ILSVRC2012_val_{i:08d}.JPEG" for i in missing])
        raise bad(
            folder, f"{len(missing):,} of {expected:,} images missing: {named}", "Unpack ILSVRC2012_img_val.tar again."
        )
    if len(names) > expected:
        raise bad(folder, f"{len(names):,} images but only {expected:,} labels", "Use the devkit of the same release.")


def devkit_places(data_root: Path) -> list[Path]:
    """Where the devkit's data folder may be: inside imagenet/, or beside it."""
    return [data_root / HOME / DEVKIT, data_root / DEVKIT]


def devkit(data_root: Path) -> Path:
    """The devkit's data folder."""
    for place in devkit_places(data_root):
        if place.is_dir():
            return place
    raise bad(
        data_root / HOME / DEVKIT,
        "a flat val/ needs the devkit for its labels",
        "Unpack ILSVRC2012_devkit_t12.tar.gz there.",
    )


def _val_wnids(folder: Path) -> list[str]:
    """The WNID of validation image 1, 2, …: the ground truth's ids looked up in meta.mat."""
    wnid_of = _wnid_of_id(folder / "meta.mat")
    path = folder / "ILSVRC2012_validation_ground_truth.txt"
    if not path.is_file():
        raise bad(path, "there is no such file", "Unpack ILSVRC2012_devkit_t12.tar.gz again.")
    wnids = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split(), start=1):
        if not line.isdecimal() or int(line) not in wnid_of:
            raise bad(f"{path}, line {number}", f"meta.mat has no ILSVRC2012_ID {line!r}", "Unpack the devkit again.")
        wnids.append(wnid_of[int(line)])
    return wnids


def _wnid_of_id(path: Path) -> dict[int, str]:
    """ILSVRC2012_ID -> WNID of the actual classes; meta.mat lists their parents in the hierarchy too."""
    from scipy.io import loadmat  # slow to import, and only a flat val needs it

    try:
        synsets = loadmat(path, squeeze_me=True)["synsets"]
        leaves = [s for s in np.atleast_1d(synsets) if int(s["num_children"]) == 0]
        return {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in leaves}
    except Exception as error:  # loadmat can raise nearly anything on a broken file
        raise bad(path, f"cannot be read as the devkit's meta.mat ({error})", "Unpack the devkit again.") from error


def check(data_root: Path) -> list[Finding]:
    root = data_root / HOME
    findings = []
    for split in SPLITS:
        folder = root / split
        strays = sorted(e.name for e in os.scandir(folder) if e.is_dir()) if folder.is_dir() else []
        strays = [name for name in strays if not WNID.fullmatch(name)]
        if strays:
            fix = "Class folders must be named by WNID (n01440764), not by number or word. Rename or remove them."
            what = f"folders that are not classes: {some(strays)}"
            findings.append(Finding("warning", NAME, str(folder), what, fix))
    return findings + _check_devkit(data_root)


def _check_devkit(data_root: Path) -> list[Finding]:
    """If there is a devkit, the class folders must agree with it."""
    root = data_root / HOME
    if not any(place.is_dir() for place in devkit_places(data_root)):
        return []
    wnids = _val_wnids(devkit(data_root))
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
