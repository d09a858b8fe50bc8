"""Places205: folders by first letter, some classes a folder deeper, lists "path label" with a space between."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.toyland.layouts.base import LayoutWriter, Picture, ScaleName, lines, save_jpeg, write_text
from benchmark.toyland.places import PLACES, place
from benchmark.toyland.rng import generator, hexname

IMAGES = "places205/data/vision/torralba/deeplearning/images256"
LISTS = "places205/trainvalsplit_places205"
PIXELS = 96
SIZES: dict[ScaleName, dict[str, int]] = {"desk": {"train": 800, "val": 400}, "smoke": {"train": 20, "val": 10}}
LABELS = {name: label for label, name in enumerate(PLACES)}


def pictures(scale: ScaleName, seed: int) -> list[Picture]:
    found = []
    for split, count in SIZES[scale].items():
        for index in range(count):
            name = list(PLACES)[index % len(PLACES)]
            file = f"gsun_{hexname(seed, 'places205', split, index)}.jpg"
            found.append(Picture(split, index, name, f"{IMAGES}/{name}/{file}"))
    return found


def draw(root: Path, picture: Picture, seed: int) -> None:
    rng = generator(seed, "places205", picture.split, picture.index)
    save_jpeg(place(rng, picture.shows, PIXELS, PIXELS), root / picture.path)


def finish(root: Path, scale: ScaleName, seed: int, pictures: Sequence[Picture], notes: Sequence[Any]) -> None:
    for split in SIZES[scale]:
        rows = [
            f"{picture.path.removeprefix(IMAGES + '/')} {LABELS[picture.shows]}"
            for picture in pictures
            if picture.split == split
        ]
        write_text(root / LISTS / f"{split}_places205.csv", lines(rows))


LAYOUT = LayoutWriter("places205", ("places205",), pictures, draw, finish)
