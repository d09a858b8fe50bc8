"""The answer to a command that was given before, where nothing at all has changed since: without importing torch.

It judges no number. It compares whatever could change the answer: code, recipes, tables, package versions, the data's
files and the run's own files. If anything differs, it is silent, and benchmark.records.currency decides what is good.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.files import write_whole
from benchmark.core.provenance import REPOSITORY, versions
from benchmark.tables.ledger import LEADERBOARDS


@dataclass(frozen=True)
class LastAnswer:
    """arguments: what tells this command from others. sources: folders of recipe and transfer files, by content. files:
    data and outputs, by name, size and time of change. folder: where answers are remembered."""

    arguments: Sequence[str]
    sources: Sequence[Path]
    files: Sequence[Path]
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / f".done-{hashlib.sha256(repr(tuple(self.arguments)).encode()).hexdigest()[:12]}"

    def holds(self) -> bool:
        if not self.path.is_file():
            return False
        digest, *also = self.path.read_bytes().split(b"\0")
        return digest.decode(errors="replace") == self._digest(Path(os.fsdecode(name)) for name in also)

    def write(self, also: Sequence[Path] = ()) -> None:
        """also: more files or folders that the answer depends on, which only working it out could tell."""
        write_whole(self.path, b"\0".join([self._digest(also).encode(), *map(os.fsencode, also)]))

    def _digest(self, also: Iterable[Path]) -> str:
        digest = hashlib.sha256(repr((tuple(self.arguments), versions())).encode())
        for path in self._sources():
            digest.update(os.fsencode(path) + b"\0" + path.read_bytes())
        for root in (*self.files, *also):
            for line in _listing(root):
                digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def _sources(self) -> Iterable[Path]:
        for root in (REPOSITORY / "benchmark", *self.sources):
            yield from sorted(root.rglob("*.py"))
        yield from sorted(path for path in LEADERBOARDS.rglob("*.*") if path.suffix in (".csv", ".toml", ".json"))


def _listing(root: Path) -> Iterator[str]:
    """Path, size and time of change of every file below `root` (or of the file `root`), in order; workspaces and logs
    decide nothing."""
    if root.is_file():
        yield _line(root)
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in ("workspace", "tensorboard"))
        for name in sorted(files):
            if not name.startswith("."):
                yield _line(Path(folder, name))


def _line(path: Path) -> str:
    facts = path.stat()
    return f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\n"
