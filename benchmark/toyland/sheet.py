"""A contact sheet: what a dataset of the world looks like, in one small PNG."""

from __future__ import annotations

import io
from collections import defaultdict
from itertools import chain, zip_longest
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image, ImageDraw

from benchmark.core.errors import UserError
from benchmark.core.files import write_whole
from benchmark.toyland.layouts import LAYOUTS
from benchmark.toyland.layouts.base import Picture
from benchmark.toyland.world import read_manifest

COLUMNS, ROWS, CELL = 12, 4, 80  # cells, cells, pixels
GAP = 2  # pixels
MAX_BYTES = 200_000  # a sheet is shown in a README


def contact_sheet(root: Path, dataset: str, path: Path) -> Path:
    """Write a sheet of one of the world's datasets, showing each class in turn; VOC's pictures with boxes and masks."""
    entry = read_manifest(root).get(dataset)
    if entry is None:
        raise UserError(f"{root} has no Toyland dataset {dataset!r}; make it with `sslbench world`.")
    pictures = _each_class_in_turn(LAYOUTS[dataset].pictures(entry["scale"], entry["seed"]))
    cells = chain.from_iterable(_cells(root / picture.path) for picture in pictures)
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


def _cells(file: Path) -> list[Image.Image]:
    """The picture. In VOC, only if it has a mask: then the picture with its boxes drawn in, and the mask."""
    image = Image.open(file).convert("RGB")
    if file.parent.name != "JPEGImages":
        return [image]
    mask = file.parents[1] / "SegmentationClass" / f"{file.stem}.png"
    if not mask.is_file():
        return []
    draw = ImageDraw.Draw(image)
    for box in ElementTree.parse(file.parents[1] / "Annotations" / f"{file.stem}.xml").findall("object/bndbox"):
        corners = [int(box.findtext(tag, "")) - 1 for tag in ("xmin", "ymin", "xmax", "ymax")]
        draw.rectangle(corners, outline="white", width=1)
    return [image, Image.open(mask).convert("RGB")]


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
