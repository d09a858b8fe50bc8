"""Rendered indoor scenes of SUNCG and SceneNet RGB-D, each with its depth, its surface normals and the contours of its
things, as jason718/game-feature-learning lays them out for Ren & Lee, "Cross-Domain Self-supervised Multi-task Feature
Learning using Synthetic Imagery", CVPR 2018.

    suncg_scenenet/train_1m_shuffle.txt              one scene a line:
        suncg eaf9f8af4043ea42a223ec1276ac1546/000005
        scenenet train/2/2751 5400
    suncg_scenenet/suncg_image256/mlt/ROOM/000005_256.png          the picture; depth/, normal/ and edge/ beside mlt/
    suncg_scenenet/scenenet5m/train/2/2751/photo/5400.jpg          depth/5400.png, normal/5400.png, edge/5400.png

Maps are PNGs. depth: millimetres, one channel of 16 bits. normal: three channels, 255 (n + 1) / 2 of a unit normal n.
edge: one channel, more than 0 on a contour. SceneNet's own files have depths, and numbers of things in place of
contours: normals and edges are made from them beforehand.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from benchmark.core.errors import UserError
from benchmark.data.entries import check_entries, read_lines
from benchmark.data.findings import Finding, bad
from benchmark.data.image_set import ImageSet

NAME = "suncg_scenenet"
HOME = "suncg_scenenet"
# NOTE: that SUNCG's and SceneNet's scenes are a million is what their list is called; it was not seen
SPLITS = {"train": (1_000_000, 0)}
LABELS = None
COUNT_VARIES = True
ALSO_CALLED: tuple[str, ...] = ()

LIST = "train_1m_shuffle.txt"
SUNCG, SCENENET = "suncg_image256", "scenenet5m"
LINE = re.compile(r"suncg\s+(?P<view>\S+)\s*|scenenet\s+(?P<trajectory>\S+)\s+(?P<frame>\S+)\s*")
CHANNELS = {"depth": 1, "normal": 3, "edge": 1}  # of each kind of map
UNPACK = "Put the list there, and the folders that it names beside it."
CHECKED = 20  # scenes whose maps the doctor looks at


def read(data_root: Path, split: str) -> ImageSet:
    root = data_root / HOME
    names = _pictures(root / LIST)
    maps = {kind: partial(map_file, kind) for kind in CHANNELS}
    for files in (names, *([map_of(name) for name in names] for map_of in maps.values())):
        check_entries(files, root, lambda i: f"{root / LIST}, line {i + 1}")
    return ImageSet(f"{NAME}/{split}", root, names, maps=maps)


def _pictures(path: Path) -> list[str]:
    names = []
    for number, line in enumerate(read_lines(path, UNPACK), start=1):
        found = LINE.fullmatch(line)
        if not found:
            what = f"{line!r} is neither 'suncg ROOM/VIEW' nor 'scenenet TRAJECTORY FRAME'"
            raise bad(f"{path}, line {number}", what, UNPACK)
        names.append(
            f"{SUNCG}/mlt/{found['view']}_256.png"
            if found["view"]
            else f"{SCENENET}/{found['trajectory']}/photo/{found['frame']}.jpg"
        )
    if not names:
        raise bad(path, "the list is empty", UNPACK)
    return names


def map_file(kind: str, picture: str) -> str:
    """Where a picture's map of that kind lies."""
    if picture.startswith(f"{SUNCG}/mlt/"):
        return f"{SUNCG}/{kind}/{picture.removeprefix(f'{SUNCG}/mlt/')}"
    trajectory, _, name = picture.rpartition("/photo/")
    return f"{trajectory}/{kind}/{name.removesuffix('.jpg')}.png"


def check(data_root: Path) -> list[Finding]:
    """Maps that are not a picture's own, or no such maps, in some scenes of the whole list."""
    images = read(data_root, "train")
    findings = []
    for index in np.unique(np.linspace(0, len(images) - 1, CHECKED, dtype=np.int64)).tolist():
        try:
            size = images.open(index).size
            faults = {kind: fault for kind in CHANNELS if (fault := _fault(images, kind, index, size))}
        except UserError:
            continue  # --deep tells what cannot be read
        for kind, what in faults.items():
            path = str(images.root / images.maps[kind](images.files[index]))
            findings.append(Finding("error", NAME, path, what, "Make this kind of map again, for all scenes."))
    return findings


def _fault(images: ImageSet, kind: str, index: int, size: tuple[int, int]) -> str:
    found = images.open_map(kind, index)
    if found.size != size:
        return f"is of {found.width} x {found.height} pixels, its picture of {size[0]} x {size[1]}"
    if len(found.getbands()) != CHANNELS[kind]:
        return f"has {len(found.getbands())} channels; a map of {kind} has {CHANNELS[kind]}"
    return "has 8 bits; depths are millimetres, of 16" if kind == "depth" and found.mode == "L" else ""
