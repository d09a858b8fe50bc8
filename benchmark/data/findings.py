"""What is wrong with a dataset on disk: `Finding` for the doctor's report, `bad` for the error that stops a run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmark.core.errors import UserError

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    level: "error": runs stop or go wrong; "warning": runs work, but look at it; "note": worth knowing, maybe intended.
    fix:   what to do; empty for a note if there is nothing to do.
    """

    level: Level
    dataset: str
    path: str
    message: str
    fix: str = ""


class BadData(UserError):
    """A dataset that is not laid out as its reader expects; the parts are kept apart for the doctor's report."""

    path = ""
    what = ""
    fix = ""


def bad(path: Path | str, what: str, fix: str) -> BadData:
    """The error "path: what. fix." A function and not a constructor, because an error that passes between processes is
    rebuilt from its message alone."""
    error = BadData(printable(f"{path}: {what}. {fix}"))
    error.path, error.what, error.fix = printable(str(path)), printable(what), fix
    return error


def denied(path: Path | str, error: OSError) -> BadData:
    """The error for missing permissions or a failing disk. The data may be fine, so no run may skip it."""
    return bad(path, f"cannot be read: {error.strerror}", "Check its permissions and the disk.")


def printable(text: str) -> str:
    """`text` with bytes of file names that are not UTF-8 spelled out, as in caf\\xe9.jpg: no stream or file takes them
    as they are."""
    bytes_spelled = re.sub("[\udc80-\udcff]", lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
    return bytes_spelled.encode("utf-8", "backslashreplace").decode()


def from_error(error: UserError, dataset: str) -> Finding:
    """`error` as a finding."""
    if isinstance(error, BadData):
        return Finding("error", dataset, error.path, error.what, error.fix)
    return Finding("error", dataset, "", str(error))


def some(names: list[str], show: int = 5) -> str:
    """ "a, b, c" or "a, b, c, d, e and 12 more"."""
    rest = len(names) - show
    return printable(", ".join(names[:show])) + (f" and {rest:,} more" if rest > 0 else "")


def first(findings: list[Finding], dataset: str, root: Path, fix: str, show: int = 20) -> list[Finding]:
    """The first `show` findings, and how many more there are."""
    if len(findings) <= show:
        return findings
    more = f"and {len(findings) - show:,} more annotations, masks or images like these"
    return [*findings[:show], Finding("error", dataset, str(root), more, fix)]
