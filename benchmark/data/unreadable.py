"""The list of a dataset's unreadable images, which `sslbench doctor --deep` writes and runs leave out.

It lies beside the images, in unreadable.txt. Where these may not be written, it lies beside the runs instead, in
RUNS/unreadable/<full path of the images' folder>.txt. Where there are both, the newer one counts. Each line is a name
relative to ImageSet.root, a tab, and the reason; a line without a tab that begins with # is a comment.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.files import write_whole
from benchmark.data.entries import decoded
from benchmark.data.findings import Finding, denied, some

UNREADABLE = "unreadable.txt"
RUNS = "SSLBENCH_RUNS"  # in the environment, because jobs and loaders are processes of their own
HEADER = "# Images that cannot be decoded, which runs leave out. Written by `sslbench doctor --deep`.\n"


def keep_lists_in(runs: Path) -> None:
    """From now on, look for lists in this folder of runs too; without it, in ./runs."""
    os.environ[RUNS] = os.path.abspath(runs)


def list_beside_runs(root: Path) -> Path:
    """Where the list of the images below `root` lies if it cannot lie there. A link to the images is the same list."""
    below = os.path.realpath(root).lstrip(os.sep)
    return Path(os.environ.get(RUNS, "runs"), "unreadable", below + ".txt")


def current_list(root: Path) -> Path:
    """The list that counts, whether it exists or not."""
    own, other = root / UNREADABLE, list_beside_runs(root)
    if not other.is_file():
        return own
    return other if not own.is_file() or other.stat().st_mtime_ns >= own.stat().st_mtime_ns else own


def read_unreadable(root: Path) -> list[str]:
    """The names that the list has for the images below `root`, without the reasons; none if there is no list."""
    return [*_listed(current_list(root))]


def listed_besides(root: Path, files: frozenset[str]) -> dict[str, str]:
    """Name -> reason of what the list has of other images than `files`."""
    return {name: reason for name, reason in _listed(current_list(root)).items() if name not in files}


def _listed(path: Path) -> dict[str, str]:
    try:
        text = decoded(path, path.read_bytes(), "Run `sslbench doctor --deep` again.")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise denied(path, error) from error
    lines = (line.rstrip() for line in text.split("\n"))
    listed = (line for line in lines if line and ("\t" in line or not line.startswith("#")))
    parts = (line.rpartition("\t") if "\t" in line else (line, "", "") for line in listed)
    return {name or reason: reason if name else "" for name, _, reason in parts}  # a name may have a tab, no reason has


def write_unreadable(root: Path, broken: dict[str, str]) -> list[Finding]:
    """Replaces the list, so that a repaired file is used again; no list is left if nothing is broken. `broken`: name ->
    reason. Says where the list is if it is not beside the images."""
    other = list_beside_runs(root)
    try:
        _replace(root / UNREADABLE, broken)
        other.unlink(missing_ok=True)
        return []
    except (OSError, UserError) as error:
        why = str(error.__cause__ or error)
    try:
        write_whole(other, _content(broken))
    except (OSError, UserError) as error:
        fix = "Make one of the two writable, or give doctor another --runs."
        what = f"cannot be written ({why}), nor can {other} ({error})"
        return [Finding("error", root.name, str(root / UNREADABLE), what, fix)]
    what = f"cannot be written, so {other} holds the list; runs that write to the same --runs find it there"
    return [Finding("note", root.name, str(root / UNREADABLE), what)]


def _replace(path: Path, broken: dict[str, str]) -> None:
    """Writes nothing where nothing changes, so that sound data on a read-only disk needs no list elsewhere."""
    if broken and (not path.is_file() or path.read_bytes() != _content(broken)):
        write_whole(path, _content(broken))
    elif not broken and os.path.lexists(path):
        path.unlink()


def _content(broken: dict[str, str]) -> bytes:
    lines = "".join(f"{file}\t{' '.join(reason.split())}\n" for file, reason in sorted(broken.items()))
    return (HEADER + lines).encode(errors="surrogateescape")


def unknown_names(root: Path, known: frozenset[str]) -> list[Finding]:
    """Listed names that are no images there: a name almost right leaves nothing out."""
    strange = sorted({*read_unreadable(root)} - known)
    if not strange:
        return []
    what = f"{len(strange):,} listed name(s) match no image: {some(strange)}"
    return [Finding("warning", root.name, str(current_list(root)), what, "Correct them, or run --deep again.")]
