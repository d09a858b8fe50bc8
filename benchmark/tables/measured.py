"""Measured numbers by what they share: scale, version of the protocol, data. Imports no torch."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from benchmark.core.errors import UserError
from benchmark.records.record import Record
from benchmark.records.seeds import alike
from benchmark.tables.layout import Column, TableLayout


@dataclass(frozen=True, order=True)
class Variant:
    """What measured numbers of one column share."""

    scale: str
    version: int
    data: str  # fingerprints of what the protocol read


@dataclass(frozen=True)
class Seeds:
    """The records of one number, seed by seed, and their values."""

    records: tuple[Record, ...]
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    def __str__(self) -> str:
        spread = f" ± {statistics.stdev(self.values):.1f}" if len(self.values) > 1 else ""
        return f"{self.mean:.1f}{spread} ({len(self.values)})"


Measured = dict[tuple[str, str, Variant], Seeds]  # (recipe, column, variant) -> seeds


def collect(published: Iterable[Record], runs: Iterable[Record], is_current: Callable[[Record], bool]) -> list[Record]:
    """One record per (scale, recipe, transfer, seed): the run that is current, else the published one, else none."""
    chosen = {record.published_path: record for record in published}
    chosen.update({record.published_path: record for record in runs if is_current(record)})
    return [chosen[path] for path in sorted(chosen)]


def variant_of(record: Record) -> Variant:
    data = ",".join(record.transfer_data[name] for name in sorted(record.transfer_data))
    return Variant(record.scale, record.transfer_version, data)


def measured_in(
    layout: TableLayout, records: Sequence[Record], current: Collection[str] = ()
) -> tuple[Measured, list[str]]:
    """What there is, and a line for every record that is left out of a mean because its settings differ. current:
    hashes of the recipes as they would run now."""
    recipes, transfers = ({row.recipe for row in layout.rows}, {column.transfer for column in layout.columns})
    groups: dict[tuple[str, str, Variant], list[Record]] = defaultdict(list)
    for record in records:
        if record.transfer in transfers and record.recipe in recipes:
            groups[record.transfer, record.recipe, variant_of(record)].append(record)
    chosen = {key: alike(group, current, {}) for key, group in groups.items()}
    found = {
        (recipe, column.title, variant): Seeds(tuple(kept), tuple(value_of(record, column) for record in kept))
        for column in layout.columns
        for (transfer, recipe, variant), (kept, _) in chosen.items()
        if transfer == column.transfer
    }
    left_out = [
        f"{other.recipe} seed {other.seed} at {other.scale} scale ran with other settings "
        f"({other.recipe_hash}, not {kept[0].recipe_hash}) and is left out"
        for kept, others in chosen.values()
        for other in others
    ]
    return found, list(dict.fromkeys(left_out))


def value_of(record: Record, column: Column) -> float:
    """The record's value for a column. Raises UserError naming the record if it has none."""
    scores = record.detail.get("per_stage", {}) if column.stage else record.metrics
    key = column.stage or column.metric
    if not isinstance(scores, dict) or type(scores.get(key)) not in (int, float):
        raise UserError(f"{record.path}: has no {key!r}, which table column {column.title!r} shows")
    return float(scores[key])


def variants(measured: Measured, column: Column) -> list[Variant]:
    return sorted({variant for _, title, variant in measured if title == column.title})


def variant_title(variant: Variant, others: Sequence[Variant]) -> str:
    """The scale, and whatever else tells this column from its neighbours."""
    same_scale = [other for other in others if other.scale == variant.scale]
    title = variant.scale
    if len({other.version for other in same_scale}) > 1:
        title += f" v{variant.version}"
    if len({other.data for other in same_scale if other.version == variant.version}) > 1:
        title += f" on data {variant.data}"
    return title
