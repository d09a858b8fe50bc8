"""Is this number still good? Computed from hashes and versions as they are now; nothing is remembered.

Whoever asks says what things are now, as far as they have looked: a run looks at its backbone file, the regression gate
at the list of accepted records, a page at neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmark.records.record import Record

GONE = ""  # in place of a hash: there is no such thing any more


@dataclass(frozen=True)
class Now:
    """What a record is held against. None: nobody has looked, so it decides nothing.

    recipe:   hash of the recipe as it would run, or GONE.
    before:   the same of the recipes that it comes after, by the names it gives them.
    protocol: version of the transfer's protocol, or GONE.
    data:     name -> fingerprint, as in Record.transfer_data; None for what is not there to be looked at. Instead, a
              text that says why the data cannot be read.
    backbone: hash of the backbone file's bytes.
    engine:   the implementation of the protocol that would be used.
    accepted: hash of the record that leaderboards/expected.csv was written from, or GONE.
    """

    recipe: str | None = None
    before: Mapping[str, str] | None = None
    protocol: int | str | None = None
    data: Mapping[str, str | None] | str | None = None
    backbone: str | None = None
    engine: str | None = None
    accepted: str | None = None


def reasons(record: Record, now: Now) -> list[str]:
    """Why the record is not what would be measured or accepted now; empty if it is."""
    return list(_reasons(record, now))


def _reasons(record: Record, now: Now) -> Iterator[str]:
    if now.accepted == GONE:
        yield "it is not in expected.csv"
    elif now.accepted not in (None, record.hash):
        yield f"edited or replaced: {record.hash}, not {now.accepted}"
    if now.recipe == GONE:
        yield f"there is no recipe {record.recipe} at {record.scale} scale"
    elif now.recipe not in (None, record.recipe_hash):
        yield f"its recipe was {record.recipe_hash} and is {now.recipe} now"
    before = record.origin.get("after_recipes", {})
    for name, one in sorted((now.before or {}).items()):
        if one != before.get(name, one):
            yield f"the recipe of its {name} was {before[name]} and is {one or 'gone'} now"
    if now.protocol == GONE:
        yield f"there is no protocol {record.transfer}"
    elif now.protocol not in (None, record.transfer_version):
        yield f"its protocol was v{record.transfer_version} and is v{now.protocol} now"
    if now.backbone not in (None, record.backbone_hash):
        yield f"its backbone file was {record.backbone_hash} and is {now.backbone} now"
    if now.engine not in (None, engine := record.detail.get("engine")):
        yield f"its engine was {engine}, and {now.engine} is asked for"
    if isinstance(now.data, str):
        yield f"its data cannot be read now: {now.data}"
    elif now.data is not None:
        yield from _changes_of_data(record.transfer_data, now.data)


def _changes_of_data(was: Mapping[str, str], now: Mapping[str, str | None]) -> Iterator[str]:
    for name in sorted(was.keys() | now.keys()):
        before, after = was.get(name, "not there"), now.get(name, "not there")
        if after is not None and before != after:
            yield f"{name} was {before} and is {after} now"
