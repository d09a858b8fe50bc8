"""What world.py needs from a layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

ScaleName = Literal["desk", "smoke"]
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Picture:
    """One picture to draw: where it goes and what it shows. (split, index) is its place in the world.

    shows: the name of what it shows, "" if that is left to chance. path: below the world's root, POSIX.
    """

    split: str
    index: int
    shows: str
    path: str


@dataclass(frozen=True)
class LayoutWriter:
    """folders: what the dataset owns below the world's root.

    pictures(scale, seed): all pictures, in an order that is the same every time.
    draw(root, picture, seed): writes one picture (a worker process does it) and returns what `finish` needs to know.
    finish(root, scale, seed, pictures, notes): writes lists and annotations from what `draw` returned, in order.
    on_request: few recipes train on it, so that it is drawn only for one that does.
    """

    name: str
    folders: tuple[str, ...]
    pictures: Callable[[ScaleName, int], list[Picture]]
    draw: Callable[[Path, Picture, int], Any]
    finish: Callable[[Path, ScaleName, int, Sequence[Picture], Sequence[Any]], None]
    on_request: bool = False


def save_jpeg(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="JPEG", quality=JPEG_QUALITY)


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def lines(items: Sequence[str]) -> str:
    """The items, one per line."""
    return "".join(f"{item}\n" for item in items)
