"""YFCC100M (Thomee et al. 2016, "YFCC100M: The New Data in Multimedia Research", CACM) as loose files, without labels.

    yfcc100m/files.txt                     one image per line, relative to yfcc100m/; if it exists, nothing else counts
    yfcc100m/000/00a/00000a….jpg …         otherwise: every image in any folder below, in the order of their paths

Memory: with files.txt, 48 MB for 95 million images (`names.Lines`). Without it, about 100 bytes per image and a walk
through every folder at each start. For more than a few million images, write a files.txt
(`find . -name '*.jpg' | cut -c3-`).
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import numpy as np

from benchmark.data.entries import one_name
from benchmark.data.findings import Finding, bad, some
from benchmark.data.folders import NO_IMAGES, Skipped
from benchmark.data.image_set import ImageSet
from benchmark.data.names import Lines
from benchmark.data.unreadable import UNREADABLE
from benchmark.data.walk import walk

NAME = "yfcc100m"
HOME = "yfcc100m"
SPLITS = {"train": (99_206_564, 0)}
LABELS = None
COUNT_VARIES = True  # photos are deleted by their owners, so no copy of it has exactly so many
ALSO_CALLED: tuple[str, ...] = ("yfcc",)

LIST = "files.txt"
MANY = 5_000_000


def read(data_root: Path, split: str) -> ImageSet:
    root = data_root / HOME
    if os.path.lexists(root / LIST):  # a link to what is not there is no reason to read other images
        return ImageSet(f"{NAME}/{split}", root, Lines(root / LIST))
    files, skipped = _every_image(root)
    return ImageSet(f"{NAME}/{split}", root, files, skipped=skipped.texts())


def _every_image(root: Path) -> tuple[list[str], Skipped]:
    files, others, skipped = walk(root)
    skipped.add(NO_IMAGES, [name for name in others if name != UNREADABLE])
    if not files:
        raise bad(root, "contains no images", "Put the images there in any folders, or list them in files.txt.")
    return files, skipped


def check(data_root: Path) -> list[Finding]:
    root = data_root / HOME
    if os.path.lexists(root / LIST):
        return _repeated(Lines(root / LIST))
    count = len(_every_image(root)[0])
    if count <= MANY:
        return []
    fix = f"Write {root / LIST} once: find . -name '*.jpg' | cut -c3-"
    return [Finding("warning", NAME, str(root), f"every run first walks through {count:,} files", fix)]


def _repeated(lines: Lines) -> list[Finding]:
    """A file listed twice counts twice. Looked for by hash, because so many names would not fit in memory."""
    hashes = np.fromiter((hash(one_name(name)) for name in lines), dtype=np.int64, count=len(lines))
    values, times = np.unique(hashes, return_counts=True)
    twice = {*values[times > 1].tolist()}
    if not twice:
        return []
    named = list(islice((name for name in lines if hash(one_name(name)) in twice), 2))
    what = f"{len(twice):,} name(s) are listed more than once, among them {some(sorted({*named}))}"
    return [Finding("error", NAME, str(lines.path), what, "Remove the repetitions: sort -u.")]
