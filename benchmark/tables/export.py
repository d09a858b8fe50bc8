"""Every table as CSV, JSON and LaTeX: texts as they are shown. Imports no torch."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
from collections.abc import Mapping
from typing import Any

from benchmark.tables.board import Board, Cell


def export_files(boards: Mapping[str, Board]) -> dict[str, str]:
    """File name -> content."""
    kinds = {"csv": as_csv, "json": as_json, "tex": as_latex}
    return {f"{key}.{ending}": write(one) for key, one in boards.items() for ending, write in kinds.items()}


def as_csv(board: Board) -> str:
    """One line a row, cells as shown, without marks."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head.title for head in board.heads)
    writer.writerows([cell.text for cell in line] for line in board.lines)
    return text.getvalue()


def as_json(board: Board) -> str:
    """Everything that the table knows, cells with their numbers, marks and origins."""
    layout = board.layout
    content = {
        "key": layout.key,
        "title": layout.title,
        "source": layout.source,
        "printed": layout.printed,
        "citation": board.citation,
        "columns": [
            {"title": head.title, "kind": head.kind, "column": head.column, "scale": head.scale} for head in board.heads
        ],
        "rows": [[_plain(cell) for cell in line] for line in board.lines],
        "differences": sorted(board.differences),
        "opening": board.opening,
        "agreement": [dataclasses.asdict(one) for one in board.agreements],
        "remarks": list(board.remarks),
        "footnotes": [
            {"mark": note.mark, "text": note.text, "discrepancy": note.discrepancy} for note in board.footnotes
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(cell: Cell) -> dict[str, Any]:
    found = {
        "text": cell.text,
        "number": cell.number,
        "style": cell.style,
        "marks": list(cell.marks),
        "about": cell.about,
        "std": cell.std,
        "seeds": cell.seeds or None,
        "records": [record.published_path.as_posix() for record in cell.records],
    }
    return {key: value for key, value in found.items() if value not in ("", None, [])}


def as_latex(board: Board) -> str:
    """A table environment with its footnotes below; ticks need amssymb."""
    from tabulate import tabulate

    align = ["left" if head.kind in ("method", "fact") else "right" for head in board.heads]
    headers = [escaped(head.title) for head in board.heads]
    cells = [[_latex_cell(cell) for cell in line] for line in board.lines]
    grid = tabulate(cells, headers=headers, tablefmt="latex_raw", colalign=align, disable_numparse=True)
    notes = [f"{_superscript(note.mark)}{escaped(note.text)}" for note in board.footnotes]
    caption = (f"{board.layout.title}.", board.opening, f"{board.layout.printed} of {board.citation}.")
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{' '.join(map(escaped, filter(None, caption)))}}}",
            rf"\label{{tab:{board.layout.key}}}",
            grid,
            *(rf"\par\footnotesize {note}" for note in notes),
            r"\end{table}",
            "",
        ]
    )


def _latex_cell(cell: Cell) -> str:
    text = {"": "{}", "bold": r"\textbf{{{}}}", "underline": r"\underline{{{}}}"}[cell.style].format(escaped(cell.text))
    return text + _superscript(",".join(cell.marks)) if cell.text else "--"


def _superscript(mark: str) -> str:
    return rf"\textsuperscript{{{escaped(mark)}}}" if mark else ""


@functools.cache  # tables repeat themselves
def escaped(text: str) -> str:
    return str(_encoder().unicode_to_latex(text))


@functools.cache
def _encoder() -> Any:
    from pylatexenc.latexencode import RULE_DICT, UnicodeToLatexConversionRule, UnicodeToLatexEncoder

    ticks = UnicodeToLatexConversionRule(RULE_DICT, {ord("✓"): r"\ensuremath{\checkmark}"})
    return UnicodeToLatexEncoder(conversion_rules=[ticks, "defaults"], unknown_char_policy="fail")
