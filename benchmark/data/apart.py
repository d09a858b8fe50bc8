"""Images that stand in two splits: whoever trains on them and is scored on them has seen the answers."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmark.data.image_set import ImageSet


def shared_images(first: ImageSet, second: ImageSet) -> list[str]:
    """Files of `first` that are files of `second` too, under whatever name: links to files and folders are followed.
    Copies are not found. Only the names of `second` are held in memory."""
    held = set(_real_names(second))
    return [name for name, real in zip(first.files, _real_names(first), strict=True) if real in held]


def _real_names(images: ImageSet) -> Iterator[str]:
    """The path of each image without links, in order. Each folder is looked at once: a link more would cost a set of a
    million links a minute."""
    folders: dict[str, tuple[str, set[str]]] = {}
    real_folder = functools.cache(os.path.realpath)
    root = real_folder(images.root)
    for file in images.files:
        folder, _, name = file.rpartition("/")
        if folder not in folders:
            folders[folder] = real_folder(images.root / folder), _links(images.root / folder)
        real, links = folders[folder]
        yield _behind(real, name, root, real_folder) if name in links else f"{real}/{name}"


def _behind(folder: str, name: str, root: str, real_folder: Callable[[str], str]) -> str:
    """What a link leads to; itself, if that is outside of the dataset and has another name: stores that keep each
    content once (git-annex, DVC) name it by its hash, and make one file of two photos that happen to be equal."""
    try:
        target = os.path.join(folder, os.readlink(f"{folder}/{name}"))
    except OSError:  # gone since: whoever opens it tells
        return f"{folder}/{name}"
    place, _, called = target.rpartition("/")
    real = f"{real_folder(place)}/{called}"
    return real if called == name or real.startswith(f"{root}/") else f"{folder}/{name}"


def _links(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_symlink()}
    except OSError:  # a zip is a file; and what cannot be listed cannot be read, which its reader tells
        return set()
