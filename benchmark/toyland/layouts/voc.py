"""PASCAL VOC 2007 and 2012: boxes, presence codes, and for some pictures palette masks with a void border. Each picture
of 2012 also has a mask as in the Semantic Boundaries Dataset (SBD), a .mat file without void."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from scipy.io import savemat

from benchmark.toyland.catalogue import VOC_OBJECTS
from benchmark.toyland.layouts.base import LayoutWriter, Picture, ScaleName, lines, save_jpeg, write_text
from benchmark.toyland.render import Instance, crowd
from benchmark.toyland.rng import generator

SIZES: dict[int, dict[ScaleName, dict[str, int]]] = {
    2007: {"desk": {"train": 200, "val": 200, "test": 400}, "smoke": {"train": 10, "val": 10, "test": 20}},
    2012: {"desk": {"train": 450, "val": 450}, "smoke": {"train": 30, "val": 30}},
}
FORMATS = ((128, 96), (128, 96), (128, 84), (96, 128), (112, 112))  # pixels, mostly landscape
VOID = 255
MAT_HEADER = 116  # bytes of text
_FIRST = {"val": 10}  # val starts with a different class from train, so that trainval shows all twenty at every scale
SEGMENTED_EVERY = 3  # VOC has masks for some pictures only
SBD = "benchmark_RELEASE"
# Objects stand side by side, so few are covered at all. One that lacks a brick can be another class's.
DIFFICULT_VISIBLE = 0.9  # an object less visible than this is marked difficult …
DIFFICULT_PIXELS = 60  # … and so is one that shows fewer pixels


@dataclass(frozen=True)
class VocNote:
    """presence: class → whether any of its instances is not difficult. segmented: whether masks were written."""

    presence: dict[str, bool]
    segmented: bool


def pictures(year: int, scale: ScaleName, seed: int) -> list[Picture]:
    """Ids of all splits are mixed, as in the real sets; every class is the main one equally often in every split."""
    splits = [split for split, count in SIZES[year][scale].items() for _ in range(count)]
    order = generator(seed, f"voc{year}", "ids").permutation(len(splits)).tolist()
    counts = dict.fromkeys(splits, 0)
    found = []
    for number, place in enumerate(order):
        split = splits[place]
        index, counts[split] = counts[split], counts[split] + 1
        name = f"{number + 1:06d}" if year == 2007 else f"{2008 + number % 5}_{number + 1:06d}"
        main = VOC_OBJECTS[(index + _FIRST.get(split, 0)) % len(VOC_OBJECTS)]
        found.append(Picture(split, index, main, f"VOCdevkit/VOC{year}/JPEGImages/{name}.jpg"))
    return found


def draw(year: int, root: Path, picture: Picture, seed: int) -> VocNote:
    rng = generator(seed, f"voc{year}", picture.split, picture.index)
    width, height = FORMATS[int(rng.integers(len(FORMATS)))]
    image, instances = crowd(rng, picture.shows, width, height)
    path = root / picture.path
    save_jpeg(image, path)
    segmented = picture.index % SEGMENTED_EVERY == 0
    folder, name = path.parents[1], path.stem
    write_text(
        folder / "Annotations" / f"{name}.xml", annotation_xml(year, name, (width, height), instances, segmented)
    )
    if segmented:
        by_class, by_object = masks(instances, (height, width))
        for kind, mask in (("Class", by_class), ("Object", by_object)):
            target = folder / f"Segmentation{kind}" / f"{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            palette_image(mask).save(target, format="PNG")
    if year == 2012:
        target = root / SBD / "dataset" / "cls" / f"{name}.mat"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(sbd_mask(numbered(instances, (height, width))[0]))
    presence: dict[str, bool] = {}
    for instance in instances:
        presence[instance.name] = presence.get(instance.name, False) or not difficult(instance)
    return VocNote(presence, segmented)


def difficult(instance: Instance) -> bool:
    return instance.visible < DIFFICULT_VISIBLE or int(instance.mask.sum()) < DIFFICULT_PIXELS


def annotation_xml(year: int, name: str, size: tuple[int, int], instances: Sequence[Instance], segmented: bool) -> str:
    """The XML of one picture; boxes are 1-based and inclusive."""
    root = ElementTree.Element("annotation")
    _add(root, {"folder": f"VOC{year}", "filename": f"{name}.jpg"})
    source = ElementTree.SubElement(root, "source")
    _add(source, {"database": "Toyland", "annotation": f"PASCAL VOC{year}", "image": "drawn"})
    _add(ElementTree.SubElement(root, "size"), {"width": size[0], "height": size[1], "depth": 3})
    _add(root, {"segmented": int(segmented)})
    for instance in instances:
        entry = ElementTree.SubElement(root, "object")
        _add(entry, {"name": instance.name, "pose": "Unspecified"})
        _add(entry, {"truncated": int(instance.truncated), "difficult": int(difficult(instance))})
        box = [value + 1 for value in instance.box()]
        _add_box(entry, box)
        if year == 2012 and instance.name == "person":
            _add_head(entry, box)
    ElementTree.indent(root, "\t")
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _add(parent: ElementTree.Element, values: Mapping[str, str | float]) -> None:
    for tag, value in values.items():
        ElementTree.SubElement(parent, tag).text = str(value)


def _add_box(parent: ElementTree.Element, box: Sequence[float]) -> None:
    values = dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    _add(ElementTree.SubElement(parent, "bndbox"), values)


def _add_head(person: ElementTree.Element, box: Sequence[float]) -> None:
    """VOC2012 marks parts of some people with boxes of their own, some not in whole pixels: a trap for readers that
    take every bndbox below an object."""
    part = ElementTree.SubElement(person, "part")
    _add(part, {"name": "head"})
    xmin, ymin, xmax, ymax = box
    third = (xmax - xmin) / 3
    _add_box(part, [round(xmin + third, 2), ymin, round(xmax - third, 2), round(ymin + 0.2 * (ymax - ymin), 2)])


def masks(instances: Sequence[Instance], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) uint8 twice: class numbers 1 … 20 and object numbers 1 …, 0 background, 255 along every outline and
    wherever an object is difficult."""
    by_class, by_object = numbered(instances, size)
    void = outlines(by_object)
    for instance in instances:
        if difficult(instance):
            void |= instance.mask
    by_class[void] = by_object[void] = VOID
    return by_class, by_object


def numbered(instances: Sequence[Instance], size: tuple[int, int]) -> np.ndarray:
    """(2, H, W) uint8: class numbers 1 … 20 and object numbers 1 …; 0 background."""
    by_class, by_object = both = np.zeros((2, *size), dtype=np.uint8)
    for number, instance in enumerate(instances, start=1):
        by_class[instance.mask] = VOC_OBJECTS.index(instance.name) + 1
        by_object[instance.mask] = number
    return both


def sbd_mask(by_class: np.ndarray) -> bytes:
    """A .mat file with GTcls.Segmentation. Its header, which would hold the date, is the same every time."""
    file = io.BytesIO()
    savemat(file, {"GTcls": {"Segmentation": by_class, "CategoriesPresent": np.setdiff1d(by_class, [0])}})
    return b"MATLAB 5.0 MAT-file, drawn by Toyland".ljust(MAT_HEADER) + file.getvalue()[MAT_HEADER:]


def outlines(numbers: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels with a neighbour of another number; both sides of an edge, so two pixels wide."""
    edge = np.zeros(numbers.shape, dtype=bool)
    across, down = numbers[:, 1:] != numbers[:, :-1], numbers[1:] != numbers[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge


def _voc_palette() -> bytes:
    """VOC's colours: the bits of an index dealt to red, green and blue in turn, highest first."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    for index in range(256):
        for bit in range(8):
            colours[index, bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return colours.tobytes()


_PALETTE = _voc_palette()


def palette_image(mask: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask)
    image.putpalette(_PALETTE)
    return image


def finish(
    year: int, root: Path, scale: ScaleName, seed: int, pictures: Sequence[Picture], notes: Sequence[VocNote]
) -> None:
    sets = root / "VOCdevkit" / f"VOC{year}" / "ImageSets"
    splits = {split: {split} for split in SIZES[year][scale]} | {"trainval": {"train", "val"}}
    for split, members in splits.items():
        chosen = [
            (Path(picture.path).stem, note)
            for picture, note in zip(pictures, notes, strict=True)
            if picture.split in members
        ]
        write_text(sets / "Main" / f"{split}.txt", lines([name for name, _ in chosen]))
        write_text(sets / "Segmentation" / f"{split}.txt", lines([name for name, note in chosen if note.segmented]))
        for shown in VOC_OBJECTS:
            # Right-aligned in two columns, so that 0 and 1 follow two spaces, as in the real files.
            rows = [f"{name} {presence_code(note, shown):2d}" for name, note in chosen]
            write_text(sets / "Main" / f"{shown}_{split}.txt", lines(rows))
        if year == 2012 and split != "trainval":
            write_text(root / SBD / "dataset" / f"{split}.txt", lines([name for name, _ in chosen]))


def presence_code(note: VocNote, name: str) -> int:
    """1 present, 0 only difficult instances, -1 absent."""
    return int(note.presence[name]) if name in note.presence else -1


def _layout(year: int) -> LayoutWriter:
    return LayoutWriter(
        f"voc{year}",
        (f"VOCdevkit/VOC{year}", *((SBD,) if year == 2012 else ())),
        partial(pictures, year),
        partial(draw, year),
        partial(finish, year),
    )


LAYOUT_2007 = _layout(2007)
LAYOUT_2012 = _layout(2012)
