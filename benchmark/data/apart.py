"""Images that stand in two splits: whoever trains on them and is scored on them has seen the answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from benchmark.data.image_set import ImageSet


def shared_images(first: ImageSet, second: ImageSet) -> list[str]:
    """Files of `first` that are files of `second` too, under whatever name: links to files and folders are followed.
    Copies are not found. Only the names of `second` are held in memory."""
    held = set(_real_names(second))
    return [name for name, real in zip(first.files, _real_names(first), strict=True) if real in held]


def _real_names(images: ImageSet) -> Iterator[str]:
    """The path of each image without links, in order. Each folder is listed once, which tells links from files."""
    folders: dict[str, tuple[str, set[str]]] = {}
    for file in images.files:
        folder, _, name = file.rpartition("/")
        if folder not in folders:
            folders[folder] = os.path.realpath(images.root / folder), _links(images.root / folder)
        real, links = folders[folder]
        yield os.path.realpath(f"{real}/{name}") if name in links else f"{real}/{name}"


def _links(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_symlink()}
    except OSError:  # a zip is a file; and what cannot be listed cannot be read, which its reader tells
        return set()
