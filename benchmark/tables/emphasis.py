"""What is best in a column: bold and underlined numbers. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from benchmark.tables.layout import Column, TableLayout
from benchmark.tables.measured import Seeds
from benchmark.tables.settled import ENOUGH, are_settled

BOLD = (
    "Bold among measured numbers: the best row and every row that is not settled to be worse, because its mean prints "
    "the same or the 95 % interval of the difference contains 0. Rows that have fewer than three seeds, or that only "
    "frame a table, such as random and supervised, do not compete. If no row is settled to be worse, none is bold."
)


def reported_emphasis(layout: TableLayout, column: Column, numbers: Sequence[float | None]) -> list[str]:
    """For each row "bold", "underline" or "". Numbers tie if they are printed the same."""
    if column.best != "none" and any(row.bold for row in layout.rows):
        both = zip(layout.rows, numbers, strict=True)
        return ["bold" if row.bold and number is not None else "" for row, number in both]
    printed = [None if number is None else round(number, 6) for number in numbers]  # differences have rounding errors
    competing = [row.competes for row in layout.rows]
    return _emphasis(layout, column, printed, competing, lambda one, other: printed[one] == printed[other])


def measured_emphasis(layout: TableLayout, column: Column, found: Sequence[Seeds | None]) -> list[str]:
    """For each row "bold", "underline" or "", as BOLD says."""
    there = {place: seeds for place, seeds in enumerate(found) if seeds}
    competing = [
        bool(row.competes and seeds and len(seeds.values) >= ENOUGH)
        for row, seeds in zip(layout.rows, found, strict=True)
    ]
    means = [seeds.mean if seeds else None for seeds in found]
    styles = _emphasis(layout, column, means, competing, lambda one, other: _tied(there[one], there[other]))
    told_apart = len({style for style, competes in zip(styles, competing, strict=True) if competes}) > 1
    return styles if told_apart else ["" for _ in found]


def _emphasis(
    layout: TableLayout,
    column: Column,
    numbers: Sequence[float | None],
    competing: Sequence[bool],
    tied: Callable[[int, int], bool],
) -> list[str]:
    """competing: by place, as tied is: whether two rows are as good as each other."""
    styles = ["" for _ in numbers]
    if column.best == "none":
        return styles
    sign = 1 if column.best == "highest" else -1
    scores = {place: sign * number for place, number in enumerate(numbers) if number is not None}
    ranked = sorted((place for place in scores if competing[place]), key=lambda place: -scores[place])
    framing = [scores[place] for place in scores if not layout.rows[place].competes]
    ahead = bool(ranked) and max(framing, default=-math.inf) > scores[ranked[0]]
    best = "underline" if layout.underline == "behind" and ahead else "bold"
    for style in [best, "underline"] if layout.underline == "second" else [best]:
        alike = [place for place in ranked if tied(ranked[0], place)]
        ranked = [place for place in ranked if place not in alike]
        styles = [style if place in alike else before for place, before in enumerate(styles)]
    return styles


def _tied(one: Seeds, other: Seeds) -> bool:
    return _printed(one) == _printed(other) or not are_settled(one, other)


def _printed(seeds: Seeds) -> str:
    return str(seeds).split()[0]
