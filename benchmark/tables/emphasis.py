"""What is best in a column: bold and underlined numbers. Imports no torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from benchmark.tables.layout import Column, TableLayout
from benchmark.tables.measured import Seeds

LEVEL = 0.95
BOLD = (
    "Bold among measured numbers: the best row and every row that cannot be told apart from it, because its mean "
    "prints the same or the 95 % interval of the difference (Welch's, with two or more seeds each) contains 0. If all "
    "rows print the same, none is bold. Rows that only frame a table, such as random and supervised, do not compete."
)


def reported_emphasis(layout: TableLayout, column: Column, numbers: Sequence[float | None]) -> list[str]:
    """For each row "bold", "underline" or "". Numbers tie if they are printed the same."""
    if column.best != "none" and any(row.bold for row in layout.rows):
        both = zip(layout.rows, numbers, strict=True)
        return ["bold" if row.bold and number is not None else "" for row, number in both]
    printed = [None if number is None else round(number, 6) for number in numbers]  # differences have rounding errors
    return _emphasis(layout, column, printed, lambda one, other: printed[one] == printed[other])


def measured_emphasis(layout: TableLayout, column: Column, found: Sequence[Seeds | None]) -> list[str]:
    """For each row "bold", "underline" or "", as BOLD says."""
    there = {place: seeds for place, seeds in enumerate(found) if seeds}
    if len({_printed(seeds) for place, seeds in there.items() if layout.rows[place].competes}) < 2:
        return ["" for _ in found]
    means = [seeds.mean if seeds else None for seeds in found]
    return _emphasis(layout, column, means, lambda one, other: _tied(there[one], there[other]))


def _emphasis(
    layout: TableLayout, column: Column, numbers: Sequence[float | None], tied: Callable[[int, int], bool]
) -> list[str]:
    """tied: whether two rows, by their places, are as good as each other. Rows that frame the table compete for
    nothing."""
    styles = ["" for _ in numbers]
    if column.best == "none":
        return styles
    sign = 1 if column.best == "highest" else -1
    scores = {place: sign * number for place, number in enumerate(numbers) if number is not None}
    ranked = sorted((place for place in scores if layout.rows[place].competes), key=lambda place: -scores[place])
    ahead = bool(ranked) and max(scores.values()) > scores[ranked[0]]
    best = "underline" if layout.underline == "behind" and ahead else "bold"
    for style in [best, "underline"] if layout.underline == "second" else [best]:
        alike = [place for place in ranked if tied(ranked[0], place)]
        ranked = [place for place in ranked if place not in alike]
        styles = [style if place in alike else before for place, before in enumerate(styles)]
    return styles


def _printed(seeds: Seeds) -> str:
    return str(seeds).split()[0]


def _tied(one: Seeds, other: Seeds) -> bool:
    """Not paired by seed, for two methods share little more than its number: over the seeds at desk scale, their scores
    correlate by 0.1 on average, and negatively under the linear classifiers."""
    if _printed(one) == _printed(other):
        return True
    if len(one.values) < 2 or len(other.values) < 2:
        return False
    from scipy.stats import ttest_ind  # a second to import

    with warnings.catch_warnings(action="ignore"):  # about seeds that all came to the same
        test = ttest_ind(one.values, other.values, equal_var=False)
    return bool(test.pvalue >= 1 - LEVEL)  # just when the interval contains 0
