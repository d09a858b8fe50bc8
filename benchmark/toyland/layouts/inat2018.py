"""iNaturalist 2018: folders by supercategory and category id, COCO-style lists; long-tailed and fine-grained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.toyland.layouts.base import LayoutWriter, Picture, ScaleName, save_jpeg, write_text
from benchmark.toyland.render import single
from benchmark.toyland.rng import generator, hexname
from benchmark.toyland.species import SPECIES

SIZES: dict[ScaleName, tuple[int, int, int]] = {"desk": (24, 800, 400), "smoke": (8, 28, 12)}  # categories, train, val
TAIL = 0.8  # the r-th commonest category has a share proportional to r ** -TAIL of the training images
FORMATS = ((96, 96), (96, 72), (72, 96), (96, 64))  # pixels: the longer side is the same, as in the real files
IDS = {shape.name: number for number, (_, shape) in enumerate(SPECIES)}


def tail_counts(total: int, categories: int) -> list[int]:
    """Training images of every rank, commonest first; their sum is `total`, each at least 2."""
    weights = np.arange(1, categories + 1, dtype=float) ** -TAIL
    counts = np.maximum(2, np.floor(total * weights / weights.sum())).astype(int)
    counts[0] += total - counts.sum()
    return counts.tolist()


def pictures(scale: ScaleName, seed: int) -> list[Picture]:
    """Which category is common and which rare is drawn from the seed; val has all of them (almost) equally often."""
    categories, train, val = SIZES[scale]
    ranks = generator(seed, "inat2018", "ranks").permutation(categories).tolist()
    shown = {
        "train": [ranks[rank] for rank, count in enumerate(tail_counts(train, categories)) for _ in range(count)],
        "val": [index % categories for index in range(val)],
    }
    found = []
    for split, numbers in shown.items():
        for index, number in enumerate(numbers):
            family, shape = SPECIES[number]
            file = f"{hexname(seed, 'inat2018', split, index)}.jpg"
            found.append(Picture(split, index, shape.name, f"inat2018/train_val2018/{family}/{number}/{file}"))
    return found


def draw(root: Path, picture: Picture, seed: int) -> tuple[int, int]:
    """Returns the picture's width and height."""
    rng = generator(seed, "inat2018", picture.split, picture.index)
    width, height = FORMATS[int(rng.integers(len(FORMATS)))]
    image, _ = single(rng, SPECIES[IDS[picture.shows]][1], width, height)
    save_jpeg(image, root / picture.path)
    return width, height


def finish(
    root: Path, scale: ScaleName, seed: int, pictures: Sequence[Picture], notes: Sequence[tuple[int, int]]
) -> None:
    categories = [
        {"id": number, "name": shape.name, "supercategory": family}
        for number, (family, shape) in enumerate(SPECIES[: SIZES[scale][0]])
    ]
    images: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
    annotations: dict[str, list[dict[str, int]]] = {"train": [], "val": []}
    for number, (picture, (width, height)) in enumerate(zip(pictures, notes, strict=True)):
        entry = {"id": number, "file_name": picture.path.removeprefix("inat2018/"), "width": width, "height": height}
        images[picture.split].append({**entry, "license": 1, "rights_holder": "Toyland"})
        annotations[picture.split].append({"id": number, "image_id": number, "category_id": IDS[picture.shows]})
    for split in images:
        listing = {
            "info": {"year": 2018, "version": "1", "description": "Toyland, drawn in the layout of iNaturalist 2018"},
            "images": images[split],
            "licenses": [{"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
            "annotations": annotations[split],
            "categories": categories,
        }
        write_text(root / "inat2018" / f"{split}2018.json", json.dumps(listing))


LAYOUT = LayoutWriter("inat2018", ("inat2018",), pictures, draw, finish)
