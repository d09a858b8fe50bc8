"""Lists of file names: reads them as text, and checks that each name is an image inside the dataset's own folder."""

from __future__ import annotations

import codecs
import os
import posixpath
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmark.data.findings import BadData, bad, denied

MARKS = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"),
         (codecs.BOM_UTF16_BE, "UTF-16"))  # fmt: skip


def check_entries(names: Sequence[str], base: Path, where: Callable[[int], str]) -> None:
    """Every name must be an existing file in `base`, listed once; links may not lead out of it (`base` may be a link).

    where(i) says where name i comes from, e.g. "train_places205.csv, line 17". Each folder is listed once, which also
    tells links from files, so 2.4 million names cost one listing of their folders instead of 2.4 million `stat` calls.
    """
    by_folder: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(names):
        if "\\" in name or not name or name.startswith("/") or ".." in name.split("/"):
            raise _outside(name, base, where(i))
        if not is_file_name(name):
            raise bad(where(i), f"{name!r} cannot be the name of a file", "Fetch the list again.")
        by_folder[name.rpartition("/")[0]].append(i)
    _refuse_repeated(names, where)
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


def is_file_name(name: str) -> bool:
    """Whether a file can be called so: JSON can spell NUL bytes and halves of characters."""
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def _refuse_repeated(names: Sequence[str], where: Callable[[int], str]) -> None:
    """A file listed twice would count twice, under whatever name."""
    plain = [one_name(name) for name in names]
    if len(set(plain)) == len(plain):
        return
    seen: set[str] = set()
    for i, name in enumerate(plain):
        if name in seen:
            raise bad(where(i), f"{names[i]} is listed twice", "Fetch the list again, or remove one of the two.")
        seen.add(name)


def one_name(name: str) -> str:
    """The shortest of a file's names: ./0/a.jpg and 0//a.jpg are 0/a.jpg."""
    return posixpath.normpath(name) if "./" in name or "//" in name else name


def read_lines(path: Path, fix: str) -> list[str]:
    """The lines of a text file, without blank ones at its end; BadData if it is not there or not text."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise bad(path, "there is no such file", fix) from error
    except OSError as error:
        raise denied(path, error) from error
    text = decoded(path, content, fix).rstrip()
    return text.split("\n") if text else []  # not splitlines, which also splits at characters a name may have


def decoded(path: Path, content: bytes, fix: str) -> str:
    """Text with \\n at its line ends, whichever system wrote it. Bytes that are not UTF-8 become what they become in
    file names, since a list has the names as they are. BadData for UTF-16 or UTF-32, and for what is no text at all."""
    if encoding := other_encoding(content):
        raise bad(path, f"is {encoding} and not a text file in UTF-8", f"Save it as UTF-8. {fix}")
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise bad(f"{path}, line {line}", "has a NUL byte, so this is not a text file in UTF-8", fix)
    text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def other_encoding(content: bytes) -> str:
    """The encoding that a text's first four bytes say it has; empty for UTF-8, marked or not."""
    return next((encoding for mark, encoding in MARKS if content.startswith(mark)), "")


def _listing(folder: Path) -> tuple[set[str], set[str]]:
    """Names of the links and of the plain files in a folder; none if there is no such folder."""
    links: set[str] = set()
    files: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    links.add(entry.name)
                elif not entry.is_dir():
                    files.add(entry.name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    return links, files


def _inside(path: Path, home: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(home)


def _outside(name: str, base: Path, where: str) -> BadData:
    return bad(
        where, f"{name!r} points outside {base}", "Such an entry is an error or an attack: fetch the list again."
    )
