"""What a folder holds, told apart by kind, so that nothing a reader passes over goes missing without a word."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.data.findings import denied, some
from benchmark.data.images import is_image_name

# Folders that file servers and operating systems leave behind. They hold thumbnails and deleted photos, and begin
# without a dot.
LEFT_BY_SYSTEMS = frozenset({"@eaDir", "#recycle", "#snapshot", "__MACOSX", "lost+found", "$RECYCLE.BIN",
                             "System Volume Information", "Network Trash Folder", "@Recycle",
                             "@Recently-Snapshot"})  # fmt: skip

STAMP = ".toyland.json"  # in each dataset that benchmark/toyland/world.py drew, and so nothing that was passed over

HIDDEN = "hidden file(s) or folder(s)"
NO_IMAGES = "file(s) that are not images"
FOLDERS = "folder(s) inside class folders"


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name in LEFT_BY_SYSTEMS


@dataclass(frozen=True)
class Contents:
    """Names directly in one folder, sorted. lost: links to what is not there; images among them count as images, whose
    files are only looked at when they are opened."""

    images: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def contents(folder: Path) -> Contents:
    """What is in `folder`, which must be there. UserError if it may not be read."""
    found = Contents()
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                if entry.name != STAMP:
                    _kind(entry, found).append(entry.name)
    except OSError as error:
        raise denied(folder, error) from error
    return found


def _kind(entry: os.DirEntry[str], found: Contents) -> list[str]:
    """Only links that may be folders are followed: following a million links to images takes minutes on a network."""
    if is_hidden(entry.name):
        return found.hidden
    if is_image_name(entry.name) and not entry.is_dir(follow_symlinks=False):
        return found.images
    if entry.is_dir():
        return found.folders
    return found.lost if entry.is_symlink() and not os.path.exists(entry.path) else found.others


class Skipped:
    """What a reader passes over, by kind."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, kind: str, names: Iterable[str], below: str = "") -> None:
        self._names.setdefault(kind, []).extend(f"{below}/{name}" if below else name for name in names)

    def texts(self) -> tuple[str, ...]:
        """For ImageSet.skipped: "3 hidden file(s) or folder(s): train/.DS_Store, …" for each kind that occurred."""
        return tuple(f"{len(names):,} {kind}: {some(names)}" for kind, names in self._names.items() if names)


def unlisted(folder: Path, listed: set[str]) -> Skipped:
    """What is directly in `folder`, all of whose images a list must name, and is not in it."""
    inside, skipped = contents(folder), Skipped()
    skipped.add(HIDDEN, inside.hidden, folder.name)
    extra = sorted({*inside.images, *inside.others, *inside.folders, *inside.lost} - listed)
    skipped.add("file(s) or folder(s) that no list names", extra, folder.name)
    return skipped
