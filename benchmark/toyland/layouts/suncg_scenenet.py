"""Rendered scenes with their maps: half of them lie as SUNCG's do, square PNGs, half as SceneNet's, wide JPEGs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmark.toyland.layouts.base import LayoutWriter, Picture, ScaleName, lines, save_jpeg, write_text
from benchmark.toyland.rng import generator, hexname
from benchmark.toyland.rooms import rendered_room

NAME = "suncg_scenenet"
SUNCG, SCENENET = f"{NAME}/suncg_image256", f"{NAME}/scenenet5m"
SIDE, WIDE = 72, 96  # pixels
SIZES: dict[ScaleName, int] = {"desk": 2000, "smoke": 48}
VIEWS = 4  # of a room, and of a trajectory
KINDS = ("depth", "normal", "edge")


def pictures(scale: ScaleName, seed: int) -> list[Picture]:
    return [Picture("train", index, "", _picture(seed, index)) for index in range(SIZES[scale])]


def _picture(seed: int, index: int) -> str:
    place, view = divmod(index // 2, VIEWS)
    if index % 2:
        return f"{SCENENET}/train/{place // 1000}/{place}/photo/{25 * view}.jpg"
    return f"{SUNCG}/mlt/{hexname(seed, NAME, place)}/{view + 1:06d}_256.png"


def map_path(picture: str, kind: str) -> str:
    """Where the map of a picture lies, below the world's root as the picture does."""
    if picture.startswith(SUNCG):
        return picture.replace("/mlt/", f"/{kind}/")
    return picture.replace("/photo/", f"/{kind}/").replace(".jpg", ".png")


def draw(root: Path, picture: Picture, seed: int) -> None:
    is_wide = picture.path.startswith(SCENENET)
    found = rendered_room(generator(seed, NAME, picture.split, picture.index), WIDE if is_wide else SIDE, SIDE)
    maps = {
        "depth": np.rint(1000 * found.depth).astype(np.uint16),
        "normal": np.rint(127.5 * (found.normals + 1)).astype(np.uint8),
        "edge": 255 * found.contours.astype(np.uint8),
    }
    for kind, values in maps.items():
        _save_png(Image.fromarray(values), root / map_path(picture.path, kind))
    (save_jpeg if is_wide else _save_png)(found.picture, root / picture.path)


def _save_png(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="PNG")


def finish(root: Path, scale: ScaleName, seed: int, pictures: Sequence[Picture], notes: Sequence[Any]) -> None:
    write_text(root / NAME / "train_1m_shuffle.txt", lines([_entry(picture.path) for picture in pictures]))


def _entry(path: str) -> str:
    if path.startswith(SUNCG):
        return f"suncg {path.removeprefix(f'{SUNCG}/mlt/').removesuffix('_256.png')}"
    trajectory, _, frame = path.removeprefix(f"{SCENENET}/").partition("/photo/")
    return f"scenenet {trajectory} {frame.removesuffix('.jpg')}"


LAYOUT = LayoutWriter(NAME, (NAME,), pictures, draw, finish, on_request=True)
