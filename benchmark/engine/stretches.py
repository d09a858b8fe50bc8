"""By what code each part of a run was done, where it was stopped and went on after something had changed.

That makes nothing stale by itself: most changes move no number. But a record that named the newest code alone would be
wrong about the first half, and whoever resumes should hear of it while there is time to start over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.core.plain import flat

Maker = Mapping[str, Any]  # commit, versions and device
UNKNOWN: Maker = {"commit": "", "versions": {}, "device": ""}  # of what was written before this was kept


def continued(before: Sequence[Maker], now: Maker) -> list[Maker]:
    """The makers of what lies there, in order, with the one that goes on with it."""
    return [*before] if before and not change_told([before[-1], now]) else [*before, now]


def change_told(makers: Sequence[Maker]) -> str:
    """What changed between the last two makers, as `sslbench code 91ab… -> 02cd…`; "" where nothing did. What only one
    of them names is no change."""
    old, new = (dict(flat({key: one[key] for key in UNKNOWN})) for one in makers[-2:])
    if not makers[-2]["versions"]:
        return "by what code it began was not kept then"
    changed = [key for key in new if old.get(key, new[key]) != new[key]]
    return "; ".join(f"{key.removeprefix('versions.')} {old[key] or 'none'} -> {new[key] or 'none'}" for key in changed)
