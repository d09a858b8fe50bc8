"""Every file in any folder below one, in a fixed order."""

from __future__ import annotations

import os
from pathlib import Path

from benchmark.data.findings import bad, some
from benchmark.data.folders import HIDDEN, Skipped, contents, is_hidden

SEEN = "folder(s) that the walk comes through by another way"


def walk(root: Path) -> tuple[list[str], list[str], Skipped]:
    """(images, other files, what was passed over) below `root`, each folder's own before those of the folders in it.
    Links to folders are followed, but not to those that the walk comes through anyway: a link to its own parent would
    make the set endless. BadData for a link to what is not there."""
    files: list[str] = []
    others: list[str] = []
    skipped = Skipped()
    home, seen = os.path.realpath(root), set[str]()
    waiting = [""]
    while waiting:
        below = waiting.pop()
        folder = root / below
        real = os.path.realpath(folder)
        if real in seen or (folder.is_symlink() and below and _is_walked(real, home)):
            skipped.add(SEEN, [below])
            continue
        seen.add(real)
        inside = contents(folder)
        if inside.lost:
            raise bad(folder, f"has links to what is not there: {some(inside.lost)}", "Mount the disk, or remove them.")
        prefix = below + "/" if below else ""
        files += [prefix + name for name in inside.images]
        others += [prefix + name for name in inside.others]
        waiting += [prefix + name for name in reversed(inside.folders)]
        skipped.add(HIDDEN, inside.hidden, below)
    return files, others, skipped


def _is_walked(real: str, home: str) -> bool:
    """Whether the walk reaches the folder `real` under its own name."""
    inside = os.path.relpath(real, home).split(os.sep)
    return inside == ["."] or not any(is_hidden(part) for part in inside)
