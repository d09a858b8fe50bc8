"""A contact sheet: what a dataset of the world looks like, in one small PNG."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from functools import cache
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageDraw

from benchmark.core.errors import UserError
from benchmark.core.files import write_whole
from benchmark.toyland.layouts import LAYOUTS
from benchmark.toyland.layouts.base import Picture
from benchmark.toyland.layouts.suncg_scenenet import KINDS, map_path
from benchmark.toyland.world import read_manifest

COLUMNS, ROWS, CELL = 12, 4, 80  # cells, cells, pixels
GAP = 2  # pixels
COLOURS = ("maroon", "green", "olive", "navy", "purple", "teal", "grey")
MAX_BYTES = 200_000  # a sheet is shown in a README


def contact_sheet(root: Path, dataset: str, path: Path) -> Path:
    """Write a sheet of one of the world's datasets, showing each class in turn; VOC's and COCO's pictures with boxes
    and masks, tracks with both ends, rendered scenes with their maps."""
    entry = read_manifest(root).get(dataset)
    if entry is None:
        raise UserError(f"{root} has no Toyland dataset {dataset!r}; make it with `sslbench world`.")
    pictures = _each_class_in_turn(LAYOUTS[dataset].pictures(entry["scale"], entry["seed"]))
    cells = chain.from_iterable(_cells(root, picture) for picture in pictures)
    sheet = Image.new("RGB", (COLUMNS * (CELL + GAP) - GAP, ROWS * (CELL + GAP) - GAP), "white")
    for number, cell in zip(range(COLUMNS * ROWS), cells, strict=False):
        row, column = divmod(number, COLUMNS)
        sheet.paste(_square(cell), (column * (CELL + GAP), row * (CELL + GAP)))
    write_whole(path, _small_png(sheet))
    return path


def _each_class_in_turn(pictures: list[Picture]) -> list[Picture]:
    """One picture of every class, then another of every class, and so on."""
    by_class: defaultdict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        by_class[picture.shows].append(picture)
    return [picture for turn in zip_longest(*by_class.values()) for picture in turn if picture is not None]


def _cells(root: Path, picture: Picture) -> list[Image.Image]:
    """The picture. If the dataset has boxes and masks, the boxes are drawn in and the masks follow."""
    file = root / picture.path
    image = Image.open(file).convert("RGB")
    if file.parent.name == "JPEGImages":
        return _voc_cells(file, image)
    if picture.path.startswith("coco/"):
        return _coco_cells(file, image)
    if picture.path.startswith("youtube_patches/"):
        return _track_cells(file, image)
    if picture.path.startswith("suncg_scenenet/"):
        return [image, *(_map_cell(root / map_path(picture.path, kind)) for kind in KINDS)]
    return [image]


def _voc_cells(file: Path, image: Image.Image) -> list[Image.Image]:
    """Empty for a picture without a mask, which most are."""
    mask = file.parents[1] / "SegmentationClass" / f"{file.stem}.png"
    if not mask.is_file():
        return []
    draw = ImageDraw.Draw(image)
    for box in ElementTree.parse(file.parents[1] / "Annotations" / f"{file.stem}.xml").findall("object/bndbox"):
        corners = [int(box.findtext(tag, "")) - 1 for tag in ("xmin", "ymin", "xmax", "ymax")]
        draw.rectangle(corners, outline="white", width=1)
    return [image, Image.open(mask).convert("RGB")]


def _coco_cells(file: Path, image: Image.Image) -> list[Image.Image]:
    """Each object's polygons get a colour of their own; a crowd has only its box, in red."""
    masks = Image.new("RGB", image.size)
    boxes, outlines = ImageDraw.Draw(image), ImageDraw.Draw(masks)
    listing = file.parents[1] / "annotations" / f"instances_{file.parent.name}.json"
    for number, entry in enumerate(_coco_objects(listing).get(int(file.stem), [])):
        x, y, width, height = entry["bbox"]
        boxes.rectangle((x, y, x + width - 1, y + height - 1), outline="red" if entry["iscrowd"] else "white")
        for polygon in [] if entry["iscrowd"] else entry["segmentation"]:
            outlines.polygon(polygon, fill=COLOURS[number % len(COLOURS)])
    return [image, masks]


def _track_cells(file: Path, image: Image.Image) -> list[Image.Image]:
    """Both ends of a track, side by side where its first one stands."""
    if not file.stem.endswith("_1"):
        return []
    return [image, Image.open(file.with_name(file.name.replace("_1.", "_2."))).convert("RGB")]


def _map_cell(file: Path) -> Image.Image:
    """Depths as grey, the nearer the lighter; all other maps as they are."""
    values = Image.open(file)
    if not values.mode.startswith("I"):
        return values.convert("RGB")
    depth = np.asarray(values).astype(float)
    return Image.fromarray((255 * depth.min() / depth.clip(1)).astype(np.uint8)).convert("RGB")


@cache
def _coco_objects(listing: Path) -> dict[int, list[dict[str, Any]]]:
    """Image id -> its annotations."""
    found: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for entry in json.loads(listing.read_text(encoding="utf-8"))["annotations"]:
        found[entry["image_id"]].append(entry)
    return found


def _square(image: Image.Image) -> Image.Image:
    """Fitted into a cell, on white."""
    image.thumbnail((CELL, CELL), Image.Resampling.BOX)
    cell = Image.new("RGB", (CELL, CELL), "white")
    cell.paste(image, ((CELL - image.width) // 2, (CELL - image.height) // 2))
    return cell


def _small_png(sheet: Image.Image) -> bytes:
    """As many colours as fit into MAX_BYTES."""
    for colours in (256, 192, 128, 96, 64, 32):
        palette = sheet.quantize(colours)
        dithered = sheet.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)  # without it skies show bands
        buffer = io.BytesIO()
        dithered.save(buffer, format="PNG", optimize=True)
        if buffer.tell() <= MAX_BYTES:
            break
    return buffer.getvalue()
