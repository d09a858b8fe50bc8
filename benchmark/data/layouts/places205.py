"""Places205 (Zhou et al. 2014, "Learning Deep Features for Scene Recognition using Places Database", NIPS).

    places205/data/vision/torralba/deeplearning/images256/a/abbey/gsun_….jpg …   256 × 256
    places205/trainvalsplit_places205/{train,val}_places205.csv                   "a/abbey/gsun_….jpg 0"

Also accepted: images256/ directly in places205/, and the csv directly in places205/ or beside images256/. The csv names
are relative to images256/ and separated from the label (0…204) by a space. A few classes are one folder deeper
(m/mountain/snowy). Test labels were never published.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from benchmark.data.entries import check_entries, read_lines
from benchmark.data.findings import Finding, bad, some
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes

NAME = "places205"
HOME = "places205"
SPLITS = {"train": (2_448_873, 205), "val": (20_500, 205)}
LABELS = Classes
ALSO_CALLED: tuple[str, ...] = ("places",)

IMAGES = (Path("data/vision/torralba/deeplearning/images256"), Path("images256"))
LABEL = re.compile(r"[0-9]{1,6}")  # no more, because the code goes through every label up to the largest
UNPACK_LISTS = "Unpack trainvalsplit_places205.tar.gz there."


def read(data_root: Path, split: str) -> ImageSet:
    images = _images(data_root / HOME)
    path = _csv(data_root / HOME, images, split)
    names, labels = _entries(path)
    check_entries(names, images, lambda i: f"{path}, line {i + 1}")
    return ImageSet(
        f"{NAME}/{split}", images, names, Classes(np.array(labels, dtype=np.int64), _classes(path, names, labels))
    )


def _images(root: Path) -> Path:
    for place in IMAGES:
        if (root / place).is_dir():
            return root / place
    raise bad(root / IMAGES[0], "there is no such folder", "Unpack imagesPlaces205_resize.tar.gz in places205/.")


def _csv(root: Path, images: Path, split: str) -> Path:
    name = f"{split}_places205.csv"
    places = [root / "trainvalsplit_places205" / name, root / name, images.parent / name]
    for place in places:
        if place.is_file():
            return place
    raise bad(places[0], "there is no such file", UNPACK_LISTS)


def _entries(path: Path) -> tuple[list[str], list[int]]:
    names, labels = [], []
    for number, line in enumerate(read_lines(path, UNPACK_LISTS), start=1):
        fields = line.rsplit(maxsplit=1)
        if len(fields) != 2 or not LABEL.fullmatch(fields[1]):
            raise bad(f"{path}, line {number}", f"{line!r} is not a file name and a label", UNPACK_LISTS)
        names.append(fields[0])
        labels.append(int(fields[1]))
    if not names:
        raise bad(path, "the list is empty", UNPACK_LISTS)
    return names, labels


def _classes(path: Path, names: list[str], labels: list[int]) -> tuple[str, ...]:
    """The class of each label, from the folder of its images: "a/abbey/x.jpg" is in class abbey."""
    folder_of: dict[int, str] = {}
    for number, (name, label) in enumerate(zip(names, labels, strict=True), start=1):
        folder = name.rpartition("/")[0]
        if folder_of.setdefault(label, folder) != folder:
            what = f"label {label} is given to {folder} here and to {folder_of[label]} above"
            raise bad(f"{path}, line {number}", what, UNPACK_LISTS)
    gaps = sorted(set(range(max(labels) + 1)) - set(labels))
    if gaps:
        what = f"no image has label {some([str(gap) for gap in gaps])}, but one has {max(labels)}"
        raise bad(path, what, "Fetch the list again, or for a subset renumber the labels from 0 in both lists.")
    return tuple(folder_of[label].partition("/")[2] or folder_of[label] for label in range(len(folder_of)))


def check(data_root: Path) -> list[Finding]:
    """A label must mean the same class in both lists."""
    images = _images(data_root / HOME)
    paths = [_csv(data_root / HOME, images, split) for split in SPLITS]
    classes = [_classes(path, *_entries(path)) for path in paths]
    if classes[0] == classes[1]:
        return []
    what = f"the labels of train ({len(classes[0])}) and of val ({len(classes[1])}) do not mean the same classes"
    return [Finding("error", NAME, str(data_root / HOME), what, UNPACK_LISTS)]
