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
    """Student's, paired by seed, 95 %, by its formulas."""
    gaps = [a - b for a, b in zip(one.values, other.values, strict=True)]
    half = float(t.ppf(0.975, len(gaps) - 1)) * statistics.stdev(gaps) / math.sqrt(len(gaps))
    return statistics.mean(gaps) - half, statistics.mean(gaps) + half


def test_the_best_and_what_is_not_settled_to_be_worse():
    best, near, far = seeds(70.0, 72.0, 74.0), seeds(69.0, 72.5, 71.0), seeds(60.0, 61.0, 62.0)
    assert interval(best, near)[0] < 0 < interval(best, far)[0]
    assert bold(HIGHEST, far, best, near) == ["", "bold", "bold"]
    assert bold(LOWEST, far, best, near) == ["bold", "", ""]
    assert bold(HIGHEST, far, best, None) == ["", "bold", ""]


three = st.lists(st.integers(0, 1000).map(lambda tenths: tenths / 10), min_size=4, max_size=4, unique=True)


@given(three, three)
def test_alike_is_what_the_interval_says_or_what_is_printed(ours: list[float], theirs: list[float]):
    one, other = sorted((seeds(*ours), seeds(*theirs)), key=lambda found: -found.mean)
    last = seeds(*(value - 1000 for value in other.values))  # settled to be worse than both
    low, _ = interval(one, other)
    if abs(low) > 1e-6:
        tied = f"{one.mean:.1f}" == f"{other.mean:.1f}" or low < 0
        assert bold(HIGHEST, one, other, last) == ["bold", "bold" if tied else "", ""]


def test_fewer_than_three_seeds_do_not_compete():
    assert bold(HIGHEST, seeds(63.7), seeds(63.5), seeds(60.0)) == ["", "", ""]
    assert bold(HIGHEST, seeds(99.0, 99.1), seeds(63.0, 63.5, 63.2), seeds(60.0, 60.4, 60.1)) == ["", "bold", ""]


def test_fewer_than_three_seeds_in_common_with_the_best_do_not_compete():
    best, elsewhere, third = seeds(90.0, 91.0, 89.5), seeds(10.0, 11.0, 10.5, first=1), seeds(50.0, 51.0, 50.5)
    assert bold(HIGHEST, best, elsewhere, third) == ["bold", "", ""]
    assert bold(LOWEST, best, elsewhere, third) == ["", "", ""], "no other row shares three seeds with the best"
    assert bold(HIGHEST, best, elsewhere) == ["", ""], "nothing to compare it with"
    assert bold(HIGHEST, best, elsewhere, third, underline="second") == ["bold", "", "underline"]
    many = seeds(90.0, 91.0, 89.5, 90.2, 90.7, 89.9)
    assert bold(HIGHEST, many, third, seeds(40.0, 41.0, 42.0, first=3), underline="second") == ["bold", "underline", ""]


def test_seeds_are_paired_by_their_number():
    """Every seed is a point better, on seeds that differ by twenty: unpaired, nothing could be told."""
    one, other = seeds(50.0, 60.0, 70.0), seeds(49.0, 58.9, 69.1)
    assert bold(HIGHEST, one, other) == ["bold", ""]
    turned = Seeds(tuple(reversed(other.records)), tuple(reversed(other.values)))
    assert bold(HIGHEST, one, turned) == ["bold", ""], "wherever they stand"
    assert bold(HIGHEST, one, seeds(49.0, 58.9, 69.1, first=1)) == ["", ""], "two seeds in common are too few"


def test_seeds_without_any_spread_are_told_apart():
    assert bold(HIGHEST, seeds(50.0, 50.0, 50.0), seeds(49.0, 49.0, 49.0)) == ["bold", ""]
    found = [seeds(50.0, 50.0, 50.0), seeds(50.01, 50.01, 50.01), seeds(1.0, 1.0, 1.0)]
    assert bold(HIGHEST, *found) == ["bold", "bold", ""]


def test_nothing_is_bold_where_nothing_is_better():
    assert bold(HIGHEST, seeds(0.0, 0.0, 0.0), seeds(0.0, 0.0, 0.0), seeds(0.04, 0.04, 0.04)) == ["", "", ""]
    assert bold(LOWEST, seeds(7.0, 8.0, 9.0), seeds(8.1, 8.0, 7.0)) == ["", ""], "nothing is settled"
    assert bold(HIGHEST, seeds(50.0, 51.0, 52.0), None, None) == ["", "", ""], "one row is better than none"
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
    found = [seeds(*(value + tenth for tenth in (0.1, 0.2, 0.4))) for value in (99.0, 3.0, 1.0, 2.0)]
    assert measured_emphasis(layout, HIGHEST, found) == ["", "bold", "", "underline"]
    layout = a_layout(rows=FRAMED, notes=(), delta=None, underline="behind")
    assert measured_emphasis(layout, HIGHEST, found) == ["", "underline", "", ""]
    assert measured_emphasis(layout, HIGHEST, [seeds(0.0, 0.0, 0.0), *found[1:]]) == ["", "bold", "", ""]
