"""The numbers of the survey documents' tables, taken from the documents' own text: tests/survey_tables.txt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SurveyTable:
    """key: of our table. source, table: in the ledger. rows: as the document prints them, None for an empty cell."""

    key: str
    source: str
    table: str
    rows: tuple[tuple[float | None, ...], ...]


def survey_tables() -> list[SurveyTable]:
    blocks = Path(__file__).with_name("survey_tables.txt").read_text().split("\n\n")[1:]
    return [_table(*block.strip().splitlines()) for block in blocks]


def _table(head: str, *rows: str) -> SurveyTable:
    key, origin = head.removeprefix("[").split("] ")
    source, table = origin.split(" | ")
    numbers = (tuple(None if cell == "-" else float(cell) for cell in row.split()) for row in rows)
    return SurveyTable(key, source, table, tuple(numbers))
