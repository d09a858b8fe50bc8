"""Images sorted into one folder for each class, which is called by its WNID: n01440764, n01443537, …"""

from __future__ import annotations

import re
from pathlib import Path

from benchmark.data.findings import bad, some
from benchmark.data.folders import FOLDERS, HIDDEN, NO_IMAGES, Skipped, contents

WNID = re.compile(r"n\d{8}")
PACKED = re.compile(r"n\d{8}\.tar")
OF_CLASS = re.compile(r"(?:^|_)(n\d{8})(?=[_.])")  # n01440764_10026.JPEG; also ILSVRC2012_val_00000293_n01440764.JPEG
LEFTOVERS = "image(s) beside the class folders"
UNPACK_CLASS = "Unpack each class's n….tar into a folder of the same name, or for a subset remove it from both splits."
MOUNT = "Mount the disk that they lead to, or for a subset remove them from both train/ and val/."


def class_folders(folder: Path) -> list[str]:
    """The WNID folders in `folder`, in alphabetical order, which is the order of class indices.

    UserError for a class that is there but no folder: without it, every class after it would have another index.
    """
    if not folder.is_dir():
        return []
    inside = contents(folder)
    found = [name for name in inside.folders if WNID.fullmatch(name)]
    for names, what, fix in (
        ([name for name in inside.lost if WNID.fullmatch(name)], "are links to what is not there", MOUNT),
        ([name for name in inside.others if WNID.fullmatch(name)], "are files, not folders", UNPACK_CLASS),
        (_packed(inside.others, found), "are still archives", UNPACK_CLASS),
    ):
        if names:
            raise bad(folder, f"{len(names):,} of the classes {what}: {some(names)}", fix)
    return found


def require_same_classes(root: Path, split: str, found: list[str], other: list[str]) -> None:
    """Training and validation must agree: a missing folder on either side would shift the index of every class after
    it. found: the class folders of `split`; other: those of the other one, none where that is not there.

    BadData for the one that lacks some.
    """
    for mine, theirs, folder in ((found, other, split), (other, found, "train" if split == "val" else "val")):
        missing = sorted(set(theirs) - set(mine))
        if other and missing:
            what = f"{len(missing):,} class folder(s) that the other split has are missing: {some(missing)}"
            raise bad(root / folder, what, "Unpack them, or for a subset remove them from both train/ and val/.")


def _packed(names: list[str], unpacked: list[str]) -> list[str]:
    """Archives of classes beside unpacked ones; where there are only archives, nothing is read anyway."""
    return [name for name in names if unpacked and PACKED.fullmatch(name) and name[:9] not in unpacked]


def beside_class_folders(folder: Path, below: str) -> Skipped:
    """What is directly in `folder` and no class."""
    inside, skipped = contents(folder), Skipped()
    skipped.add(HIDDEN, inside.hidden, below)
    skipped.add(LEFTOVERS, inside.images, below)
    skipped.add("folder(s) that are not classes", (name for name in inside.folders if not WNID.fullmatch(name)), below)
    skipped.add("file(s) beside the class folders", inside.others + inside.lost, below)
    return skipped


def image_names(folder: Path, wnid: str, skipped: Skipped, below: str) -> list[str]:
    """The images directly in the folder of one class, sorted; there must be at least one, and none may be called like
    another class's. What else is there goes to `skipped`, named below `below`."""
    inside = contents(folder)
    if not inside.images:
        raise bad(folder, "the class folder contains no images", UNPACK_CLASS)
    foreign = [name for name in inside.images if (match := OF_CLASS.search(name)) and match[1] != wnid]
    if foreign:
        what = f"{len(foreign):,} image(s) that are called like another class's: {some(foreign)}"
        raise bad(folder, what, "Move each into the folder of the class that it is called after.")
    skipped.add(HIDDEN, inside.hidden, below)
    skipped.add(NO_IMAGES, inside.others + inside.lost, below)
    skipped.add(FOLDERS, inside.folders, below)
    return inside.images
