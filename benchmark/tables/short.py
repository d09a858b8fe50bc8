"""A table in short, for a terminal: a line for each row with a measured number, that beside what the paper reports, and
the rank agreement of each column. What it leaves out stands in the whole table. Imports no torch."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmark.tables.agreement import Agreement
from benchmark.tables.board import Board, Cell

WIDTH = 100
LONGEST_NAME = 30
MOST_PAIRS = 4  # of columns beside each other
GAP = "  "
TAU = "Kendall's τ (rows)"


@dataclass(frozen=True)
class _Pair:
    """A measured column with the reported one beside it, as texts. lines: below the two heads. tau: of all rows."""

    title: str
    heads: tuple[str, str]
    lines: tuple[tuple[str, str], ...]
    tau: str

    @property
    def widths(self) -> tuple[int, int]:
        left, right = zip(self.heads, *self.lines, ("", self.tau), strict=True)
        return max(map(len, left)), max(map(len, right))

    @property
    def width(self) -> int:
        return sum(self.widths) + 1

    def told(self, line: tuple[str, str]) -> str:
        return " ".join(text.rjust(width) for text, width in zip(line, self.widths, strict=True))


def short_table(board: Board) -> str:
    """No line is wider than WIDTH. The caller says below it where the whole table lies."""
    places = [at for at, head in enumerate(board.heads) if head.kind == "measured"]
    shown = [line for line in board.lines if any(line[at].text for at in places)]
    names = [_cut(line[0].text, LONGEST_NAME) for line in shown]
    pairs = list(_pairs(board, shown, places))
    width = max(map(len, [*names, TAU]))
    left_out = len(board.lines) - len(shown)
    parts = [
        f"{board.layout.title}: {board.layout.printed} of {board.citation}",
        board.opening,
        *("\n".join(_grid(names, some, width)) for some in _beside_each_other(pairs, width)),
        f"{left_out} {'row' if left_out == 1 else 'rows'} without a measured number left out." if left_out else "",
    ]
    return "\n".join(_wrapped(part) for part in parts if part) + "\n"


def _pairs(board: Board, shown: Sequence[Sequence[Cell]], places: Sequence[int]) -> Iterator[_Pair]:
    agreements = {one.title: one for one in board.agreements}
    reported = {head.column: at for at, head in enumerate(board.heads) if head.kind in ("reported", "computed")}
    for at in places:
        head = board.heads[at]
        beside = reported[head.column]
        yield _Pair(
            head.column,
            ("paper", head.title.removeprefix(f"{head.column}, ")),
            tuple((line[beside].text or "–", _measured(line[at])) for line in shown),
            _tau(agreements.get(head.title)),
        )


def _measured(cell: Cell) -> str:
    """Without the number of seeds."""
    return cell.text.partition(" (")[0].replace(" ± ", "±") or "–"


def _tau(one: Agreement | None) -> str:
    if one is None or one.every_row.rows < 2:
        return "–"
    tau = one.every_row.tau
    return f"{'tied' if tau is None else f'{tau:+.2f}'} ({one.every_row.rows})"


def _beside_each_other(pairs: Sequence[_Pair], name: int) -> Iterator[list[_Pair]]:
    """As many as fit beside the names."""
    some: list[_Pair] = []
    for pair in pairs:
        wide = name + sum(len(GAP) + one.width for one in [*some, pair])
        if some and (wide > WIDTH or len(some) == MOST_PAIRS):
            yield some
            some = []
        some.append(pair)
    if some:
        yield some


def _grid(names: Sequence[str], pairs: Sequence[_Pair], width: int) -> Iterator[str]:
    titles = [textwrap.wrap(pair.title, pair.width) for pair in pairs]
    for line in itertools.zip_longest(*titles, fillvalue=""):
        cells = [text.rjust(pair.width) for text, pair in zip(line, pairs, strict=True)]
        yield GAP.join([" " * width, *cells])
    yield GAP.join([" " * width, *(pair.told(pair.heads) for pair in pairs)])
    for at, name in enumerate(names):
        yield GAP.join([name.ljust(width), *(pair.told(pair.lines[at]) for pair in pairs)])
    yield GAP.join([TAU.ljust(width), *(pair.told(("", pair.tau)) for pair in pairs)])


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _wrapped(part: str) -> str:
    return part if "\n" in part else textwrap.fill(part, WIDTH, break_on_hyphens=False)
