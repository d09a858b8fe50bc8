"""Which number of the ledger stands in which cell of a table, and the cells computed from them. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.core.errors import UserError
from benchmark.tables.layout import Column, Row, TableLayout
from benchmark.tables.ledger import Reported

HOURS = {"hours": 1, "days": 24, "weeks": 168}


@dataclass(frozen=True)
class Number:
    """text: as printed, or as computed. value: what rows are compared by. lines: of the ledger, that it came from."""

    text: str
    value: float
    lines: tuple[Reported, ...]

    @property
    def decimals(self) -> int:
        return len(self.text.partition(".")[2])


Printed = dict[tuple[str, str], Number]  # (row, column) -> number
Index = dict[tuple[str, str, str, str], list[Reported]]  # (method, transfer, setting, metric) -> lines


def printed_in(layout: TableLayout, reported: Sequence[Reported]) -> Printed:
    """Every reported and computed number of a table. Raises UserError where two numbers of the ledger fit one cell."""
    index: Index = defaultdict(list)
    for line in reported:
        if line.table == layout.printed:
            index[line.method, line.transfer, line.setting, line.metric].append(line)
    found: Printed = {}
    for column in layout.columns:
        lines = {row.key: _line(layout, row, column, index) for row in layout.rows if not column.of}
        units = {line.unit for line in lines.values() if line}
        found |= {(key, column.title): _number(line, len(units) > 1) for key, line in lines.items() if line}
    for column in layout.columns:
        for row in layout.rows if column.of else ():
            pair = found.get((row.key, column.of)), found.get((column.minus or row.key, column.less or column.of))
            if pair[0] and pair[1]:
                found[row.key, column.title] = difference(pair[0], pair[1])
    return found


def difference(one: Number, other: Number) -> Number:
    value = one.value - other.value
    return Number(f"{value:+.{max(one.decimals, other.decimals)}f}", value, (*one.lines, *other.lines))


def _line(layout: TableLayout, row: Row, column: Column, index: Index) -> Reported | None:
    transfer, setting, metric = column.reported
    own = "" if column.method else row.setting
    setting = row.merged or ", ".join(filter(None, (setting.format(method=row.method), own)))
    data = column.pretrain_data or row.pretrain_data
    fitting = [
        line
        for line in index.get((column.method or row.method, transfer, setting, metric), ())
        if line.backbone in ("", row.backbone or line.backbone)
        and line.pretrain_data in ("", data or line.pretrain_data)
    ]
    if len(fitting) > 1:
        raise UserError(
            f"table {layout.key!r}: row {row.key!r}, column {column.title!r} could be any of "
            f"{', '.join(line.value for line in fitting)}; give the row a backbone or pretrain_data"
        )
    return fitting[0] if fitting else None


def _number(line: Reported, with_unit: bool) -> Number:
    if not with_unit:
        return Number(line.value, float(line.value), (line,))
    if line.unit not in HOURS:
        raise UserError(f"{line.metric} of {line.method}: {line.unit!r} is in a column with other units")
    unit = line.unit.removesuffix("s") if line.value == "1" else line.unit
    return Number(f"{line.value} {unit}", float(line.value) * HOURS[line.unit], (line,))
