"""What published records are compared with: the benchmark's own recipes and protocols as they are now, and the data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import cast

from benchmark.core.errors import UserError
from benchmark.data.datasets import is_there
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Recipe
from benchmark.recipe.scales import SCALES, Scale, hashes_at
from benchmark.records.currency import GONE, Now, reasons
from benchmark.records.record import Record
from benchmark.runs.current import split_fingerprint, transfer_data
from benchmark.transfers import find_transfers

# What Record.transfer_data would be now, in the form that Now.data takes.
DataNow = Callable[[Record], Mapping[str, str | None] | str]


@functools.cache
def _own_recipes() -> Mapping[str, Recipe]:
    """The benchmark's own recipes. Found once per process: finding them reads every recipe's file."""
    return find_recipes()


@functools.cache
def own_hashes() -> dict[tuple[str, str], str]:
    """(recipe, scale) -> hash of the benchmark's own recipe as it would run now. Computed once per process."""
    return hashes_at(_own_recipes(), SCALES)


@functools.cache
def hashes_before(recipe: str, scale: str) -> dict[str, str]:
    """Of the recipes that one of the benchmark's own comes after, by the names it gives them."""
    own = _own_recipes()
    after = own[recipe].after if recipe in own else {}
    return {key: own_hashes().get((name, scale), GONE) for key, name in after.items()}


@functools.cache
def own_versions() -> dict[str, int]:
    """Protocol -> its version now."""
    return {name: transfer.card.version for name, transfer in find_transfers().items()}


def now_of(record: Record, data_now: DataNow | None = None) -> Now:
    """What the benchmark's own recipe and protocol are now; no recipe made an imported backbone. Without `data_now`,
    the data is not looked at."""
    own = None if "imported" in record.settings else own_hashes().get((record.recipe, record.scale), GONE)
    return Now(
        recipe=own,
        before=hashes_before(record.recipe, record.scale),
        protocol=own_versions().get(record.transfer, GONE),
        data=data_now(record) if data_now else None,
    )


def not_good(records: Iterable[Record], now: Callable[[Record], Now]) -> dict[Path, str]:
    """Published path -> why, for every record that does not match what `now` says."""
    found = {record.published_path: reasons(record, now(record)) for record in records}
    return {path: "; ".join(why) for path, why in found.items() if why}


def data_below(folder: Callable[[str], Path]) -> DataNow:
    """Looks at the data in the folder that `folder` gives for a record's scale."""
    transfers = find_transfers()

    def data_now(record: Record) -> Mapping[str, str | None] | str:
        if record.transfer not in transfers:
            return dict.fromkeys(record.transfer_data)
        transfer, root = transfers[record.transfer], folder(record.scale)
        scale = cast(Scale, record.scale)
        datasets = transfer.card.at(scale).datasets
        there = [(name, split) for name, split in datasets if is_there(root, name)]
        try:
            if len(there) == len(datasets):
                return transfer_data(transfer, root, scale)
            known = {f"{name}/{split}": split_fingerprint(root, name, split) for name, split in there}
        except UserError as error:
            return str(error)
        return dict.fromkeys(record.transfer_data) | known

    return data_now
