"""Sequences of file names that stay small when there are tens of millions of them.

A Python list takes about 100 bytes per name, and takes them again in every loader worker, because reading a string
writes its reference count and so copies the memory page. 95 million names (YFCC100M) would take 10 GB per worker. The
sequences here hold only numbers.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from benchmark.data.entries import other_encoding
from benchmark.data.findings import bad

LINES_PER_MARK = 16
BLANKS = " \t\r\n"  # at the end of a line; no image's name ends so


class Names(Sequence[str]):
    """A read-only sequence of names. Subclasses define `__len__`, `name` and, if they can do better, `positions`."""

    def name(self, index: int) -> str:
        """The name at `index`, 0 ≤ index < len."""
        raise NotImplementedError

    def positions(self, wanted: Iterable[str]) -> np.ndarray:
        """(K,) int64, increasing: the positions of those `wanted` names that occur. Reads every name."""
        return find(self, wanted)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return Picked(self, np.arange(*index.indices(len(self))))
        position = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= position < len(self):
            raise IndexError(f"{index} of {len(self)} names")
        return self.name(position)

    def __iter__(self) -> Iterator[str]:
        return (self.name(i) for i in range(len(self)))


class Picked(Names):
    """The names of `base` at `indices`. Memory: 8 bytes per picked name, on top of `base`."""

    def __init__(self, base: Sequence[str], indices: np.ndarray) -> None:
        self.base, self.indices = base, np.asarray(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.base[int(self.indices[index])]


class Without(Names):
    """`base` without the names at the increasing positions `dropped`. Memory: 8 bytes per dropped name, on top of
    `base`."""

    def __init__(self, base: Sequence[str], dropped: np.ndarray) -> None:
        self.base = base
        # shifted[k] = how many names are kept before the k-th dropped one
        self.shifted = np.asarray(dropped, dtype=np.int64) - np.arange(len(dropped))

    def __len__(self) -> int:
        return len(self.base) - len(self.shifted)

    def name(self, index: int) -> str:
        return self.base[index + int(np.searchsorted(self.shifted, index, side="right"))]


class Lines(Names):
    """The lines of a text file, one name each, read straight from the file.

    Memory: the file is mapped, not read; 8 bytes for every 16th line, 48 MB for the 95 million of YFCC100M. Opening
    scans the file once (a few seconds per GB). Finding a name takes at most 16 steps from the nearest mark.
    Absolute names and names with ".." are refused here, with their line number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map()
        self.marks, self.length = self._scan()

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        start = int(self.marks[index // LINES_PER_MARK])
        for _ in range(index % LINES_PER_MARK):
            start = self._end(start) + 1
        return self.text[start : self._end(start)].tobytes().decode("utf-8", "surrogateescape").rstrip(BLANKS)

    def __iter__(self) -> Iterator[str]:
        with open(self.path, encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            for number, line in enumerate(lines):
                yield (line if number else line.removeprefix("\ufeff")).rstrip(BLANKS)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "marks": self.marks, "length": self.length}  # never the text itself

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._map()

    def _map(self) -> None:
        try:
            if self.path.stat().st_size == 0:
                raise bad(self.path, "the list is empty", "Write one image per line, relative to the list's folder.")
            self.text = np.memmap(self.path, dtype=np.uint8, mode="r").view(np.ndarray)  # plain arrays slice faster
        except OSError as error:
            raise bad(self.path, f"cannot be read: {error.strerror}", "Check that it is there and readable.") from error

    def _end(self, start: int) -> int:
        """Where the line that begins at `start` ends (its newline, or the end of the file)."""
        step = 256
        while start < len(self.text):
            found = np.flatnonzero(self.text[start : start + step] == ord("\n"))
            if len(found):
                return start + int(found[0])
            if start + step >= len(self.text):
                break
            start, step = start + step, step * 2
        return len(self.text)

    def _scan(self, chunk: int = 1 << 24) -> tuple[np.ndarray, int]:
        """Byte offset of every 16th line, and how many lines there are; refuses blank and absolute ones."""
        self._refuse_other_text(chunk)
        marks: list[np.ndarray] = []
        # `first`: starts of lines known from the chunk before; the list itself starts after a byte order mark
        count, first = 0, np.array([len(BOM_UTF8) if self.text[:3].tobytes() == BOM_UTF8 else 0], dtype=np.int64)
        for begin in range(0, len(self.text), chunk):
            ends = begin + np.flatnonzero(self.text[begin : begin + chunk] == ord("\n"))
            starts = np.concatenate([first, ends + 1])
            starts, first = starts[starts < begin + chunk], starts[starts >= begin + chunk]
            starts = starts[starts < len(self.text)]
            self._refuse(starts, count)
            marks.append(starts[-count % LINES_PER_MARK :: LINES_PER_MARK].astype(np.int64))
            count += len(starts)
        if not count:
            raise bad(self.path, "the list is empty", "Write one image per line, relative to the list's folder.")
        self._refuse_parents(chunk)
        return np.concatenate(marks), count

    def _refuse_other_text(self, chunk: int) -> None:
        """Refuses UTF-16, UTF-32 and other files with NUL bytes, which no text in UTF-8 has."""
        fix = "Save it as UTF-8, one image per line."
        if encoding := other_encoding(self.text[:4].tobytes()):
            raise bad(self.path, f"is {encoding} and not a text file in UTF-8", fix)
        for begin in range(0, len(self.text), chunk):
            at = self.text[begin : begin + chunk].tobytes().find(b"\0")
            if at >= 0:
                line = 1 + int(np.count_nonzero(self.text[: begin + at] == ord("\n")))
                raise bad(f"{self.path}, line {line}", "has a NUL byte, so this is not a text file in UTF-8", fix)

    def _refuse(self, starts: np.ndarray, count: int) -> None:
        """Refuses lines that are blank, or absolute: those that begin with a slash or a backslash."""
        firsts = self.text[starts]
        for codes, what in ((BLANKS.encode(), "is blank"), (b"/\\", "is absolute")):
            for hit in np.flatnonzero(np.isin(firsts, np.frombuffer(codes, dtype=np.uint8))).tolist():
                start = int(starts[hit])
                if what == "is absolute" or not self.text[start : self._end(start)].tobytes().strip(BLANKS.encode()):
                    fix = "Every line must be an image name relative to the list's folder."
                    raise bad(f"{self.path}, line {count + hit + 1}", f"the name {what}", fix)

    def _refuse_parents(self, chunk: int) -> None:
        """Refuses names with a ".." component. `bytes.find` runs at memory speed, so only its rare hits are checked."""
        for begin in range(0, len(self.text), chunk):
            block = self.text[begin : begin + chunk + 1].tobytes()
            at = block.find(b"..")
            while at >= 0:
                start = self._start(begin + at)
                name = self.text[start : self._end(start)].tobytes()
                if b".." in name.rstrip(b"\r").replace(b"\\", b"/").split(b"/"):
                    line = 1 + int(np.count_nonzero(self.text[:start] == ord("\n")))
                    fix = "Every line must be an image name inside the list's folder."
                    raise bad(
                        f"{self.path}, line {line}", f"{name.decode(errors='replace')} points outside the root", fix
                    )
                at = block.find(b"..", at + 2)

    def _start(self, position: int) -> int:
        while position > 0 and self.text[position - 1] != ord("\n"):
            position -= 1
        return position


def find(names: Sequence[str], wanted: Iterable[str]) -> np.ndarray:
    """(K,) int64, increasing: the positions in `names` of the `wanted` ones, found in one pass over the names."""
    if isinstance(names, Names) and type(names).positions is not Names.positions:
        return names.positions(wanted)
    asked = frozenset(wanted)
    return np.array([i for i, name in enumerate(names) if name in asked], dtype=np.int64)


def drop(names: Sequence[str], positions: np.ndarray) -> Sequence[str]:
    """The names except those at the increasing `positions`: a list from a list, a lazy view of a lazy sequence."""
    if isinstance(names, Names):
        return Without(names, positions)
    gone = set(positions.tolist())
    return [name for i, name in enumerate(names) if i not in gone]


def pick(names: Sequence[str], indices: np.ndarray) -> Sequence[str]:
    """The names at `indices`: a list from a list, a lazy view of a lazy sequence."""
    return Picked(names, indices) if isinstance(names, Names) else [names[i] for i in indices]
