"""What is best in a column: bold and underlined numbers. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from benchmark.tables.layout import Column, TableLayout
from benchmark.tables.measured import Seeds
from benchmark.tables.settled import ENOUGH, over_seeds, shared_seeds

BOLD = (
    "Bold among measured numbers: the best row and every row that is not settled to be worse, because its mean prints "
    "the same or the 95 % interval of the difference contains 0. Rows that have fewer than three seeds in common with "
    "the best, or that only frame a table, such as random and supervised, do not compete. If no row is settled to be "
    "worse, none is bold."
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
    competing = _comparable(column, there, competing)
    styles = _emphasis(layout, column, means, competing, lambda one, other: _tied(there[one], there[other]))
    told_apart = len({style for style, competes in zip(styles, competing, strict=True) if competes}) > 1
    return styles if told_apart else ["" for _ in found]


def _comparable(column: Column, there: Mapping[int, Seeds], competing: Sequence[bool]) -> list[bool]:
    """Of those that compete, the best and whoever shares enough seeds with it: of others, nothing can be said."""
    sign = -1 if column.best == "lowest" else 1
    places = [place for place in there if competing[place]]
    best = max(places, key=lambda place: sign * there[place].mean, default=None)
    return [
        best is not None and place in places and len(shared_seeds(there[best], there[place])) >= ENOUGH
        for place in range(len(competing))
    ]


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
    interval = over_seeds(one, other)
    return interval is not None and (_printed(one) == _printed(other) or not interval.excludes_zero)


def _printed(seeds: Seeds) -> str:
    return str(seeds).split()[0]
