"""Footnotes of tables, and the letters that tie them to their cells. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmark.tables.agreement import EXPLAINED
from benchmark.tables.emphasis import BOLD
from benchmark.tables.layout import Discrepancy, Note, Row, TableLayout
from benchmark.tables.measured import Measured
from benchmark.tables.reported import Printed

STALE, UNVERIFIED = "†", "?"
VERDICT = "Verdict “order 4/5”: this row is ordered as reported relative to 4 of the 5 other rows."


@dataclass(frozen=True)
class Footnote:
    mark: str
    text: str
    discrepancy: str = ""


def _letters() -> Iterator[str]:
    for length in itertools.count(1):
        yield from ("".join(letters) for letters in itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=length))


def _lettered(layout: TableLayout) -> list[tuple[str, Note]]:
    """Footnotes of one discrepancy share a letter."""
    letters, known = _letters(), {}
    notes = [note for note in layout.notes if note.methods]
    for note in notes:
        key = note.discrepancy or note.text
        if key not in known:
            known[key] = next(letters)
    return [(known[note.discrepancy or note.text], note) for note in notes]


def marks(layout: TableLayout, row: Row, column: str) -> tuple[str, ...]:
    """The letters of the footnotes that are about a cell, or about the row's title."""
    return tuple(
        dict.fromkeys(
            mark
            for mark, note in _lettered(layout)
            if row.key in note.methods and (column in note.columns if note.columns else not column)
        )
    )


def footnotes(
    layout: TableLayout,
    printed: Printed,
    measured: Measured,
    left_out: Sequence[str],
    stale: Sequence[str],
    discrepancies: Mapping[str, Discrepancy],
) -> Iterator[Footnote]:
    if measured:
        yield Footnote("", "Measured: mean ± standard deviation over seeds (number of seeds).")
        yield Footnote("", BOLD)
        yield from (Footnote("", text) for text in EXPLAINED)
        yield Footnote("", VERDICT)
    for scale in sorted({variant.scale for _, _, variant in measured}):
        yield Footnote("", f"{scale}: {layout.scales.get(scale, 'a scale that tables.toml does not describe')}.")
    lettered = _lettered(layout)
    once = {(mark, note.discrepancy or note.text): note for mark, note in lettered}
    for mark, note in [
        *(("", note) for note in layout.notes if not note.methods),
        *((m, n) for (m, _), n in once.items()),
    ]:
        known = discrepancies.get(note.discrepancy)
        yield Footnote(mark, note.text or (known.differs if known else note.discrepancy), note.discrepancy)
    if any(not line.verified for number in printed.values() for line in number.lines):
        yield Footnote(UNVERIFIED, "Unverified: the number was not found in the paper or its code.")
    yield from (Footnote("", f"{text}.") for text in left_out)
    yield from (Footnote(STALE, f"Stale: {text}.") for text in stale)
