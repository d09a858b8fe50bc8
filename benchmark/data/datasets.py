"""Every dataset by name. A layout is one module in `benchmark/data/layouts/`, found by scanning that folder."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from benchmark.core.errors import UserError
from benchmark.data import layouts
from benchmark.data.findings import Finding, denied, some
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Labels
from benchmark.data.names import drop, find

UNREADABLE = "unreadable.txt"  # beside the images; each line: a name relative to ImageSet.root, a tab, the reason


class Layout(Protocol):
    """What a module in `benchmark/data/layouts/` defines."""

    NAME: str  # as `open_dataset` takes it
    HOME: str  # its folder below the data root
    SPLITS: dict[str, tuple[int, int]]  # split -> (images, classes) of the real, complete dataset
    LABELS: type[Labels] | None  # which kind its images have

    def read(self, data_root: Path, split: str) -> ImageSet:
        """The images of one split; UserError naming what is missing or wrong."""

    def check(self, data_root: Path) -> list[Finding]:
        """What the doctor should say about this layout, besides what it finds by reading every split.
        May raise UserError; one that reading a split raises too is shown only once."""


def _scan() -> dict[str, Layout]:
    names = sorted(module.name for module in pkgutil.iter_modules(layouts.__path__))
    modules = [importlib.import_module(f"{layouts.__name__}.{name}") for name in names]
    return {module.NAME: cast(Layout, module) for module in modules}


DATASETS: dict[str, Layout] = _scan()


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def open_dataset(data_root: Path, name: str, split: str, report: Callable[[str], None] = _say) -> ImageSet:
    """The images of one split of one dataset below `data_root`.

    Files listed in the dataset's unreadable.txt (written by `sslbench doctor --deep`) are left out, counted and named
    through `report`; any other unreadable file raises UnreadableImage when it is opened.
    """
    layout = DATASETS.get(name)
    if layout is None:
        raise UserError(f"There is no dataset {name!r}. Known: {', '.join(DATASETS)}.")
    if split not in layout.SPLITS:
        raise UserError(f"{name} has no split {split!r}. It has: {', '.join(layout.SPLITS)}.")
    home = data_root / layout.HOME
    if not home.is_dir():
        raise UserError(
            f"{home}: there is no such folder, so {name} cannot be read. "
            f"--data must name the folder that holds {layout.HOME}/; `sslbench doctor` says what it finds where."
        )
    return without_unreadable(read_split(layout, data_root, split), report)


def is_there(data_root: Path, name: str) -> bool:
    """Whether the dataset's folder exists, whatever is in it."""
    return name in DATASETS and (data_root / DATASETS[name].HOME).is_dir()


def read_split(layout: Layout, data_root: Path, split: str) -> ImageSet:
    """One split as it is on disk, unreadable images included. A folder that may not be read is a UserError too."""
    try:
        return layout.read(data_root, split)
    except OSError as error:
        raise denied(error.filename or data_root / layout.HOME, error) from error


def without_unreadable(images: ImageSet, report: Callable[[str], None]) -> ImageSet:
    """`images` without the files named in unreadable.txt. Costs nothing if there is no such list."""
    listed = read_unreadable(images.root)
    dropped = find(images.files, listed) if listed else np.empty(0, dtype=np.int64)
    if not len(dropped):
        return images
    named = some([images.files[int(i)] for i in dropped[:6]][:5])
    rest = f" and {len(dropped) - 5:,} more" if len(dropped) > 5 else ""
    report(
        f"{images.name}: left out {len(dropped):,} of {len(images):,} images, "
        f"listed as unreadable in {images.root / UNREADABLE}: {named}{rest}"
    )
    kept = np.delete(np.arange(len(images)), dropped)
    labels = None if images.labels is None else images.labels.at(kept)
    return replace(images, files=drop(images.files, dropped), labels=labels)


def read_unreadable(root: Path) -> list[str]:
    """The names listed in `root`/unreadable.txt, without the reasons; none if there is no such file."""
    try:
        text = (root / UNREADABLE).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise denied(root / UNREADABLE, error) from error
    return [line.split("\t")[0] for line in text.split("\n") if line and not line.startswith("#")]
