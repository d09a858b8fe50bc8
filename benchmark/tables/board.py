"""Tables as data: what papers report beside what was measured here. Imports no torch.

Reported and measured numbers never share a column, nor do two scales, two versions of a protocol, or two data sets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.records.record import Record
from benchmark.tables.agreement import (
    Agreement,
    Compared,
    agreement,
    differences_in_words,
    first_line,
    orders,
    reproduced,
)
from benchmark.tables.budget import COUNTED, budgets
from benchmark.tables.emphasis import measured_emphasis, reported_emphasis
from benchmark.tables.footnotes import STALE, UNVERIFIED, Footnote, footnotes, marks
from benchmark.tables.layout import Column, Discrepancy, TableLayout
from benchmark.tables.ledger import NamesByKind, Reported
from benchmark.tables.measured import Measured, Seeds, Variant, measured_in, variant_title, variants
from benchmark.tables.reported import Number, Printed, difference, printed_in

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Head:
    """kind: method, fact, reported, computed, measured, delta or verdict. column: the layout's."""

    title: str
    kind: str
    column: str = ""
    scale: str = ""


@dataclass(frozen=True)
class Cell:
    """number: what to sort and draw by. style: "", "bold" or "underline". about: where the number comes from.
    std, seeds, records: of a measured number, which is the mean over seeds."""

    text: str = ""
    number: float | None = None
    style: str = ""
    marks: tuple[str, ...] = ()
    about: str = ""
    std: float | None = None
    seeds: int = 0
    records: tuple[Record, ...] = ()


@dataclass(frozen=True)
class Board:
    """A table with all its cells: lines[i][j] stands below heads[j]. differences: lines that are a Δ of two rows.
    opening: what must be said before anything else, or "". agreements: of each measured column."""

    layout: TableLayout
    citation: str
    heads: tuple[Head, ...]
    lines: tuple[tuple[Cell, ...], ...]
    differences: frozenset[int]
    opening: str
    agreements: tuple[Agreement, ...]
    remarks: tuple[str, ...]
    footnotes: tuple[Footnote, ...]


@dataclass(frozen=True)
class Legend:
    """What tables say besides numbers. stale: published path of a record -> why it is not what would be run now."""

    names: NamesByKind = field(default_factory=dict)
    citations: Mapping[str, str] = field(default_factory=dict)
    discrepancies: Mapping[str, Discrepancy] = field(default_factory=dict)
    stale: Mapping[Path, str] = field(default_factory=dict)


def board(layout: TableLayout, reported: Sequence[Reported], scores: pd.DataFrame, legend: Legend) -> Board:
    """The whole table. scores: of benchmark.tables.measured.measured_scores. Raises UserError where the ledger or a
    record does not fit the layout."""
    printed = printed_in(layout, reported)
    measured, left_out = measured_in(layout, scores)
    layout = _without_empty_rows(layout, printed, measured)
    row_columns = list(_row_columns(layout, reported, printed, legend))
    how_long = list(_budget_columns(layout, measured))
    columns = [
        *row_columns,
        *how_long,
        *(one for column in layout.columns for one in _number_columns(layout, column, printed, measured, legend)),
    ]
    lines = [list(line) for line in zip(*(cells for _, cells, _ in columns), strict=True)]
    differences = []
    if layout.delta and {layout.delta.of, layout.delta.minus} <= {row.key for row in layout.rows}:
        at = [row.key for row in layout.rows].index(layout.delta.of) + 1
        lines.insert(at, [Cell(layout.delta.title), *(last for _, _, last in columns[1:])])
        differences = [at]
    agreements = list(_agreements(layout, printed, measured, _called(layout, row_columns)))
    return Board(
        layout,
        legend.citations.get(layout.source, layout.source),
        tuple(head for head, _, _ in columns),
        tuple(tuple(line) for line in lines),
        frozenset(differences),
        first_line(agreements),
        tuple(agreements),
        (*differences_in_words(agreements), *([COUNTED] if how_long else []), *_protocols(layout, measured)),
        tuple(footnotes(layout, printed, measured, left_out, _stale(measured, legend.stale), legend.discrepancies)),
    )


def _stale(measured: Measured, reasons: Mapping[Path, str]) -> list[str]:
    """A line for all records of one recipe and transfer that are stale for one reason."""
    seeds: dict[tuple[Path, str], set[int]] = defaultdict(set)
    for record in (record for one in measured.values() for record in one.records):
        if record.published_path in reasons:
            seeds[record.published_path.parent, reasons[record.published_path]].add(record.seed)
    files = {key: ", ".join(f"seed{seed}.json" for seed in sorted(found)) for key, found in seeds.items()}
    return [f"{folder.as_posix()}/{files[folder, why]}: {why}" for folder, why in sorted(seeds)]


def _without_empty_rows(layout: TableLayout, printed: Printed, measured: Measured) -> TableLayout:
    """Rows with neither a reported nor a measured number go, and footnotes that are about them alone. Columns in which
    nothing is best, e.g. sizes, keep no row, unless there are no others."""
    scores = {column.title for column in layout.columns if column.best != "none"}
    keys = {key for key, title in printed if title in scores or not scores}
    recipes = {recipe for recipe, _, _ in measured}
    rows = tuple(row for row in layout.rows if row.key in keys or recipes.intersection(row.all_recipes))
    kept = {row.key for row in rows}
    notes = tuple(note for note in layout.notes if not note.methods or kept & set(note.methods))
    return replace(layout, rows=rows, notes=notes)


BoardColumn = tuple[Head, list[Cell], Cell]  # a column: its head, a cell per row, and its cell in the Δ row


def _row_columns(
    layout: TableLayout, reported: Sequence[Reported], printed: Printed, legend: Legend
) -> Iterator[BoardColumn]:
    yield Head("Method", "method"), [Cell(row.title, marks=marks(layout, row, "")) for row in layout.rows], Cell()
    for what, title, kind in (("backbone", "Network", "backbone"), ("pretrain_data", "Pretrained on", "pretraining")):
        if what in layout.shows:
            texts = []
            for row in layout.rows:
                lines = [line for (key, _), number in printed.items() if key == row.key for line in number.lines[:1]]
                found = [getattr(row, what), *(getattr(line, what) for line in lines if line.method == row.method)]
                name = next(filter(None, found), "")
                texts.append(legend.names[kind][name].title if name in legend.names.get(kind, {}) else name)
            yield Head(title, "fact"), [Cell(text) for text in texts], Cell()
    for index, title in enumerate(layout.facts):
        yield Head(title, "fact"), [Cell(row.facts[index] if row.facts else "") for row in layout.rows], Cell()


def _called(layout: TableLayout, row_columns: Sequence[BoardColumn]) -> dict[str, str]:
    """Row key -> the row's title, and for one of several with that title what tells it from the others."""
    told = [[f"{head.title.lower()} {cell.text}" for cell in cells] for head, cells, _ in row_columns[1:]]
    facts = [[texts[at] for texts in told] for at in range(len(layout.rows))]
    called = {}
    for row, own in zip(layout.rows, facts, strict=True):
        alike = [its for other, its in zip(layout.rows, facts, strict=True) if other.title == row.title]
        apart = [text for text, *those in zip(own, *alike, strict=True) if len({*those}) > 1]
        called[row.key] = f"{row.title} ({', '.join(apart)})" if apart else row.title
    return called


def _budget_columns(layout: TableLayout, measured: Measured) -> Iterator[BoardColumn]:
    """How long each row was pretrained, scale by scale."""
    for scale in sorted({variant.scale for _, _, variant in measured}):
        records: dict[str, list[Record]] = defaultdict(list)
        for (recipe, _, variant), seeds in measured.items():
            records[recipe] += seeds.records if variant.scale == scale else ()
        cells = [Cell(budgets(one for name in row.all_recipes for one in records[name])) for row in layout.rows]
        if any(cell.text for cell in cells):
            yield Head(f"Pretraining, {scale}", "fact", scale=scale), cells, Cell()


def _number_columns(
    layout: TableLayout, column: Column, printed: Printed, measured: Measured, legend: Legend
) -> Iterator[BoardColumn]:
    """The reported numbers, then those measured per variant with their verdicts."""
    beside = variants(measured, column)
    numbers = [printed.get((row.key, column.title)) for row in layout.rows]
    looks = reported_emphasis(layout, column, [number.value if number else None for number in numbers])
    cells = [
        _reported_cell(number, style, marks(layout, row, column.title))
        for row, number, style in zip(layout.rows, numbers, looks, strict=True)
    ]
    title = f"{column.title}, reported" if beside else column.title
    yield (
        Head(title, "computed" if column.of else "reported", column.title),
        cells,
        _reported_delta(layout, column, printed),
    )
    for variant in beside:
        found = [measured.get((row.recipe_in(column.title), column.title, variant)) for row in layout.rows]
        name = _title(column, variant, beside)
        looks = measured_emphasis(layout, column, found)
        own = [_measured_cell(seeds, style, legend) for seeds, style in zip(found, looks, strict=True)]
        head = Head(name, "measured", column.title, variant.scale)
        yield head, own, _measured_delta(layout, column, variant, measured)
        if variant.scale == "paper":
            gaps = [
                seeds.mean - number.value if seeds and number else None
                for seeds, number in zip(found, numbers, strict=True)
            ]
            texts = [Cell("" if gap is None else f"{gap:+.1f}", gap) for gap in gaps]
            yield replace(head, title=f"{name} Δ", kind="delta"), texts, Cell()
            transfers = [row.scored_by(column)[0] for row in layout.rows]
            verdicts = [
                reproduced(gap, layout.tolerances.get(transfer)) for gap, transfer in zip(gaps, transfers, strict=True)
            ]
        else:
            verdicts = orders([(n.value, s.mean) if n and s else None for n, s in zip(numbers, found, strict=True)])
        yield replace(head, title=f"{name} verdict", kind="verdict"), [Cell(text) for text in verdicts], Cell()


def _reported_cell(number: Number | None, style: str, marks: tuple[str, ...]) -> Cell:
    if number is None:
        return Cell(marks=marks)
    unverified = any(not line.verified for line in number.lines)
    about = "; ".join(dict.fromkeys(_about(line) for line in number.lines))
    return Cell(number.text, number.value, style, (*marks, *([UNVERIFIED] if unverified else [])), about)


def _about(line: Reported) -> str:
    """Who measured it, and who has seen it: no commas in either."""
    by = f"measured by {line.measured_by}" if " " not in line.measured_by else line.measured_by
    return ", ".join(filter(None, (by if line.measured_by else "", line.evidence, line.note)))


def _measured_cell(seeds: Seeds | None, style: str, legend: Legend) -> Cell:
    if seeds is None:
        return Cell()
    stale = any(record.published_path in legend.stale for record in seeds.records)
    about = "; ".join(f"seed {record.seed}, commit {record.commit[:12]}" for record in seeds.records)
    marks = (STALE,) if stale else ()
    return Cell(str(seeds), seeds.mean, style, marks, about, seeds.std, len(seeds.values), seeds.records)


def _reported_delta(layout: TableLayout, column: Column, printed: Printed) -> Cell:
    if not layout.delta or column.best == "none":
        return Cell()
    of, minus = (printed.get((key, column.title)) for key in (layout.delta.of, layout.delta.minus))
    if not of or not minus:
        return Cell()
    number = difference(of, minus)
    return Cell(number.text, number.value, about="computed")


def _measured_delta(layout: TableLayout, column: Column, variant: Variant, measured: Measured) -> Cell:
    if not layout.delta:
        return Cell()
    recipes = {row.key: row.recipe_in(column.title) for row in layout.rows}
    keys = (layout.delta.of, layout.delta.minus)
    of, minus = (measured.get((recipes.get(key, ""), column.title, variant)) for key in keys)
    return Cell(f"{of.mean - minus.mean:+.1f}", of.mean - minus.mean, about="computed") if of and minus else Cell()


def _agreements(
    layout: TableLayout, printed: Printed, measured: Measured, called: Mapping[str, str]
) -> Iterator[Agreement]:
    """One of every measured column, with the rows that have both numbers."""
    for column in layout.columns:
        beside = variants(measured, column)
        for variant in beside:
            cells = [
                (
                    row,
                    printed.get((row.key, column.title)),
                    measured.get((row.recipe_in(column.title), column.title, variant)),
                )
                for row in layout.rows
            ]
            compared = [
                Compared(row, number.value, seeds, called[row.key]) for row, number, seeds in cells if number and seeds
            ]
            yield agreement(_title(column, variant, beside), variant.scale, column, compared)


def _title(column: Column, variant: Variant, beside: Sequence[Variant]) -> str:
    return f"{column.title}, {variant_title(variant, beside)}"


def _protocols(layout: TableLayout, measured: Measured) -> list[str]:
    """Which transfer made which measured columns; columns of one transfer together."""
    by_transfer: dict[str, list[str]] = defaultdict(list)
    versions: dict[str, set[str]] = defaultdict(set)
    for record in (record for seeds in measured.values() for record in seeds.records):
        versions[record.transfer].add(f"v{record.transfer_version}")
    for column in layout.columns:
        if column.transfer:
            by_transfer[column.transfer].append(column.title)
    for row in layout.rows:
        for transfer in dict.fromkeys(row.transfers.values()):
            titles = [title for title, own in row.transfers.items() if own == transfer]
            by_transfer[transfer].append(f"{row.title} in {', '.join(titles)}")
    texts = [
        f"{', '.join(titles)}: `{transfer}` {', '.join(sorted(versions[transfer])) or '(not measured yet)'}"
        for transfer, titles in by_transfer.items()
    ]
    return [f"Protocols of the measured columns: {'; '.join(texts)}."] if texts else []
