"""Is a record still what would be run now? Computed from the recipe's hash, the protocol's version and the data's
fingerprints; nothing is remembered."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchmark.errors import UserError
from benchmark.recipe import Recipe, recipe_hash
from benchmark.results import Record
from benchmark.scale import SCALES, Scale, at_scale

Fingerprint = Callable[[Record, str], str | None]  # of "dataset/split" as it lies there now; None where it is not there


def current_hashes(recipes: Mapping[str, Recipe], scales: Sequence[Scale] = SCALES) -> dict[tuple[str, str], str]:
    """(recipe, scale) -> hash of the recipe as it would run now."""
    return {(name, scale): recipe_hash(at_scale(recipe, scale)) for name, recipe in recipes.items() for scale in scales}


@functools.cache
def own_hashes() -> dict[tuple[str, str], str]:
    """The current hashes of the recipes that come with the benchmark; computed once per process."""
    from benchmark.catalog import find_recipes  # imports torch

    return current_hashes(find_recipes())


def reasons(
    record: Record,
    hashes: Mapping[tuple[str, str], str],
    versions: Mapping[str, int],
    fingerprint: Fingerprint | None = None,
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
    if fingerprint:
        for name, was in sorted(record.transfer_data.items()):
            if (lies := fingerprint(record, name)) not in (None, was):
                found.append(f"{name} was {was} and is {lies} now")
    return found


def stale_records(records: Iterable[Record], fingerprint: Fingerprint | None = None) -> dict[Path, str]:
    """Published path -> why, of every record that the benchmark's own recipes and protocols would not give now."""
    from benchmark.transfers import find_transfers  # imports torch

    records, hashes = list(records), own_hashes()
    versions = {name: transfer.card.version for name, transfer in find_transfers().items()}
    found = {record.published_path: reasons(record, hashes, versions, fingerprint) for record in records}
    return {path: "; ".join(why) for path, why in found.items() if why}


def fingerprints_below(data: Callable[[str], Path]) -> Fingerprint:
    """Fingerprints of what lies in the folder that `data` gives for a scale."""
    from benchmark.scoring import fingerprint  # imports torch; computes each fingerprint once

    def of(record: Record, name: str) -> str | None:
        dataset, slash, split = name.partition("/")
        try:
            return fingerprint(data(record.scale), dataset, split) if slash else None
        except UserError:
            return None  # the data is not here, so nobody can say

    return of
