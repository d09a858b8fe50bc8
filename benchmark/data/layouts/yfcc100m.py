"""YFCC100M (Thomee et al. 2016, "YFCC100M: The New Data in Multimedia Research", CACM) as loose files, without labels.

    yfcc100m/files.txt                     one image per line, relative to yfcc100m/; if it exists, nothing else counts
    yfcc100m/000/00a/00000a….jpg …         otherwise: every image in any folder below, in the order of their paths

Memory: with files.txt, 48 MB for 95 million images (`names.Lines`). Without it, about 100 bytes per image and a walk
through every folder at each start. For more than a few million images, write a files.txt
(`find . -name '*.jpg' | cut -c3-`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from benchmark.data.findings import Finding, bad
from benchmark.data.image_set import ImageSet
from benchmark.data.images import is_image_name
from benchmark.data.names import Lines

NAME = "yfcc100m"
HOME = "yfcc100m"
SPLITS = {"train": (99_206_564, 0)}
LABELS = None

LIST = "files.txt"
MANY = 5_000_000


def read(data_root: Path, split: str) -> ImageSet:
    root = data_root / HOME
    files: Sequence[str] = Lines(root / LIST) if (root / LIST).exists() else _walk(root)
    return ImageSet(f"{NAME}/{split}", root, files)


def _walk(root: Path) -> list[str]:
    files = []
    for folder, folders, names in os.walk(root, followlinks=True):
        folders.sort()  # so that the walk has the same order on every file system
        below = os.path.relpath(folder, root)
        prefix = "" if below == "." else below.replace(os.sep, "/") + "/"
        files += [prefix + name for name in sorted(names) if is_image_name(name)]
    if not files:
        raise bad(root, "contains no images", "Put the images there in any folders, or list them in files.txt.")
    return files


def check(data_root: Path) -> list[Finding]:
    root = data_root / HOME
    if (root / LIST).exists():
        return []
    count = len(_walk(root))
    if count <= MANY:
        return []
    fix = f"Write {root / LIST} once: find . -name '*.jpg' | cut -c3-"
    return [Finding("warning", NAME, str(root), f"every run first walks through {count:,} files", fix)]
