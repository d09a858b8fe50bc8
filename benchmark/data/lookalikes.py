"""Datasets that lie almost where they are looked for: `ImageNet/`, `VOC2007/` without its VOCdevkit, and the like."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from benchmark.data.folders import is_hidden
from benchmark.data.images import is_image_name

DEPTH = 3  # VOCtrainval_06-Nov-2007/VOCdevkit/VOC2007
FEW = 40  # a folder that holds more folders than this holds classes
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".mat")
MOST_LOOKED_AT = 10_000  # files


def lookalike(data_root: Path, home: str | PurePath, also_called: Sequence[str] = ()) -> Path | None:
    """The folder that is probably meant to be `data_root`/`home`, which is not there; None if nothing looks like it."""
    place = data_root / home
    if os.path.lexists(place):
        return place  # a file, or a link to a disk that is not mounted
    parts = PurePath(home).parts
    wanted = {_bare(name) for name in (parts[-1], *also_called)}
    if _bare(data_root.absolute().name) in wanted:
        return data_root
    found = None
    for path in _below(data_root, DEPTH):
        inner = found is None or found in path.parents  # ILSVRC/Data/CLS-LOC
        if inner and _bare(path.name) in wanted and _holds_data(path):
            found = path
    return found


def advice(found: Path, data_root: Path, home: str | PurePath) -> str:
    """How to put right what `lookalike` found."""
    if found == data_root:
        return f"--data must name the folder that holds {home}/: try --data {data_root.absolute().parent}."
    if found == data_root / home:
        return "Mount the disk that it leads to, or put the dataset's folder in its place."
    return f"Move it to {data_root / home}, or make that a link to it: the name must be exactly this."


def _holds_data(folder: Path) -> bool:
    """Whether images, or archives of them, are among the first files in it: many a folder has such a name."""
    files = (name for _, _, names in os.walk(folder) for name in names)
    return any(
        is_image_name(name) or name.lower().endswith(ARCHIVES) for name in itertools.islice(files, MOST_LOOKED_AT)
    )


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Folders in `folder`, and then those in them."""
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))
    except OSError:
        return
    yield from inside
    for path in inside if len(inside) <= FEW else ():
        if depth > 1 and not path.is_symlink():
            yield from _below(path, depth - 1)
