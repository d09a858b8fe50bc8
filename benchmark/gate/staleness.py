"""Is a record still what would be run now? Computed from the recipe's hash, the protocol's version and the data's
fingerprints; nothing is remembered."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.recipe.contract import Recipe, recipe_hash
from benchmark.recipe.scales import SCALES, Scale, at_scale
from benchmark.records.record import Record

# What Record.transfer_data would be now; None where the data is not there, so nobody can say. UserError: it is broken.
DataNow = Callable[[Record], Mapping[str, str | None]]


def current_hashes(recipes: Mapping[str, Recipe], scales: Sequence[Scale] = SCALES) -> dict[tuple[str, str], str]:
    """(recipe, scale) -> hash of the recipe as it would run now."""
    return {(name, scale): recipe_hash(at_scale(recipe, scale)) for name, recipe in recipes.items() for scale in scales}


@functools.cache
def own_hashes() -> dict[tuple[str, str], str]:
    """The current hashes of the recipes that come with the benchmark; computed once per process."""
    from benchmark.recipe.catalogue import find_recipes  # imports torch

    return current_hashes(find_recipes())


def reasons(
    record: Record,
    hashes: Mapping[tuple[str, str], str],
    versions: Mapping[str, int],
    data_now: DataNow | None = None,
) -> list[str]:
    """Why the record is not what would be run now; empty if it is. hashes: (recipe, scale) -> hash of the recipe as it
    would run. versions: of the protocols there are, by id."""
    found = []
    if (record.recipe, record.scale) not in hashes:
        found.append(f"there is no recipe {record.recipe} at {record.scale} scale")
    elif (now := hashes[record.recipe, record.scale]) != record.recipe_hash:
        found.append(f"its recipe was {record.recipe_hash} and is {now} now")
    if record.transfer not in versions:
        found.append(f"there is no protocol {record.transfer}")
    elif (version := versions[record.transfer]) != record.transfer_version:
        found.append(f"its protocol was v{record.transfer_version} and is v{version} now")
    return found + (_changes_of_data(record, data_now) if data_now else [])


def _changes_of_data(record: Record, data_now: DataNow) -> list[str]:
    try:
        data = data_now(record)
    except UserError as error:
        return [f"its data cannot be read now: {error}"]
    changes = []
    for name in sorted(record.transfer_data.keys() | data.keys()):
        was, lies = record.transfer_data.get(name, "not there"), data.get(name, "not there")
        if lies is not None and was != lies:
            changes.append(f"{name} was {was} and is {lies} now")
    return changes


def stale_records(records: Iterable[Record], data_now: DataNow | None = None) -> dict[Path, str]:
    """Published path -> why, of every record that the benchmark's own recipes and protocols would not give now."""
    from benchmark.transfers import find_transfers  # imports torch

    records, hashes = list(records), own_hashes()
    versions = {name: transfer.card.version for name, transfer in find_transfers().items()}
    found = {record.published_path: reasons(record, hashes, versions, data_now) for record in records}
    return {path: "; ".join(why) for path, why in found.items() if why}


def data_below(folder: Callable[[str], Path]) -> DataNow:
    """What lies in the folder that `folder` gives for a scale."""
    from benchmark.data.datasets import is_there
    from benchmark.runs.scoring import fingerprint, transfer_data  # imports torch; computes each fingerprint once
    from benchmark.transfers import find_transfers

    transfers = find_transfers()

    def now(record: Record) -> Mapping[str, str | None]:
        if record.transfer not in transfers:
            return dict.fromkeys(record.transfer_data)
        transfer, root = transfers[record.transfer], folder(record.scale)
        there = [(name, split) for name, split in transfer.card.datasets if is_there(root, name)]
        if len(there) == len(transfer.card.datasets):
            return transfer_data(transfer, root)
        known = {f"{name}/{split}": fingerprint(root, name, split) for name, split in there}
        return dict.fromkeys(record.transfer_data) | known

    return now
