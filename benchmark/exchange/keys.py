"""Keys of a pickle's dictionaries and members of its sets, looked at before Python hashes them.

A tuple's hash is made anew each time, from those of its parts. A pickle of a hundred bytes may hold a tuple of the same
tuple twice, and so on: its hash takes 2^depth steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MOST_PARTS = 64  # of a tuple, with those of the tuples in it; names of weights have no parts


def require_short(keys: Iterable[Any]) -> None:
    """Raises ValueError for a tuple of more parts."""
    for key in keys:
        waiting, count = [key], 0
        while waiting:
            one = waiting.pop()
            parts = one if isinstance(one, tuple) else ()
            count += len(parts)
            if count > MOST_PARTS:
                raise ValueError(f"a key of a dictionary is a tuple of more than {MOST_PARTS} parts")
            waiting += parts
