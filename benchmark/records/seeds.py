"""Which records may be averaged. A table's mean and the gate's target are of the same ones, since both ask here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from benchmark.records.record import Record


def alike(
    records: Sequence[Record], hashes: Collection[str], versions: Mapping[str, int]
) -> tuple[list[Record], list[Record]]:
    """Of the records of one recipe under one transfer at one scale: (those that may be averaged, by seed; the others).

    Only seeds that share settings, protocol version and data are averaged. Where there are several such sets, it is the
    one whose settings are current; then the one whose version is; then the largest; then the one with the lowest seed.
    hashes: of the recipes as they would run now. versions: of the protocols there are now, by id.
    """
    sets: dict[tuple[str, int, str], list[Record]] = defaultdict(list)
    for record in records:
        sets[record.recipe_hash, record.transfer_version, data_key(record)].append(record)

    def rank(same: list[Record]) -> tuple[bool, bool, int, int]:
        one = same[0]
        is_current = versions.get(one.transfer) == one.transfer_version
        return one.recipe_hash in hashes, is_current, len(same), -min(record.seed for record in same)

    kept = max(sets.values(), key=rank)
    others = [record for same in sets.values() if same is not kept for record in same]
    return sorted(kept, key=lambda record: record.seed), others


def data_key(record: Record) -> str:
    """What the protocol read, as one line: equal for records on the same data."""
    return " ".join(f"{name}={record.transfer_data[name]}" for name in sorted(record.transfer_data))
