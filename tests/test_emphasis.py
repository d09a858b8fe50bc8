"""Bold and underlined: the best, and whatever its seeds cannot be told from."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t
from test_results import a_record
from test_tables import a_layout

from benchmark.tables.emphasis import measured_emphasis, reported_emphasis
from benchmark.tables.layout import Column, Row
from benchmark.tables.measured import Seeds

HIGHEST, LOWEST, NONE = (Column("X", best=best) for best in ("highest", "lowest", "none"))
ROWS = (Row("a", "A"), Row("b", "B"), Row("c", "C"))
FRAMED = (Row("floor", "Floor", competes=False), *ROWS)


def seeds(*values: float, first: int = 0) -> Seeds:
    return Seeds(tuple(a_record(seed=first + at) for at in range(len(values))), values)


def bold(column: Column, *found: Seeds | None, **layout: object) -> list[str]:
    return measured_emphasis(a_layout(rows=ROWS[: len(found)], notes=(), delta=None, **layout), column, found)


def interval(one: Seeds, other: Seeds) -> tuple[float, float]:
    """Welch's, 95 %, by its formulas."""
    parts = [statistics.variance(seeds.values) / len(seeds.values) for seeds in (one, other)]
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(seeds.values) - 1) for part, seeds in zip(parts, (one, other), strict=True)
    )
    half = float(t.ppf(0.975, freedom)) * math.sqrt(sum(parts))
    gap = statistics.mean(one.values) - statistics.mean(other.values)
    return gap - half, gap + half


def test_the_best_and_what_cannot_be_told_from_it():
    best, near, far = seeds(70.0, 72.0, 74.0), seeds(69.0, 70.0, 71.0), seeds(60.0, 61.0, 62.0)
    assert interval(best, near)[0] < 0 < interval(best, far)[0]
    assert bold(HIGHEST, far, best, near) == ["", "bold", "bold"]
    assert bold(LOWEST, far, best, near) == ["bold", "", ""]
    assert bold(HIGHEST, far, best, None) == ["", "bold", ""]


scores = st.lists(st.integers(0, 1000).map(lambda tenths: tenths / 10), min_size=2, max_size=5, unique=True)


@given(scores, scores)
def test_alike_is_what_the_interval_says_or_what_is_printed(ours: list[float], theirs: list[float]):
    one, other = sorted((seeds(*ours), seeds(*theirs, first=2)), key=lambda found: -found.mean)
    same = f"{one.mean:.1f}" == f"{other.mean:.1f}"
    low, _ = interval(one, other)
    if abs(low) > 1e-6:
        assert bold(HIGHEST, one, other) == (["", ""] if same else ["bold", "bold" if low < 0 else ""])


def test_one_seed_ties_only_with_what_prints_the_same():
    assert bold(HIGHEST, seeds(63.64), seeds(63.56), seeds(63.5)) == ["bold", "bold", ""]
    assert bold(HIGHEST, seeds(63.7), seeds(60.0, 70.0), seeds(60.0)) == ["", "bold", ""]
    assert bold(HIGHEST, seeds(65.0), seeds(60.0, 70.0), seeds(60.0)) == ["bold", "bold", ""]


def test_seeds_without_any_spread_are_told_apart():
    assert bold(HIGHEST, seeds(50.0, 50.0), seeds(49.0, 49.0)) == ["bold", ""]
    assert bold(HIGHEST, seeds(50.0, 50.0), seeds(50.01, 50.01), seeds(1.0)) == ["bold", "bold", ""]


def test_nothing_is_bold_where_nothing_is_better():
    assert bold(HIGHEST, seeds(0.0), seeds(0.0), seeds(0.04)) == ["", "", ""]
    assert bold(LOWEST, seeds(7.0, 8.0), seeds(7.5)) == ["", ""]
    assert bold(HIGHEST, seeds(50.0), None, None) == ["", "", ""], "one row is better than none"
    assert bold(HIGHEST, None, None, None) == ["", "", ""]


@pytest.mark.parametrize("rows", [ROWS, (*ROWS[:2], Row("c", "C", bold=True))])
def test_none_is_none(rows: tuple[Row, ...]):
    layout = a_layout(rows=rows, notes=(), delta=None)
    assert reported_emphasis(layout, NONE, [1.0, 2.0, 3.0]) == ["", "", ""]
    assert measured_emphasis(layout, NONE, [seeds(1.0), seeds(2.0), seeds(3.0)]) == ["", "", ""]


def test_reported_numbers_tie_as_they_are_printed():
    layout = a_layout(rows=ROWS, notes=(), delta=None)
    assert reported_emphasis(layout, HIGHEST, [59.0, 59.0, 58.9]) == ["bold", "bold", ""]
    assert reported_emphasis(layout, HIGHEST, [0.3 - 0.1, 0.2, None]) == ["bold", "bold", ""]
    assert reported_emphasis(layout, LOWEST, [59.0, None, 58.9]) == ["", "", "bold"]


def test_rows_that_frame_the_table_are_neither_best_nor_second():
    layout = a_layout(rows=FRAMED, notes=(), delta=None, underline="second")
    assert reported_emphasis(layout, HIGHEST, [99.0, 3.0, 1.0, 2.0]) == ["", "bold", "", "underline"]
    found = [seeds(99.0), seeds(3.0), seeds(1.0), seeds(2.0)]
    assert measured_emphasis(layout, HIGHEST, found) == ["", "bold", "", "underline"]
    layout = a_layout(rows=FRAMED, notes=(), delta=None, underline="behind")
    assert measured_emphasis(layout, HIGHEST, found) == ["", "underline", "", ""]
    assert measured_emphasis(layout, HIGHEST, [seeds(0.0), *found[1:]]) == ["", "bold", "", ""]
