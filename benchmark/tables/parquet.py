"""Every table, all records and the ledger as Parquet: numbers as numbers. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.records.frames import frame
from benchmark.tables.board import Board
from benchmark.tables.ledger import LEADERBOARDS, ledger_frame

if TYPE_CHECKING:
    import pandas as pd

DTYPES = {
    **dict.fromkeys(("row", "title", "method", "recipe", "column", "heading", "kind", "scale"), "str"),
    "value": "float64",
    "std": "float64",
    "seeds": "int64",
    "style": "str",
}


def parquet_files(boards: Mapping[str, Board], leaderboards: Path = LEADERBOARDS) -> dict[str, bytes]:
    """File name -> content. Tables as `board_frame` has them; records.parquet and ledger.parquet as
    `benchmark.records.frame` and `benchmark.tables.ledger_frame` do."""
    frames = {key: board_frame(one) for key, one in boards.items()}
    frames |= {"records": frame(leaderboards / "measured"), "ledger": ledger_frame(leaderboards)}
    return {f"{key}.parquet": one.to_parquet(index=False) for key, one in frames.items()}


def board_frame(board: Board) -> pd.DataFrame:
    """The numbers of a table, a row a number.

    row, title:          what no other row of the table is called, and what is printed, which two rows may share.
    method, recipe:      the row's names in the ledger and among the recipes, or "".
    column, heading:     the column's title, and what it is called where it stands: there, two versions of a protocol or
                         two data sets at one scale have different names.
    kind:                reported, computed (from reported ones), measured, delta (measured less reported) or difference
                         (one row less another).
    scale:               of what was measured; "" for what was reported.
    value, std, seeds:   the number, or the mean over seeds; their standard deviation, missing with one; how many seeds,
                         0 for what was not measured here. In % unless the column's title says otherwise; times that the
                         source gives in several units, in hours.
    style:               bold, underline or "".
    """
    import pandas as pd  # a third of a second

    return pd.DataFrame(list(_numbers(board)), columns=list(DTYPES)).astype(DTYPES)


def _numbers(board: Board) -> Iterator[dict[str, Any]]:
    rows = iter(board.layout.rows)
    for place, line in enumerate(board.lines):
        row = None if place in board.differences else next(rows)
        for head, cell in zip(board.heads, line, strict=True):
            if cell.number is not None:
                yield {
                    "row": row.key if row else line[0].text,
                    "title": line[0].text,
                    "method": row.method if row else "",
                    "recipe": row.recipe_in(head.column) if row else "",
                    "column": head.column,
                    "heading": head.title,
                    "kind": head.kind if row else "difference",
                    "scale": head.scale,
                    "value": cell.number,
                    "std": cell.std,
                    "seeds": cell.seeds,
                    "style": cell.style,
                }
