"""The one exception a user is meant to read: what is wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Bad input. The message names the file, key or flag at fault and says how to fix it; the command line prints it
    without a traceback and exits with status 2."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message about a name that does not exist: similar names that do, or nothing."""
    close = get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" (did you mean {', '.join(close)}?)" if close else ""
