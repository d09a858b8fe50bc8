"""YFCC100M, without labels: a tree of photos named by their hash with a list of files, and zips of photos."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.toyland.layouts.base import LayoutWriter, Picture, ScaleName, lines, save_jpeg, write_text
from benchmark.toyland.render import anything
from benchmark.toyland.rng import generator, hexname

SIZES: dict[ScaleName, tuple[int, int]] = {
    "desk": (1000, 100),
    "smoke": (30, 6),
}  # photos; how many of them are zipped too
ZIPS = 2  # the zipped photos are spread over this many files
FORMATS = ((96, 96), (96, 72), (72, 96), (112, 80))  # pixels


def pictures(scale: ScaleName, seed: int) -> list[Picture]:
    found = []
    for index in range(SIZES[scale][0]):
        name = hexname(seed, "yfcc100m", "train", index)
        found.append(Picture("train", index, "", f"yfcc100m/data/images/{name[:3]}/{name[3:6]}/{name}.jpg"))
    return found


def draw(root: Path, picture: Picture, seed: int) -> None:
    rng = generator(seed, "yfcc100m", picture.split, picture.index)
    save_jpeg(anything(rng, *FORMATS[int(rng.integers(len(FORMATS)))]), root / picture.path)


def finish(root: Path, scale: ScaleName, seed: int, pictures: Sequence[Picture], notes: Sequence[Any]) -> None:
    write_text(root / "yfcc100m" / "files.txt", lines([p.path.removeprefix("yfcc100m/") for p in pictures]))
    zipped = SIZES[scale][1]
    for number in range(ZIPS):
        path = root / "yfcc100m_zips" / "00" / f"{number:03d}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for member, picture in enumerate(pictures[number:zipped:ZIPS]):
                info = zipfile.ZipInfo(f"{member:03d}.jpg")  # its date is fixed: same world, same bytes
                archive.writestr(info, (root / picture.path).read_bytes())


LAYOUT = LayoutWriter("yfcc100m", ("yfcc100m", "yfcc100m_zips"), pictures, draw, finish)
