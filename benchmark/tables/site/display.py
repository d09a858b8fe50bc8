"""A table as its page shows it: verdicts are marks beside the numbers they are about; numbers and methods are links."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from benchmark.records.record import Record
from benchmark.tables.board import Board, Cell, Head
from benchmark.tables.layout import Row, transfers_of

SHARES = "○◔◑◕●"  # of the other rows, those beside which a row stands as reported: none, some, half, most, all
AT_PAPER_SCALE = {"above": "▲", "below": "▼"}


@dataclass(frozen=True)
class Verdict:
    """mark: a sign. words: what it says."""

    mark: str
    words: str


@dataclass(frozen=True)
class Shown:
    """A cell below a head of `kind`. link: where it leads, on the site."""

    cell: Cell
    kind: str
    link: str = ""
    verdict: Verdict | None = None


@dataclass(frozen=True)
class DisplayedLine:
    cells: tuple[Shown, ...]
    is_measured: bool


@dataclass(frozen=True)
class DisplayedTable:
    """What the page of a table shows. totals: lines that are a Δ of two rows. protocols, recipes: what its page links.
    records: how many made its numbers."""

    board: Board
    heads: tuple[Head, ...]
    lines: tuple[DisplayedLine, ...]
    totals: tuple[DisplayedLine, ...]
    protocols: tuple[str, ...]
    recipes: dict[str, str]
    records: int
    verdicts: tuple[Verdict, ...] = field(default=())

    @property
    def measured(self) -> int:
        return sum(line.is_measured for line in self.lines)


def displayed(board: Board, files: dict[str, str], protocols: Collection[str]) -> DisplayedTable:
    """files: recipe -> the stem of its file. protocols: those that have a card."""
    heads = tuple(head for head in board.heads if head.kind != "verdict")
    rows = iter(board.layout.rows)
    found: dict[bool, list[DisplayedLine]] = {True: [], False: []}
    for at, line in enumerate(board.lines):
        is_total = at in board.differences
        found[is_total].append(_line(board, line, None if is_total else next(rows), files))
    shown = [one.verdict for line in found[False] for one in line.cells if one.verdict]
    names = [name for row in board.layout.rows for name in row.all_recipes if name in files]
    return DisplayedTable(
        board,
        heads,
        tuple(found[False]),
        tuple(found[True]),
        tuple(name for name in transfers_of([board.layout]) if name in protocols),
        {name: recipe_page(files[name]) for name in dict.fromkeys(names)},
        len({record.published_path for record in records_of(board)}),
        _legend(shown),
    )


def records_of(board: Board) -> list[Record]:
    return [record for line in board.lines for cell in line for record in cell.records]


def recipe_page(stem: str) -> str:
    return f"recipes/{stem}.html"


def record_page(record: Record) -> str:
    """One for all seeds."""
    return PurePosixPath("records", f"{record.published_path.parent.as_posix()}.html").as_posix()


def _line(board: Board, line: Sequence[Cell], row: Row | None, files: dict[str, str]) -> DisplayedLine:
    cells = tuple(_cells(board, line, row, files))
    return DisplayedLine(cells, any(one.kind == "measured" and one.cell.number is not None for one in cells))


def _cells(board: Board, line: Sequence[Cell], row: Row | None, files: dict[str, str]) -> Iterator[Shown]:
    verdicts = _verdicts(board, line)
    for at, (head, cell) in enumerate(zip(board.heads, line, strict=True)):
        if head.kind == "verdict":
            continue
        link = record_page(cell.records[0]) if cell.records else ""
        if head.kind == "method" and row:
            link = next((recipe_page(files[name]) for name in row.all_recipes if name in files), "")
        yield Shown(cell, head.kind, link, verdicts.get(at))


def _verdicts(board: Board, line: Sequence[Cell]) -> dict[int, Verdict]:
    """Place of a measured number -> its verdict, which stands in a later column."""
    found, last = {}, 0
    for at, head in enumerate(board.heads):
        last = at if head.kind == "measured" else last
        if head.kind == "verdict" and line[at].text:
            found[last] = verdict(line[at].text)
    return found


def verdict(words: str) -> Verdict:
    """Of the words that the table has for it."""
    order = re.fullmatch(r"order (\d+)/(\d+)", words)
    if not order:
        return Verdict(AT_PAPER_SCALE.get(words, "✓"), words)
    same, others = int(order[1]), int(order[2])
    quarter = round(4 * same / others)
    if 0 < same < others:  # the ends are for none and for all
        quarter = min(max(quarter, 1), 3)
    return Verdict(SHARES[quarter], f"ordered as reported relative to {same} of the {others} other rows")


def _legend(shown: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Of the marks that are shown, one each."""
    meaning = dict(zip(SHARES, ("none", "some", "about half", "most", "all"), strict=True))
    at_paper = {"▲": "above the reported number", "▼": "below the reported number", "✓": "reproduced within tolerance"}
    order = {sign: f"as reported beside {how_many} of the other rows" for sign, how_many in meaning.items()}
    there = {one.mark for one in shown}
    return tuple(Verdict(sign, words) for sign, words in (order | at_paper).items() if sign in there)
