"""Measured numbers by what they share: scale, version of the protocol, data. Imports no torch."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmark.core.errors import UserError
from benchmark.records.frames import frame_of
from benchmark.records.record import Record
from benchmark.records.seeds import alike
from benchmark.tables.layout import Column, TableLayout, transfers_of

if TYPE_CHECKING:
    import pandas as pd

VARIANT = ["scale", "transfer_version", "transfer_fingerprints"]  # columns of a frame of records: a Variant's fields


@dataclass(frozen=True, order=True)
class Variant:
    """What measured numbers of one column share."""

    scale: str
    version: int
    data: str  # fingerprints of what the protocol read, in the order of their names


@dataclass(frozen=True)
class Seeds:
    """The records of one number, seed by seed, and their values."""

    records: tuple[Record, ...]
    values: tuple[float, ...]

    def record_of(self, seed: int) -> Record:
        return next(record for record in self.records if record.seed == seed)

    @property
    def by_seed(self) -> dict[int, float]:
        return {record.seed: value for record, value in zip(self.records, self.values, strict=True)}

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Standard deviation of the sample; None of one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        return mean_std(self.values)


def mean_std(values: Sequence[float], digits: int = 1) -> str:
    """As tables print it: mean, standard deviation of the sample, number of seeds."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread} ({len(values)})"


Measured = dict[tuple[str, str, Variant], Seeds]  # (recipe, column, variant) -> seeds


def collect(published: Iterable[Record], runs: Iterable[Record], is_current: Callable[[Record], bool]) -> list[Record]:
    """One record per (scale, recipe, transfer, seed): the run that is current, else the published one, else none."""
    chosen = {record.published_path: record for record in published}
    chosen.update({record.published_path: record for record in runs if is_current(record)})
    return [chosen[path] for path in sorted(chosen)]


def measured_scores(records: Sequence[Record], current: Collection[str] = ()) -> pd.DataFrame:
    """Every score of the records, as `benchmark.records.frame` describes it, with two more columns. record: the Record.
    instead: "" if it is averaged with its other seeds, else the hash of the settings that are.

    current: hashes of the recipes as they would run now."""
    scores = frame_of(records)
    instead: dict[int, str] = {}
    for _, same in scores.groupby(["transfer", "recipe", *VARIANT]):
        kept, others = alike([records[place] for place in same.index.unique()], current, {})
        instead |= {id(other): kept[0].recipe_hash for other in others}
    its_record = [records[place] for place in scores.index]
    return scores.assign(record=its_record, instead=[instead.get(id(record), "") for record in its_record])


def measured_in(layout: TableLayout, scores: pd.DataFrame) -> tuple[Measured, list[str]]:
    """What there is among `measured_scores`, and a line for every record that is left out of a mean because its
    settings differ. Raises UserError naming a record that lacks a number which the table shows."""
    of_recipes = scores["recipe"].isin([one for row in layout.rows for one in row.all_recipes])
    shown = scores[of_recipes & scores["transfer"].isin(transfers_of([layout]))]
    averaged = shown[shown["instead"] == ""].sort_values("seed", kind="stable")
    others = shown[shown["instead"] != ""]
    found: Measured = {}
    for column in layout.columns:
        if column.transfer:
            found |= _in_column(layout, column, averaged)
    left_out = [
        f"{other.recipe} seed {other.seed} at {other.scale} scale ran with other settings "
        f"({other.recipe_hash}, not {instead}) and is left out"
        for other, instead in zip(others["record"], others["instead"], strict=True)
    ]
    return found, list(dict.fromkeys(left_out))


def _in_column(layout: TableLayout, column: Column, scores: pd.DataFrame) -> Measured:
    """A row with a transfer of its own stands in every variant of the column that has its scale and read what it read.
    Versions are each transfer's own and cannot be compared: of the row's, the newest counts."""
    groups = {
        (recipe, Variant(*variant)): Seeds(tuple(seeds["record"]), tuple(seeds["value"]))
        for (recipe, *variant), seeds in _below(layout, column, scores).groupby(["recipe", *VARIANT])
    }
    apart = {row.recipe_in(column.title) for row in layout.rows if column.title in row.transfers}
    shared = {variant: seeds for (recipe, variant), seeds in groups.items() if recipe not in apart}
    found: Measured = {}
    for (recipe, variant), seeds in groups.items():  # in order of versions: the last one stays
        places = [one for one in shared if _reads_part(seeds, shared[one])] if recipe in apart else []
        found |= {(recipe, column.title, place): seeds for place in places or [variant]}
    return found


def _reads_part(seeds: Seeds, of: Seeds) -> bool:
    """Whether they are of one scale, and the first read nothing but what the others read too."""
    one, other = seeds.records[0], of.records[0]
    return one.scale == other.scale and one.transfer_data.items() <= other.transfer_data.items()


def _below(layout: TableLayout, column: Column, scores: pd.DataFrame) -> pd.DataFrame:
    """The scores that a column shows: with a stage, those of that stage, whatever the metric is called."""
    wanted = {row.recipe_in(column.title): row.scored_by(column) for row in layout.rows}
    transfers, stages = (scores["recipe"].map({name: pair[i] for name, pair in wanted.items()}) for i in (0, 1))
    is_metric = (stages != "") | (scores["metric"] == column.metric)
    has_run = scores["transfer"] == transfers
    ran, cells = scores[has_run], scores[has_run & is_metric & (scores["stage"] == stages)]
    for record in ran["record"][~ran.index.isin(cells.index)]:
        what = wanted[record.recipe][1] or column.metric
        raise UserError(f"{record.path}: has no {what!r}, which table column {column.title!r} shows")
    return cells


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
