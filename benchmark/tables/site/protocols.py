"""What the site's page of protocols says of each, given from above, since tables know no transfers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """The card of a transfer in words. facts: (what, text). departures: from the paper or its code."""

    id: str
    version: int
    title: str
    citation: str
    facts: tuple[tuple[str, str], ...]
    departures: tuple[str, ...]
