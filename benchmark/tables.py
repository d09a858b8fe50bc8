"""Tables: what papers report beside what was measured here, as markdown. Imports no torch.

Reported and measured numbers never share a column, nor do two scales, two versions of a protocol, or two data sets.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.errors import UserError
from benchmark.leaderboards import Column, Layout, Note, read_layouts
from benchmark.ledger import LEADERBOARDS, Reported, citation, read_reported
from benchmark.results import Record, read_published

MARKS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Variant:
    """What measured numbers of one column share."""

    scale: str
    version: int
    data: str  # fingerprints of what the protocol read


@dataclass(frozen=True)
class Cell:
    """Measured values over seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    def __str__(self) -> str:
        spread = f" ± {statistics.stdev(self.values):.1f}" if len(self.values) > 1 else ""
        return f"{self.mean:.1f}{spread} ({len(self.values)})"


Printed = dict[tuple[str, str], str]  # (method, column) -> the number as its source prints it
Measured = dict[tuple[str, str, Variant], Cell]  # (recipe, column, variant) -> values over seeds


def collect(published: Iterable[Record], runs: Iterable[Record], is_current: Callable[[Record], bool]) -> list[Record]:
    """One record per (scale, recipe, transfer, seed): the run that is current, else the published one, else none."""
    chosen = {record.published_path: record for record in published}
    chosen.update({record.published_path: record for record in runs if is_current(record)})
    return [chosen[path] for path in sorted(chosen)]


def table(layout: Layout, reported: Sequence[Reported], records: Sequence[Record]) -> str:
    """The whole section as markdown: title, table, rank agreement, protocols, notes."""
    printed = _printed(layout, reported)
    measured, left_out = _measured(layout, records)
    layout = _without_empty_rows(layout, printed, measured)
    headers, cells = ["Method"], [[_marked(layout, row.title, row.method, "")] for row in layout.rows]
    for column in layout.columns:
        own = [printed.get((row.method, column.title), "") for row in layout.rows]
        headers.append(f"{column.title}, reported" if _variants(measured, column) else column.title)
        numbers = [float(text) if text else None for text in own]
        for line, row, text in zip(cells, layout.rows, _bold(layout, column, own, numbers), strict=True):
            line.append(_marked(layout, text or "–", row.method, column.title))
        for variant in _variants(measured, column):
            found = [measured.get((row.recipe, column.title, variant)) for row in layout.rows]
            headers.append(f"{column.title}, {_title(variant, _variants(measured, column))}")
            texts = [str(cell) if cell else "" for cell in found]
            means = [cell.mean if cell else None for cell in found]
            for line, text in zip(cells, _bold(layout, column, texts, means), strict=True):
                line.append(text or "–")
    if layout.delta:
        cells.append(_delta_line(layout, printed, measured))
    parts = [
        f"### {layout.title}",
        f"{layout.printed} of {citation(layout.source)}.",
        _markdown(headers, cells),
        "\n".join([*_agreement(layout, printed, measured), *_protocols(layout, measured)]),
        "\n".join(_footnotes(layout, measured, left_out)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _without_empty_rows(layout: Layout, printed: Printed, measured: Measured) -> Layout:
    """Rows with neither a reported nor a measured number go, and footnotes that are about them alone."""
    methods, recipes = {method for method, _ in printed}, {recipe for recipe, _, _ in measured}
    rows = tuple(row for row in layout.rows if row.method in methods or row.recipe in recipes)
    kept = {row.method for row in rows}
    notes = tuple(note for note in layout.notes if not note.methods or kept & set(note.methods))
    return replace(layout, rows=rows, notes=notes)


def _printed(layout: Layout, reported: Sequence[Reported]) -> Printed:
    known = {
        (line.method, line.transfer, line.setting, line.metric): line.value
        for line in reported
        if line.table == layout.printed
    }
    found = {(r.method, c.title): known.get((r.method, *c.reported)) for r in layout.rows for c in layout.columns}
    return {key: value for key, value in found.items() if value is not None}


def _measured(layout: Layout, records: Sequence[Record]) -> tuple[Measured, list[str]]:
    """What there is, and a line for every record that is left out of a mean because its settings differ."""
    found: Measured = {}
    left_out: dict[str, None] = {}
    recipes = {row.recipe for row in layout.rows if row.recipe}
    for column in layout.columns:
        groups: dict[tuple[str, Variant], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
        for record in records:
            if record.transfer == column.transfer and record.recipe in recipes:
                data = ",".join(record.transfer_data[name] for name in sorted(record.transfer_data))
                variant = Variant(record.scale, record.transfer_version, data)
                groups[record.recipe, variant][record.recipe_hash].append(record)
        for (recipe, variant), by_settings in groups.items():
            kept = max(by_settings.values(), key=lambda group: (len(group), -min(r.seed for r in group)))
            found[recipe, column.title, variant] = Cell(tuple(_value(record, column) for record in kept))
            for other in (record for group in by_settings.values() if group is not kept for record in group):
                left_out[
                    f"{recipe} seed {other.seed} at {other.scale} scale ran with other settings "
                    f"({other.recipe_hash}, not {kept[0].recipe_hash}) and is left out"
                ] = None
    return found, list(left_out)


def _value(record: Record, column: Column) -> float:
    scores = record.detail.get("per_stage", {}) if column.stage else record.metrics
    key = column.stage or column.metric
    if not isinstance(scores, dict) or not isinstance(scores.get(key), int | float):
        raise UserError(f"{record.path}: has no {key!r}, which table column {column.title!r} shows")
    return float(scores[key])


def _variants(measured: Measured, column: Column) -> list[Variant]:
    found = {variant for _, title, variant in measured if title == column.title}
    return sorted(found, key=lambda v: (v.scale, v.version, v.data))


def _title(variant: Variant, others: Sequence[Variant]) -> str:
    """The scale, and whatever else tells this column from its neighbours."""
    same_scale = [other for other in others if other.scale == variant.scale]
    title = variant.scale
    if len({other.version for other in same_scale}) > 1:
        title += f" v{variant.version}"
    if len({other.data for other in same_scale if other.version == variant.version}) > 1:
        title += f" on data {variant.data}"
    return title


def _bold(layout: Layout, column: Column, texts: list[str], numbers: Sequence[float | None]) -> list[str]:
    """`texts` with the best number's in bold; rows that frame the table compete for nothing."""
    competing = [
        number for row, number in zip(layout.rows, numbers, strict=True) if number is not None and row.competes
    ]
    if column.best == "none" or not competing:
        return texts
    best = max(competing) if column.best == "highest" else min(competing)
    return [
        f"**{text}**" if number == best and row.competes else text
        for row, text, number in zip(layout.rows, texts, numbers, strict=True)
    ]


def _marked(layout: Layout, text: str, method: str, column: str) -> str:
    """`text` with the letters of the footnotes that are about it."""
    marks = [
        mark
        for mark, note in _lettered(layout)
        if method in note.methods and (column in note.columns if note.columns else not column)
    ]
    return f"{text} <sup>{','.join(marks)}</sup>" if marks else text


def _lettered(layout: Layout) -> list[tuple[str, Note]]:
    return list(zip(MARKS, (note for note in layout.notes if note.methods), strict=False))


def _delta_line(layout: Layout, printed: Printed, measured: Measured) -> list[str]:
    assert layout.delta
    recipes = {row.method: row.recipe for row in layout.rows}
    of, minus = layout.delta.of, layout.delta.minus
    line = [layout.delta.title]
    for column in layout.columns:
        pair = [printed.get((method, column.title)) for method in (of, minus)]
        line.append(f"{float(pair[0]) - float(pair[1]):+.1f}" if pair[0] and pair[1] else "–")
        for variant in _variants(measured, column):
            one, other = (measured.get((recipes.get(method, ""), column.title, variant)) for method in (of, minus))
            line.append(f"{one.mean - other.mean:+.1f}" if one and other else "–")
    return line


def _agreement(layout: Layout, printed: Printed, measured: Measured) -> list[str]:
    """One line per scale: Kendall's τ of every column."""
    by_scale: dict[str, list[str]] = defaultdict(list)
    for column in layout.columns:
        variants = _variants(measured, column)
        for variant in variants:
            cells = [(row.method, measured.get((row.recipe, column.title, variant))) for row in layout.rows]
            both = [
                (float(printed[method, column.title]), cell.mean)
                for method, cell in cells
                if cell and (method, column.title) in printed
            ]
            extra = _title(variant, variants).removeprefix(variant.scale)
            by_scale[variant.scale].append(f"{column.title}{extra} {_tau(both)}")
    return [
        f"- Rank agreement with the paper (Kendall's τ, 1 is the same order), {scale}: {'; '.join(texts)}."
        for scale, texts in by_scale.items()
    ]


def _tau(both: Sequence[tuple[float, float]]) -> str:
    if len(both) < 2:
        return f"– ({len(both)} to compare)"
    tau = rank_agreement(*zip(*both, strict=True))
    return f"{'all tied' if tau is None else f'{tau:+.2f}'} ({len(both)} methods)"


def rank_agreement(reported: Sequence[float], measured: Sequence[float]) -> float | None:
    """Kendall's τ-b of two lists of scores; None where one list is all ties and so has no order."""
    from scipy.stats import kendalltau  # a second to import, and only tables with measured numbers need it

    tau = float(kendalltau(reported, measured).statistic)
    return tau if tau == tau else None  # NaN is not equal to itself


def _protocols(layout: Layout, measured: Measured) -> list[str]:
    """Which transfer made which measured columns; columns of one transfer together."""
    by_transfer: dict[str, list[str]] = defaultdict(list)
    versions: dict[str, set[str]] = defaultdict(set)
    for column in layout.columns:
        if column.transfer:
            by_transfer[column.transfer].append(column.title)
            versions[column.transfer].update(f"v{variant.version}" for variant in _variants(measured, column))
    texts = [
        f"{', '.join(titles)}: `{transfer}` {', '.join(sorted(versions[transfer])) or '(not measured yet)'}"
        for transfer, titles in by_transfer.items()
    ]
    return [f"- Protocols of the measured columns: {'; '.join(texts)}."] if texts else []


def _footnotes(layout: Layout, measured: Measured, left_out: Sequence[str]) -> list[str]:
    lines = []
    if measured:
        lines.append("- Measured: mean ± standard deviation over seeds (number of seeds). Bold: best.")
    scales = sorted({variant.scale for _, _, variant in measured})
    lines += [
        f"- {scale}: {layout.scales.get(scale, 'a scale that tables.toml does not describe')}." for scale in scales
    ]
    lines += [f"- {note.text}" for note in layout.notes if not note.methods]
    lines += [f"- <sup>{mark}</sup> {note.text}" for mark, note in _lettered(layout)]
    return lines + [f"- {text}." for text in left_out]


def _markdown(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    from tabulate import tabulate  # not needed by those who only read layouts

    align = ["left"] + ["right"] * (len(headers) - 1)
    return tabulate(cells, headers=headers, tablefmt="github", colalign=align, disable_numparse=True)


def render(
    records: Sequence[Record], leaderboards: Path = LEADERBOARDS, also_unmeasured: bool = True
) -> dict[str, str]:
    """Every table by key; only those with a measured number if asked so."""
    measured = {(record.recipe, record.transfer) for record in records}
    layouts = [
        layout
        for layout in read_layouts(leaderboards / "tables.toml")
        if also_unmeasured or any((r.recipe, c.transfer) in measured for r in layout.rows for c in layout.columns)
    ]
    ledgers = {layout.source: read_reported(layout.source, leaderboards / "reported") for layout in layouts}
    return {layout.key: table(layout, ledgers[layout.source], records) for layout in layouts}


def leaderboard_files(leaderboards: Path = LEADERBOARDS) -> dict[Path, str]:
    """leaderboards/*.md as they should be, from published records alone."""
    written = "<!-- Written by `sslbench tables --write`; change tables.toml or the records, not this file. -->\n\n"
    rendered = render(list(read_published(leaderboards / "measured")), leaderboards)
    layouts = {layout.key: layout for layout in read_layouts(leaderboards / "tables.toml")}
    index = [
        f"- [{layout.title}]({key}.md), {layout.printed} of {citation(layout.source, leaderboards / 'sources.csv')}"
        for key, layout in layouts.items()
    ]
    files = {leaderboards / f"{key}.md": written + text for key, text in rendered.items()}
    files[leaderboards / "README.md"] = written + "\n".join(["# Leaderboards", "", *index]) + "\n"
    return files
