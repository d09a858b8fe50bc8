"""Places365-Standard: a folder for every class, in train/ and in val/. The ten places are those of Places205's
stand-in, in other pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.toyland.layouts.base import LayoutWriter, Picture, ScaleName, save_jpeg
from benchmark.toyland.places import PLACES, place
from benchmark.toyland.rng import generator

ROOT = "places365_standard"
PIXELS = 72
SIZES: dict[ScaleName, dict[str, int]] = {"desk": {"train": 2000, "val": 50}, "smoke": {"train": 40, "val": 10}}
FOLDERS = {name: name.partition("/")[2].replace("/", "-") for name in PLACES}  # m/mountain/snowy: mountain-snowy


def pictures(scale: ScaleName, seed: int) -> list[Picture]:
    found = []
    for split, count in SIZES[scale].items():
        for index in range(count):
            name = list(PLACES)[index % len(PLACES)]
            file = f"{1 + index // len(PLACES):08d}.jpg" if split == "train" else f"Places365_val_{1 + index:08d}.jpg"
            found.append(Picture(split, index, name, f"{ROOT}/{split}/{FOLDERS[name]}/{file}"))
    return found


def draw(root: Path, picture: Picture, seed: int) -> None:
    rng = generator(seed, "places365", picture.split, picture.index)
    save_jpeg(place(rng, picture.shows, PIXELS, PIXELS), root / picture.path)


def finish(root: Path, scale: ScaleName, seed: int, pictures: Sequence[Picture], notes: Sequence[Any]) -> None:
    """There are no lists: the folders say all."""


LAYOUT = LayoutWriter("places365", (ROOT,), pictures, draw, finish, on_request=True)
