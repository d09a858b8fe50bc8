"""Every dataset by name. A layout is one module in `benchmark/data/layouts/`, found by scanning that folder."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from benchmark.core.errors import UserError
from benchmark.data import layouts
from benchmark.data.findings import Finding, denied, printable, some
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Labels
from benchmark.data.lookalikes import advice, lookalike
from benchmark.data.names import Names, drop, find
from benchmark.data.unreadable import current_list, read_unreadable


class Layout(Protocol):
    """What a module in `benchmark/data/layouts/` defines."""

    NAME: str  # as `open_dataset` takes it
    HOME: str  # its folder below the data root; empty where the user names the dataset itself, by --images
    SPLITS: dict[str, tuple[int, int]]  # split -> (images, classes) of the real, complete dataset
    LABELS: type[Labels] | None  # which kind its images have
    ALSO_CALLED: tuple[str, ...]  # other names that people give the last folder of HOME, for the doctor's advice

    def read(self, data_root: Path, split: str) -> ImageSet:
        """The images of one split; UserError naming what is missing or wrong."""

    def check(self, data_root: Path) -> list[Finding]:
        """What the doctor should say about this layout, besides what it finds by reading every split.
        May raise UserError; one that reading a split raises too is shown only once."""


def _scan() -> dict[str, Layout]:
    names = sorted(module.name for module in pkgutil.iter_modules(layouts.__path__))
    modules = [importlib.import_module(f"{layouts.__name__}.{name}") for name in names]
    return {module.NAME: cast(Layout, module) for module in modules}


LAYOUTS: dict[str, Layout] = _scan()
DATASETS = {name: layout for name, layout in LAYOUTS.items() if layout.HOME}  # those with a place below a data root


@cache
def _say(line: str) -> None:
    """Once in each process, since a command opens its datasets several times."""
    print(printable(line), file=sys.stderr)


def open_dataset(data_root: Path, name: str, split: str, report: Callable[[str], None] = _say) -> ImageSet:
    """The images of one split of one dataset below `data_root`.

    What the layout's reader passes over, and files listed as unreadable (`unreadable.py`), are counted and named in
    `skipped` and through `report`; any other unreadable file raises UnreadableImage when it is opened.
    """
    layout = LAYOUTS.get(name)
    if layout is None:
        raise UserError(f"There is no dataset {name!r}. Known: {', '.join(DATASETS)}.")
    if split not in layout.SPLITS:
        raise UserError(f"{name} has no split {split!r}. It has: {', '.join(layout.SPLITS)}.")
    home = data_root / layout.HOME
    if not layout.HOME and not home.exists():
        raise UserError(f"--images {home}: there is no such folder or file")
    if layout.HOME and not home.is_dir():
        raise UserError(
            f"{home}: there is no such folder, so {name} cannot be read{_almost(data_root, layout)}. "
            f"--data must name the folder that holds {layout.HOME}/; `sslbench doctor` says what it finds where."
        )
    images = read_split(layout, data_root, split)
    if images.skipped:
        report(f"{images.name}: skipped {'; '.join(images.skipped)}")
    return without_unreadable(images, report)


def _almost(data_root: Path, layout: Layout) -> str:
    found = lookalike(data_root, layout.HOME, layout.ALSO_CALLED)
    return f"; {found} looks like it. {advice(found, data_root, layout.HOME)}" if found else ""


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
    """`images` without the files that are listed as unreadable. Costs nothing if there is no such list."""
    listed = read_unreadable(images.root)
    dropped = images.whole(find(images.files, listed)) if listed else np.empty(0, dtype=np.int64)
    if not len(dropped):
        return images
    names = tuple(images.files[int(i)] for i in dropped)
    why = "listed as unreadable" if images.together == 1 else "together with one listed as unreadable"
    left_out = f"{len(names):,} of {len(images):,} images, {why} in {current_list(images.root)}"
    report(f"{images.name}: left out {left_out}: {some([*names])}")
    kept = np.delete(np.arange(len(images)), dropped)
    return replace(
        images,
        files=drop(images.files, dropped),
        labels=None if images.labels is None else images.labels.at(kept),
        skipped=(*images.skipped, f"{len(names):,} image(s) {why}: {some([*names])}"),
        unreadable=() if isinstance(images.files, Names) else names,  # lists of images are for sets with labels
    )
