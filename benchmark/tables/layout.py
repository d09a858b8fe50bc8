"""Which tables there are, and which rows and columns each has: leaderboards/tables.toml. Imports no torch."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError, nearest
from benchmark.tables.ledger import LEADERBOARDS

BEST = ("highest", "lowest", "none")
UNDERLINES = ("none", "second", "behind")
PLOTS = ("bars", "lines")


@dataclass(frozen=True)
class Row:
    """One row of a table.

    method, backbone, pretrain_data: in the ledger; those left out may be anything.
    setting:  added to the setting that the column names. merged: instead, one number that stands for all columns.
    name:     what notes and Δ call the row; its method, if left out.
    recipe:   where measured numbers come from. recipes: where those of single columns do, by their titles.
    transfers: by columns' titles, a transfer instead of the column's, whose metric then stands there. It reads what the
              column's reads, or a part of that.
    competes: may be the best of the table. bold: is printed in bold whatever its numbers are.
    facts:    texts for the table's fact columns.
    """

    method: str
    title: str
    name: str = ""
    backbone: str = ""
    pretrain_data: str = ""
    setting: str = ""
    merged: str = ""
    recipe: str = ""
    recipes: Mapping[str, str] = field(default_factory=dict)
    transfers: Mapping[str, str] = field(default_factory=dict)
    competes: bool = True
    bold: bool = False
    facts: Sequence[str] = ()

    @property
    def key(self) -> str:
        return self.name or self.method

    @property
    def all_recipes(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.recipe, *self.recipes.values())))

    def recipe_in(self, column: str) -> str:
        """Where the number below the column of that title comes from."""
        return self.recipes.get(column, self.recipe)

    def scored_by(self, column: Column) -> tuple[str, str]:
        """(transfer, stage) of the number below the column; a transfer of "" measures none."""
        own = self.transfers.get(column.title)
        return (own, "") if own else (column.transfer, column.stage)


@dataclass(frozen=True)
class Column:
    """One column of a table.

    reported: (transfer, setting, metric) in the ledger; {method} in the setting is the row's.
    method, pretrain_data: whose numbers, if not those of the row's.
    transfer, metric, stage: where measured numbers come from; with a stage, from the record's scores per stage.
    best:     which value is set in bold.
    long:     the transfer takes long: it runs for the paper's tables (`--tables-of`), not for one recipe.
    of:       instead of all that, a computed column: column `of` less the same column in row `minus`, or less column
              `less` in the same row.
    """

    title: str
    reported: Sequence[str] = ()
    method: str = ""
    pretrain_data: str = ""
    transfer: str = ""
    metric: str = ""
    stage: str = ""
    best: str = "highest"
    long: bool = False
    of: str = ""
    minus: str = ""
    less: str = ""


@dataclass(frozen=True)
class Note:
    """A footnote to the rows' cells in these columns; without columns to their titles, without both to all.
    discrepancy: the key in discrepancies.toml, whose first line is the text if there is none here."""

    text: str = ""
    methods: Sequence[str] = ()
    columns: Sequence[str] = ()
    discrepancy: str = ""


@dataclass(frozen=True)
class Delta:
    """A row below row `of`: that row less row `minus`."""

    title: str
    of: str
    minus: str


@dataclass(frozen=True)
class TableLayout:
    """One table of leaderboards/tables.toml.

    of:         which paper's, for `--tables-of`.
    printed:    which table of the source.
    facts:      titles of columns with the rows' own texts.
    shows:      what the ledger says of a row besides numbers: "backbone", "pretrain_data".
    underline:  "second": the second best is underlined; "behind": the best is underlined, not bold, if a row that does
                not compete is better.
    plot:       on the site, "bars" of the first score, or "lines" over the columns.
    references: recipes that every reproduction of the table runs too, for they frame it; the file's, if left out.
    scales:     scale -> what its numbers are. tolerances: transfer -> points by which a measured number at paper scale
                may differ from the reported one.
    """

    key: str
    of: str
    source: str
    printed: str
    title: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    notes: tuple[Note, ...]
    delta: Delta | None
    references: tuple[str, ...]
    scales: dict[str, str]
    tolerances: dict[str, float]
    facts: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()
    underline: str = "none"
    plot: str = "bars"


@dataclass(frozen=True)
class Chapter:
    """A table of the survey, which may be several here, for a table never mixes protocols."""

    title: str
    tables: tuple[str, ...]


@dataclass(frozen=True)
class Discrepancy:
    """What differs between the documents and papers, and what is shown here and why: a line each."""

    differs: str
    shown: str


def read_layouts(path: Path = LEADERBOARDS / "tables.toml") -> list[TableLayout]:
    """The tables in file order. An unknown or missing key is a UserError naming the table."""
    content = _content(path)
    shared = {
        "references": tuple(content["references"]),
        "scales": content["scales"],
        "tolerances": content.get("tolerances", {}),
    }
    layouts: dict[str, TableLayout] = {}
    for entry in content["table"]:
        where = f"{path}: table {entry.get('key')!r}"
        parts = {
            "rows": tuple(_built(Row, row, where) for row in entry.pop("rows", ())),
            "columns": tuple(_built(Column, column, where) for column in entry.pop("columns", ())),
            "notes": tuple(_built(Note, note, where) for note in entry.pop("notes", ())),
            "delta": _built(Delta, entry.pop("delta"), where) if "delta" in entry else None,
        }
        layout = _built(TableLayout, {**shared, **entry, **parts}, where)
        if faults := [*_faults(layout), *(["there is one already"] if layout.key in layouts else [])]:
            raise UserError(f"{where}: {'; '.join(faults)}")
        layouts[layout.key] = layout
    return list(layouts.values())


def read_chapters(path: Path = LEADERBOARDS / "tables.toml") -> list[Chapter]:
    """The survey's tables in order, and which of ours they are. UserError for one that does not exist."""
    content = _content(path)
    chapters = [_built(Chapter, entry, f"{path}: chapter") for entry in content.get("chapter", ())]
    known = {entry.get("key") for entry in content["table"]}
    for chapter in chapters:
        if strangers := set(chapter.tables) - known:
            raise UserError(
                f"{path}: chapter {chapter.title!r} refers to tables that do not exist: {sorted(strangers)}"
            )
    return chapters


def read_discrepancies(path: Path = LEADERBOARDS / "discrepancies.toml") -> dict[str, Discrepancy]:
    """By key, in file order."""
    return {key: _built(Discrepancy, entry, f"{path}: {key}") for key, entry in _content(path).items()}


def _content(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}") from error


def _built(kind: Any, entry: dict[str, Any], where: str) -> Any:
    known = {f.name: f for f in fields(kind)}
    unknown = entry.keys() - known.keys()
    missing = {
        name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING and name not in entry
    }
    if unknown or missing:
        raise UserError(f"{where}: {kind.__name__} has unknown {sorted(unknown)} and lacks {sorted(missing)}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()})


def _faults(layout: TableLayout) -> list[str]:
    rows, columns = [row.key for row in layout.rows], [column.title for column in layout.columns]
    named_rows = {name for note in layout.notes for name in note.methods}
    named_rows |= {layout.delta.of, layout.delta.minus} if layout.delta else set()
    named_rows |= {column.minus for column in layout.columns}
    named_columns = {name for note in layout.notes for name in note.columns}
    named_columns |= {name for column in layout.columns for name in (column.of, column.less) if name}
    faults = []
    named_columns |= {title for row in layout.rows for title in (*row.recipes, *row.transfers)}
    if strangers := (named_rows - {*rows, ""}) | (named_columns - set(columns)):
        faults.append(f"a note, a Δ or a row refers to rows or columns that do not exist: {sorted(strangers)}")
    if twice := {name for name in [*rows, *columns] if [*rows, *columns].count(name) > 1}:
        faults.append(f"two rows or columns are called {sorted(twice)}")
    faults += [f"row {row.key!r} lacks facts" for row in layout.rows if len(row.facts) not in (0, len(layout.facts))]
    for column in layout.columns:
        if not column.transfer and any(column.title in row.transfers for row in layout.rows):
            faults.append(f"a row has a transfer for column {column.title!r}, which has none itself")
        if column.best not in BEST:
            faults.append(f"best is {column.best!r}, not one of {BEST}")
        if not column.of and len(column.reported) != 3:
            faults.append(f"column {column.title!r} needs reported = [transfer, setting, metric]")
        if bool(column.of) != bool(column.minus or column.less):
            faults.append(f"column {column.title!r} needs `of` and one of `minus` and `less`")
    if layout.plot not in PLOTS:
        faults.append(f"plot is {layout.plot!r}, not one of {PLOTS}")
    if layout.underline not in UNDERLINES:
        faults.append(f"underline is {layout.underline!r}, not one of {UNDERLINES}")
    return faults


def with_rows_of(layout: TableLayout, recipes: Collection[str]) -> TableLayout:
    """The table with a row below its own for each of these that has none there. They frame it, and do not compete."""
    there = {name for row in layout.rows for name in row.all_recipes}
    # no method of the ledger is called so, whose reported numbers would stand there
    own = (Row(method=f"with {one}", title=one, recipe=one, competes=False) for one in recipes if one not in there)
    return replace(layout, rows=(*layout.rows, *own))


def transfers_of(layouts: Iterable[TableLayout]) -> list[str]:
    """Every transfer that the tables' columns name, in their order, and their rows."""
    columns = [column.transfer for layout in layouts for column in layout.columns]
    own = [one for layout in layouts for row in layout.rows for one in row.transfers.values()]
    return list(dict.fromkeys(filter(None, [*columns, *own])))


def recipes_of(layouts: Iterable[TableLayout]) -> list[str]:
    """Every recipe that the tables' rows name, in their order."""
    return list(dict.fromkeys(one for layout in layouts for row in layout.rows for one in row.all_recipes))


def select(layouts: Sequence[TableLayout], recipes: Sequence[str], tables_of: str | None) -> list[TableLayout]:
    """The tables to fill. tables_of: all of one paper, or one by its key. recipes: those that have one of them as a
    row, or all tables for a recipe that is in none; without the columns that take long, unless a recipe has no others.
    Raises UserError for a paper without tables, or when nothing was asked for."""
    if not recipes and not tables_of:
        raise UserError("name a recipe, or --tables-of a paper; `sslbench list` shows the recipes")
    chosen = [one for one in layouts if tables_of in (one.of, one.key)]
    if tables_of and not chosen:
        there = ", ".join(dict.fromkeys(one.of for one in layouts))
        raise UserError(f"no tables of {tables_of!r}{nearest(tables_of, _keys(layouts))}; papers with tables: {there}")
    quick = [replace(one, columns=tuple(c for c in one.columns if not c.long)) for one in layouts]
    asked: dict[str, TableLayout] = {}
    for name in recipes:
        found = _scoring([name], quick) or _scoring([name], layouts) or _scoring(recipes_of(quick), quick)
        asked |= {one.key: one for one in found}
    return chosen + [asked[one.key] for one in layouts if one.key in asked and one not in chosen]


def _scoring(recipes: Collection[str], layouts: Iterable[TableLayout]) -> list[TableLayout]:
    """The tables that score one of the recipes."""
    return [one for one in layouts if transfers_of([one]) and not set(recipes).isdisjoint(recipes_of([one]))]


def _keys(layouts: Iterable[TableLayout]) -> set[str]:
    return {name for one in layouts for name in (one.of, one.key)}
