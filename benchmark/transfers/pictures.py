"""Sheets of test images with what a detector or a segmentation network found in them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from benchmark.data.voc import CLASSES, IGNORED

SHOWN = 12  # test images, evenly spread over the set
COLUMNS = 4
SIDE = 256  # pixels of a tile's longer side
TRUTH, FOUND = (255, 255, 255), (255, 64, 32)
LEAST_SCORE = 0.5


def shown(count: int, most: int = SHOWN) -> list[int]:
    """Places of the images on the sheet."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(most, count))})


def with_boxes(
    image: Image.Image, objects: np.ndarray, boxes: np.ndarray, scores: np.ndarray, names: Sequence[str]
) -> Image.Image:
    """The image with the true boxes (M, 4) in white, and those found with a score of at least 0.5 in red, named."""
    factor = SIDE / max(image.size)
    tile = _tile(image)
    draw = ImageDraw.Draw(tile)
    for box in objects * factor:
        draw.rectangle(box.tolist(), outline=TRUTH)
    for box, score, name in zip(boxes * factor, scores, names, strict=True):
        if score >= LEAST_SCORE:
            draw.rectangle(box.tolist(), outline=FOUND, width=2)
            draw.text((box[0] + 3, box[1] + 1), f"{name} {score:.2f}", fill=FOUND)
    return tile


def tinted(image: Image.Image, masks: Sequence[np.ndarray]) -> Image.Image:
    """The image, half red under each of the masks (H, W)."""
    pixels = np.array(image)
    for mask in masks:
        pixels[mask] = (pixels[mask] + np.array(FOUND)) // 2
    return Image.fromarray(pixels)


def with_masks(image: Image.Image, truth: np.ndarray, found: np.ndarray) -> Image.Image:
    """Side by side the image, its mask (H, W) and the one that was found, each class in VOC's colour; void is white."""
    parts = [_tile(part) for part in (image, _coloured(truth), _coloured(found))]
    whole = Image.new("RGB", (sum(part.width for part in parts), parts[0].height))
    for number, part in enumerate(parts):
        whole.paste(part, (number * part.width, 0))
    return whole


def sheet(tiles: Sequence[Image.Image]) -> bytes:
    """The tiles in rows, as a PNG."""
    width, height = (max(side) for side in zip(*(tile.size for tile in tiles), strict=True))
    columns = min(COLUMNS, max(COLUMNS * SIDE // width, 1), len(tiles))
    page = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), (24, 24, 24))
    for number, tile in enumerate(tiles):
        page.paste(tile, (number % columns * width, number // columns * height))
    content = io.BytesIO()
    page.save(content, format="PNG")
    return content.getvalue()


def _tile(image: Image.Image) -> Image.Image:
    factor = SIDE / max(image.size)
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.NEAREST)


def _coloured(mask: np.ndarray) -> Image.Image:
    colours = np.zeros((IGNORED + 1, 3), dtype=np.uint8)
    for index in range(len(CLASSES) + 1):
        for bit in range(8):  # VOC's own: the bits of an index dealt to red, green and blue, highest first
            colours[index, bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    colours[IGNORED] = 255
    return Image.fromarray(colours[mask])
