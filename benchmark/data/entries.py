"""Checks file names from a list, csv or json: they must exist, and be inside the dataset's own folder."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmark.data.findings import BadData, bad


def check_entries(names: Sequence[str], base: Path, where: Callable[[int], str]) -> None:
    """Every name must be an existing file in `base`; links may not lead out of it (`base` itself may be a link).

    where(i) says where name i comes from, e.g. "train_places205.csv, line 17". Each folder is listed once, which also
    tells links from files, so 2.4 million names cost one listing of their folders instead of 2.4 million `stat` calls.
    """
    by_folder: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(names):
        if "\\" in name or not name or name.startswith("/") or ".." in name.split("/"):
            raise _outside(name, base, where(i))
        by_folder[name.rpartition("/")[0]].append(i)
    home = Path(os.path.realpath(base))
    missing: list[int] = []
    for folder, indices in by_folder.items():
        if not _inside(base / folder, home):
            raise _outside(names[indices[0]], base, where(indices[0]))
        links, files = _listing(base / folder)
        for i in indices:
            name = names[i].rpartition("/")[2]
            if name in links and not _inside(base / names[i], home):
                raise _outside(names[i], base, where(i))
            if name not in files and not (name in links and (base / names[i]).is_file()):
                missing.append(i)
    if missing:
        first = min(missing)
        what = f"{names[first]} is not in {base} ({len(missing):,} of {len(names):,} entries have no file)"
        raise bad(where(first), what, "Unpack the images again, or remove the entries from the list.")


def read_lines(path: Path, fix: str) -> list[str]:
    """The lines of a text file; BadData if it is not there or not text."""
    try:
        content = path.read_text(encoding="utf-8").removesuffix("\n")
    except FileNotFoundError as error:
        raise bad(path, "there is no such file", fix) from error
    except UnicodeDecodeError as error:
        raise bad(path, "is not a text file", fix) from error
    return content.split("\n") if content else []  # not splitlines, which also splits at characters a name may have


def _listing(folder: Path) -> tuple[set[str], set[str]]:
    """Names of the links and of the plain files in a folder; none if there is no such folder."""
    links: set[str] = set()
    files: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                (links if entry.is_symlink() else files).add(entry.name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    return links, files


def _inside(path: Path, home: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(home)


def _outside(name: str, base: Path, where: str) -> BadData:
    return bad(
        where, f"{name!r} points outside {base}", "Such an entry is an error or an attack: fetch the list again."
    )
