"""Tiny ImageNet: 64 pixels, an images/ folder and a list of boxes for every class, one folder for all of val."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmark.toyland.catalogue import OBJECTS
from benchmark.toyland.layouts.base import LayoutWriter, Picture, ScaleName, lines, save_jpeg, write_text
from benchmark.toyland.layouts.imagenet import WNIDS, class_names
from benchmark.toyland.render import single
from benchmark.toyland.rng import generator

ROOT = "tiny-imagenet-200"
PIXELS = 64
SIZES: dict[ScaleName, tuple[int, int, int]] = {"desk": (20, 20, 5), "smoke": (4, 6, 2)}  # classes; train, val of each
GREY_EVERY = 50  # the real one holds some greyscale files; readers have to cope

Box = tuple[int, int, int, int]


def pictures(scale: ScaleName, seed: int) -> list[Picture]:
    classes, train, val = SIZES[scale]
    found: list[Picture] = []
    for name in class_names(classes):
        for _ in range(train):
            path = f"{ROOT}/train/{WNIDS[name]}/images/{WNIDS[name]}_{len(found) % train}.JPEG"
            found.append(Picture("train", len(found), name, path))
    order = generator(seed, "tiny_imagenet", "val order").permutation(classes * val)
    for index, place in enumerate(order.tolist()):
        name = class_names(classes)[place % classes]
        found.append(Picture("val", index, name, f"{ROOT}/val/images/val_{index}.JPEG"))
    return found


def draw(root: Path, picture: Picture, seed: int) -> Box:
    """Returns the object's box: 0-based, inclusive."""
    rng = generator(seed, "tiny_imagenet", picture.split, picture.index)
    image, instance = single(rng, OBJECTS[picture.shows], PIXELS, PIXELS)
    grey = picture.index % GREY_EVERY == GREY_EVERY - 1
    save_jpeg(image.convert("L") if grey else image, root / picture.path)
    return instance.box()


def finish(root: Path, scale: ScaleName, seed: int, pictures: Sequence[Picture], notes: Sequence[Box]) -> None:
    boxes: defaultdict[str, list[str]] = defaultdict(list)
    annotations = []
    for picture, note in zip(pictures, notes, strict=True):
        file, wnid, box = Path(picture.path).name, WNIDS[picture.shows], "\t".join(map(str, note))
        if picture.split == "train":
            boxes[wnid].append(f"{file}\t{box}")
        else:
            annotations.append(f"{file}\t{wnid}\t{box}")
    for wnid, rows in boxes.items():
        write_text(root / ROOT / "train" / wnid / f"{wnid}_boxes.txt", lines(rows))
    write_text(root / ROOT / "val" / "val_annotations.txt", lines(annotations))
    # The real wnids.txt is in no particular order, and the real words.txt names every synset of WordNet.
    write_text(root / ROOT / "wnids.txt", lines([WNIDS[name] for name in reversed(class_names(SIZES[scale][0]))]))
    words = sorted((wnid, name) for name, wnid in WNIDS.items())
    write_text(root / ROOT / "words.txt", lines([f"{wnid}\t{name}" for wnid, name in words]))


LAYOUT = LayoutWriter("tiny_imagenet", (ROOT,), pictures, draw, finish)
