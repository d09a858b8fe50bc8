"""Which tables there are, and which rows and columns each has: leaderboards/tables.toml. Imports no torch."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from benchmark.errors import UserError
from benchmark.ledger import LEADERBOARDS


@dataclass(frozen=True)
class Row:
    """method: in the ledger. recipe: where measured numbers come from. competes: may be the best of the table."""

    method: str
    title: str
    recipe: str = ""
    competes: bool = True


@dataclass(frozen=True)
class Column:
    """reported: (transfer, setting, metric) in the ledger. transfer, metric, stage: where measured numbers come from;
    with a stage, from the record's scores per stage. best: which value is set in bold."""

    title: str
    reported: tuple[str, str, str]
    transfer: str = ""
    metric: str = ""
    stage: str = ""
    best: str = "highest"


@dataclass(frozen=True)
class Note:
    """A footnote to the methods' cells in these columns; without columns to their titles, without both to all."""

    text: str
    methods: Sequence[str] = ()
    columns: Sequence[str] = ()


@dataclass(frozen=True)
class Delta:
    """A last row: of the method `of`, less `minus`."""

    title: str
    of: str
    minus: str


@dataclass(frozen=True)
class Layout:
    """One table of leaderboards/tables.toml."""

    key: str
    of: str  # which paper's, for `--tables-of`
    source: str
    printed: str  # which table of the source
    title: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    notes: tuple[Note, ...]
    delta: Delta | None
    references: tuple[str, ...]  # recipes that every reproduction runs too, for they frame the table
    scales: dict[str, str]  # scale -> what its numbers are


def read_layouts(path: Path = LEADERBOARDS / "tables.toml") -> list[Layout]:
    """The tables in file order. An unknown or missing key is a UserError naming the table."""
    try:
        content = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: {error}") from error
    shared = {"references": tuple(content["references"]), "scales": content["scales"]}
    layouts = []
    for entry in content["table"]:
        where = f"{path}: table {entry.get('key')!r}"
        parts = {
            "rows": tuple(_built(Row, row, where) for row in entry.pop("rows", ())),
            "columns": tuple(_built(Column, column, where) for column in entry.pop("columns", ())),
            "notes": tuple(_built(Note, note, where) for note in entry.pop("notes", ())),
            "delta": _built(Delta, entry.pop("delta"), where) if "delta" in entry else None,
        }
        layouts.append(_checked(_built(Layout, {**entry, **parts, **shared}, where), where))
    return layouts


def _built(kind: Any, entry: dict[str, Any], where: str) -> Any:
    known = {f.name: f for f in fields(kind)}
    unknown = entry.keys() - known.keys()
    missing = {name for name, f in known.items() if f.default is MISSING and name not in entry}
    if unknown or missing:
        raise UserError(f"{where}: {kind.__name__} has unknown {sorted(unknown)} and lacks {sorted(missing)}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()})


def _checked(layout: Layout, where: str) -> Layout:
    methods, columns = {row.method for row in layout.rows}, {column.title for column in layout.columns}
    named = [name for note in layout.notes for name in note.methods] + (
        [layout.delta.of, layout.delta.minus] if layout.delta else []
    )
    strangers = (set(named) - methods) | ({name for note in layout.notes for name in note.columns} - columns)
    if strangers:
        raise UserError(f"{where}: a note or the delta names {sorted(strangers)}, which is no row or column")
    return layout


def transfers_of(layouts: Iterable[Layout]) -> list[str]:
    """Every transfer that the tables' columns name, in their order."""
    return list(dict.fromkeys(c.transfer for layout in layouts for c in layout.columns if c.transfer))


def recipes_of(layouts: Iterable[Layout]) -> list[str]:
    """Every recipe that the tables' rows name, in their order."""
    return list(dict.fromkeys(row.recipe for layout in layouts for row in layout.rows if row.recipe))


def select(layouts: Sequence[Layout], recipes: Sequence[str], tables_of: str | None) -> list[Layout]:
    """The tables to fill: those of one paper, or those that have one of the recipes as a row; for a recipe that is in
    none, all. Raises UserError for a paper without tables, or when nothing was asked for."""
    if not recipes and not tables_of:
        raise UserError("name a recipe, or --tables-of a paper; `sslbench list` shows the recipes")
    chosen = [one for one in layouts if one.of == tables_of]
    if tables_of and not chosen:
        raise UserError(f"no tables of {tables_of!r}; there are those of {', '.join({one.of for one in layouts})}")
    known = set(recipes_of(layouts))
    if any(name not in known for name in recipes):
        return list(layouts)
    return [one for one in layouts if one in chosen or any(row.recipe in recipes for row in one.rows)]
