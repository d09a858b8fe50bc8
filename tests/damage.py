"""Damages one thing in a drawn dataset, as users' disks do, and judges what the readers and the doctor make of it.

python tests/damage.py 500      damages per layout; prints a table of outcomes
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from drawn_layouts import DRAWN, Random
from PIL import Image

from benchmark.core.errors import UserError
from benchmark.data.datasets import DATASETS, open_dataset
from benchmark.data.doctor import examine
from benchmark.data.images import _open_zip
from benchmark.data.layouts.yfcc100m_zips import _members

LISTS = (".txt", ".csv")


@dataclass(frozen=True)
class Read:
    """One split as a run sees it. seen: hash of pixels and class names in order; empty with an error."""

    error: str
    seen: str
    fingerprint: str
    skipped: tuple[str, ...]


def read(root: Path, name: str) -> dict[str, Read]:
    return {split: _read(root, name, split) for split in DATASETS[name].SPLITS}


def _read(root: Path, name: str, split: str) -> Read:
    _open_zip.cache_clear()  # open zips stay open, whatever becomes of the files
    _members.cache_clear()
    told: list[str] = []
    try:
        images = open_dataset(root, name, split, told.append)
        digest = hashlib.sha256()
        for index in range(len(images)):
            digest.update(images.open(index).tobytes())
            for kind in images.maps:
                digest.update(images.open_map(kind, index).tobytes())
            if images.labels is not None:
                row = np.atleast_1d(images.labels.values[index])
                digest.update(str([images.classes[row[0]]] if len(row) == 1 else row.tolist()).encode())
        digest.update(str(images.classes).encode())
    except UserError as error:
        return Read(str(error), "", "", tuple(told))
    if images.skipped:
        assert any(text in line for line in told for text in images.skipped)
    return Read("", digest.hexdigest(), images.fingerprint(), images.skipped)


# --- damages: each takes the dataset's folder, and returns names one of which must be told; () where it has no place


def _pick(rng: Random, found: list[Path]) -> Path | None:
    return found[int(rng.integers(len(found)))] if found else None


def _files(home: Path) -> list[Path]:
    return sorted(path for path in home.rglob("*") if path.is_file())


def _folders(home: Path) -> list[Path]:
    return sorted(path for path in home.rglob("*") if path.is_dir())


def _texts(home: Path) -> list[Path]:
    return [path for path in _files(home) if path.suffix in LISTS]


def _told(path: Path) -> tuple[str, ...]:
    """Names that a message about `path` may use: its own, or that of the folder it is missing from."""
    return (path.name, path.stem, path.parent.name)


def drop(home: Path, rng: Random) -> tuple[str, ...]:
    path = _pick(rng, _files(home))
    assert path
    path.unlink()
    return _told(path)


def drop_folder(home: Path, rng: Random) -> tuple[str, ...]:
    path = _pick(rng, _folders(home))
    if not path:
        return ()
    shutil.rmtree(path)
    return _told(path)


def drop_line(home: Path, rng: Random) -> tuple[str, ...]:
    return _lines(home, rng, lambda lines, i: lines.pop(i))


def double_line(home: Path, rng: Random) -> tuple[str, ...]:
    return _lines(home, rng, lambda lines, i: lines.insert(i, lines[i]))


def swap_labels(home: Path, rng: Random) -> tuple[str, ...]:
    def swap(lines: list[str], i: int) -> None:
        one, other = lines[i].split(), lines[i - 1].split()
        if len(one) > 1 and len(other) > 1:
            lines[i], lines[i - 1] = lines[i].replace(one[1], other[1], 1), lines[i - 1].replace(other[1], one[1], 1)
        else:
            lines[i], lines[i - 1] = lines[i - 1], lines[i]

    return _lines(home, rng, swap)


def _lines(home: Path, rng: Random, change: Callable[[list[str], int], object]) -> tuple[str, ...]:
    path = _pick(rng, _texts(home))
    if not path:
        return ()
    lines = path.read_text().splitlines()
    if not lines:
        return ()
    change(lines, int(rng.integers(len(lines))))
    path.write_text("".join(line + "\n" for line in lines))
    return _told(path)


def drop_entry(home: Path, rng: Random) -> tuple[str, ...]:
    return _entries(home, rng, lambda entries, i: entries.pop(i))


def double_entry(home: Path, rng: Random) -> tuple[str, ...]:
    return _entries(home, rng, lambda entries, i: entries.append(entries[i]))


def renumber_entry(home: Path, rng: Random) -> tuple[str, ...]:
    def renumber(entries: list, i: int) -> None:
        key = str(rng.choice([key for key in entries[i] if key == "id" or key.endswith("_id")]))
        value = rng.choice([1, -1, 7, 10**9])
        entries[i][key] += int(value)

    return _entries(home, rng, renumber)


def spoil_entry(home: Path, rng: Random) -> tuple[str, ...]:
    def spoil(entries: list, i: int) -> None:
        key = str(rng.choice(list(entries[i])))
        values = [None, "x", [], {}, -1, 1.5, True, "a\0b", "\ud800", "../x.jpg", 10**400]
        entries[i][key] = values[int(rng.integers(len(values)))]

    return _entries(home, rng, spoil)


def _entries(home: Path, rng: Random, change: Callable[[list, int], object]) -> tuple[str, ...]:
    path = _pick(rng, [path for path in _files(home) if path.suffix == ".json"])
    if not path:
        return ()
    content = json.loads(path.read_text())
    key = str(rng.choice(["images", "annotations", "categories"]))
    change(content[key], int(rng.integers(len(content[key]))))
    path.write_text(json.dumps(content))
    return (path.name, home.name)


def rename(home: Path, rng: Random) -> tuple[str, ...]:
    path = _pick(rng, _files(home) + _folders(home))
    assert path
    ways = (
        path.name + "x",
        path.stem + ".part",
        path.name.swapcase(),
        path.stem + " (1)" + path.suffix,
        "x" + path.name,
    )
    path.rename(path.with_name(ways[int(rng.integers(len(ways)))]))
    return (*_told(path), *ways)


def other_suffix(home: Path, rng: Random) -> tuple[str, ...]:
    path = _pick(rng, _files(home))
    assert path
    path.rename(path.with_suffix(str(rng.choice([".jpg", ".jpeg", ".png", ".JPG", ".txt", ""]))))
    return _told(path)


def renumber(home: Path, rng: Random) -> tuple[str, ...]:
    """Two things of one folder change names."""
    path = _pick(rng, _files(home) + _folders(home))
    assert path
    other = _pick(rng, sorted(p for p in path.parent.iterdir() if p != path and p.is_dir() == path.is_dir()))
    if not other:
        return ()
    spare = home / "spare"
    path.rename(spare)
    other.rename(path)
    spare.rename(other)
    return (*_told(path), *_told(other))


def move(home: Path, rng: Random) -> tuple[str, ...]:
    path, folder = _pick(rng, _files(home)), _pick(rng, [home, *_folders(home)])
    assert path
    assert folder
    if (folder / path.name).exists():
        return ()
    path.rename(folder / path.name)
    return (*_told(path), folder.name)


def truncate(home: Path, rng: Random) -> tuple[str, ...]:
    path = _pick(rng, _files(home))
    assert path
    os.truncate(path, int(rng.integers(path.stat().st_size)))
    return _told(path)


def dangle(home: Path, rng: Random) -> tuple[str, ...]:
    path = _pick(rng, _files(home) + _folders(home))
    assert path
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to("/nowhere/at/all")
    return _told(path)


def link(home: Path, rng: Random) -> tuple[str, ...]:
    """Moved to another disk, with a link in its place."""
    path = _pick(rng, _files(home) + _folders(home))
    assert path
    elsewhere = home.parent / f"elsewhere{path.suffix}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    return _told(path)


def loop(home: Path, rng: Random) -> tuple[str, ...]:
    path, target = _pick(rng, [home, *_folders(home)]), _pick(rng, [home, *_folders(home)])
    assert path
    assert target
    (path / "again").symlink_to(target)
    return ("again", *_told(path))


def hide(home: Path, rng: Random) -> tuple[str, ...]:
    path = _pick(rng, _files(home) + _folders(home))
    assert path
    path.rename(path.with_name("." + path.name))
    return (*_told(path), "." + path.name)


def add_hidden(home: Path, rng: Random) -> tuple[str, ...]:
    """A copy of an image in a folder such as notebooks and file servers make."""
    image = _pick(rng, [path for path in _files(home) if path.suffix.lower() in (".jpg", ".jpeg", ".zip")])
    folder = _pick(rng, [home, *_folders(home)])
    assert image
    assert folder
    hidden = folder / str(rng.choice([".ipynb_checkpoints", ".Trash-1000", "@eaDir", "__MACOSX"]))
    hidden.mkdir()
    shutil.copy(image, hidden / image.name)
    return (hidden.name, *_told(hidden))


def reencode_list(home: Path, rng: Random) -> tuple[str, ...]:
    path = _pick(rng, [path for path in _files(home) if path.suffix in (*LISTS, ".json", ".xml")])
    if not path:
        return ()
    content = path.read_text()
    crlf = content.replace("\n", "\r\n")
    ways = [content.encode("utf-8-sig"), content.encode("utf-16"), content.encode("utf-16-le"), crlf.encode()]
    ways += [crlf.encode("utf-8-sig"), content.replace("\n", "  \n").encode(), (content + "\n\n").encode()]
    ways += [content.encode() + b"\0", b"\0" + content.encode(), content.encode() + b"caf\xe9\n"]
    path.write_bytes(ways[int(rng.integers(len(ways)))])
    return _told(path)


def reencode_image(home: Path, rng: Random) -> tuple[str, ...]:
    path = _pick(rng, [path for path in _files(home) if path.suffix.lower() in (".jpg", ".jpeg", ".png")])
    if not path:
        return ()
    with Image.open(path) as opened:
        image = opened.convert("RGB") if path.suffix == ".png" else opened.copy()
    image.save(path, str(rng.choice(["PNG", "BMP", "TIFF"])))
    return _told(path)


def rename_latin(home: Path, rng: Random) -> tuple[str, ...]:
    path = _pick(rng, _files(home))
    assert path
    os.rename(path, os.fsencode(path.parent / "caf") + b"\xe9" + os.fsencode(path.suffix))
    return (*_told(path), "caf\\xe9")


DAMAGES = (drop, drop_folder, drop_line, double_line, swap_labels, drop_entry, double_entry, renumber_entry,
           spoil_entry, rename, other_suffix, renumber, move, truncate, dangle, link, loop, hide, add_hidden,
           reencode_list, reencode_image, rename_latin)  # fmt: skip


# Lists, names and folders tell of these, so that another fingerprint is not enough.
TOLD = {one.__name__ for one in (double_line, double_entry, spoil_entry, other_suffix, dangle, link, loop, hide,
                                 add_hidden, reencode_list, reencode_image)}  # fmt: skip


# --- what became of it


def outcome(name: str, seed: int, folder: Path) -> tuple[str, str, str]:
    """(damage, outcome, words) of one drawn and damaged dataset. "silent" is what must not be."""
    rng = np.random.default_rng([seed, sorted(DRAWN).index(name)])
    DRAWN[name](folder, rng)
    before = read(folder, name)
    assert not any(one.error or one.skipped for one in before.values()), before
    home = folder / DATASETS[name].HOME
    names: tuple[str, ...] = ()
    while not names:
        damage = DAMAGES[int(rng.integers(len(DAMAGES)))]
        names = damage(home, rng)
    after = read(folder, name)
    findings = examine(folder, deep=True, progress=False)
    said = [f"{one.path}: {one.message}" for one in findings if one.level != "note" or "skipped" in one.message]
    kind, words = _judged(before, after, said, names)
    if kind == "fingerprint" and damage.__name__ in TOLD:
        return damage.__name__, "silent", "only the fingerprint tells"
    return damage.__name__, kind, words


def _judged(
    before: dict[str, Read], after: dict[str, Read], said: list[str], names: tuple[str, ...]
) -> tuple[str, str]:
    told = [text for one in after.values() for text in (one.error, *one.skipped) if text]
    if told and not any(name in text for name in names for text in told):
        return "silent", f"names none of {names}: {told}"
    if told and not any(name in text for name in names for text in said):
        return "silent", f"the doctor names none of {names}: {said}"
    for split, now in after.items():
        other = now.seen != before[split].seen
        if other and not now.error and not told and now.fingerprint == before[split].fingerprint:
            return "silent", f"{split} is other data with the same fingerprint"
    if any(one.error for one in after.values()):
        return "error", told[0]
    if told:
        return "skipped", told[0]
    if all(one.seen == before[split].seen for split, one in after.items()):
        return "same", ""
    if any(name in text for name in names for text in said):
        return "doctor", said[0]
    return "fingerprint", ""


def main(count: int, only: list[str]) -> None:
    for name in only or sorted(DRAWN):
        table: Counter[tuple[str, str]] = Counter()
        for seed in range(count):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    damage, kind, words = outcome(name, seed, Path(folder))
                except Exception as error:
                    damage, kind, words = "?", "traceback", f"{type(error).__name__}: {error}"
            table[damage, kind] += 1
            if kind in ("silent", "traceback"):
                print(f"{name} seed {seed} {damage}: {kind} {words[:600]}", flush=True)
        kinds = sorted({kind for _, kind in table})
        totals = {kind: sum(n for (_, k), n in table.items() if k == kind) for kind in kinds}
        print(name, totals)
        for damage in sorted({damage for damage, _ in table}):
            print(f"    {damage:16s}", {kind: table[damage, kind] for kind in kinds if table[damage, kind]}, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
