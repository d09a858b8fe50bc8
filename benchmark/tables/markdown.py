"""Tables as markdown. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmark.tables.agreement import HEADS, agreement_texts
from benchmark.tables.board import Board, Cell

STYLES = {"": "{}", "bold": "**{}**", "underline": "<u>{}</u>"}


def markdown(board: Board) -> str:
    """The whole section: title, what must be said first, source, table, rank agreement, protocols, notes."""
    from tabulate import tabulate  # not needed by those who only read layouts

    layout = board.layout
    align = ["left" if head.kind in ("method", "fact") else "right" for head in board.heads]
    cells = [[_cell(cell) for cell in line] for line in board.lines]
    headers = [head.title for head in board.heads]
    grid = tabulate(cells, headers=headers, tablefmt="github", colalign=align, disable_numparse=True)
    found = [agreement_texts(one) for one in board.agreements]
    parts = [
        f"### {layout.title}",
        f"**{board.opening}**" if board.opening else "",
        f"{layout.printed} of {board.citation}.",
        grid,
        tabulate(found, headers=HEADS, tablefmt="github", disable_numparse=True) if found else "",
        "\n".join(f"- {remark}" for remark in board.remarks),
        "\n".join(_footnote(note.mark, note.text, note.discrepancy) for note in board.footnotes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Without padding, for cells of very different lengths."""
    lines = [headers, ["---"] * len(headers), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    text = STYLES[cell.style].format(cell.text or "–")
    return f"{text} <sup>{','.join(cell.marks)}</sup>" if cell.marks else text


def _footnote(mark: str, text: str, discrepancy: str) -> str:
    where = f" [{discrepancy}](discrepancies.md#{discrepancy.lower()})" if discrepancy else ""
    return f"- {f'<sup>{mark}</sup> ' if mark else ''}{text}{where}"
