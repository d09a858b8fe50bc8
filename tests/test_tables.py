"""Tables: numbers kept apart that must be, recomputed that can be, and leaderboards never stale."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_results import a_record

from benchmark.errors import UserError
from benchmark.leaderboards import Column, Delta, Layout, Note, Row, read_layouts, transfers_of
from benchmark.ledger import LEADERBOARDS, Reported, read_reported
from benchmark.tables import collect, leaderboard_files, rank_agreement, table


def a_layout(**changes) -> Layout:
    parts = {
        "key": "k",
        "of": "p",
        "source": "misra2020_pirl",
        "printed": "Table 9",
        "title": "T",
        "rows": (
            Row("floor", "Floor", "r0", competes=False),
            Row("a", "A", "ra"),
            Row("b", "B", "rb"),
            Row("c", "C", "rc"),
        ),
        "columns": (Column("X", ("x", "best", "top1"), "probe", "top1"),),
        "notes": (Note("All."), Note("On A.", ("a",)), Note("On B's X.", ("b",), ("X",))),
        "delta": Delta("Δ", "b", "a"),
        "references": ("r0",),
        "scales": {"desk": "a toy", "paper": "real"},
    }
    return Layout(**{**parts, **changes})


def reported(**values: str) -> list[Reported]:
    return [
        Reported(method, "r50", "none", "x", "", "best", "top1", "%", value, "Table 9", "", "", "")
        for method, value in values.items()
    ]


def measured(recipe: str, *values: float, scale: str = "desk", **changes):
    return [
        a_record(
            recipe=recipe,
            transfer="probe",
            seed=seed,
            scale=scale,
            **{"metrics": {"top1": value}, "detail": {}, **changes},
        )
        for seed, value in enumerate(values)
    ]


def cells(text: str) -> list[list[str]]:
    return [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


ALL = reported(floor="10.0", a="48.9", b="60.2", c="61.0")


def test_reported_and_measured_side_by_side():
    records = [*measured("r0", 99.0), *measured("ra", 50.0, 52.0), *measured("rb", 70.0), *measured("rc", 65.0)]
    header, _, *lines = cells(table(a_layout(), ALL, records))
    assert header == ["Method", "X, reported", "X, desk"]
    assert lines == [
        ["Floor", "10.0", "99.0 (1)"],
        ["A <sup>a</sup>", "48.9", "51.0 ± 1.4 (2)"],
        ["B", "60.2 <sup>b</sup>", "**70.0 (1)**"],
        ["C", "**61.0**", "65.0 (1)"],
        ["Δ", "+11.3", "+19.0"],
    ]


def test_scales_versions_and_data_have_columns_of_their_own():
    records = [
        *measured("ra", 1.0),
        *measured("rb", 2.0, scale="paper"),
        *measured("rb", 3.0, transfer_version=2),
        *measured("rc", 4.0, transfer_version=2, transfer_data={"imagenet/val": "other"}),
    ]
    header, *_ = cells(table(a_layout(), ALL, records))
    assert header[2:] == [
        "X, desk v1",
        "X, desk v2 on data aaaaaaaaaaaa",
        "X, desk v2 on data other",
        "X, paper",
    ]


def test_seeds_with_other_settings_are_never_averaged():
    records = [*measured("ra", 1.0, 3.0), a_record(recipe="ra", transfer="probe", seed=7, recipe_hash="other")]
    text = table(a_layout(), ALL, records)
    assert "2.0 ± 1.4 (2)" in text
    assert "ra seed 7 at desk scale ran with other settings (other, not 0123456789ab) and is left out." in text


def test_rank_agreement_is_printed_with_its_number_of_methods():
    records = [*measured("r0", 20.0), *measured("ra", 50.0), *measured("rb", 70.0), *measured("rc", 65.0)]
    text = table(a_layout(), ALL, records)
    assert "desk: X +0.67 (4 methods)." in text  # 5 of 6 pairs agree, 1 does not: (5 - 1) / 6
    assert "X – (1 to compare)" in table(a_layout(), ALL, measured("ra", 50.0))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=8))
def test_rank_agreement_by_counting_pairs(scores: list[tuple[int, int]]):
    signs = [((a > b) - (a < b), (x > y) - (x < y)) for (a, x), (b, y) in itertools.combinations(scores, 2)]
    one, other = (sum(abs(pair[i]) for pair in signs) for i in (0, 1))
    tau = rank_agreement(*zip(*scores, strict=True))
    if not one or not other:
        assert tau is None
    else:
        assert tau == pytest.approx(sum(a * b for a, b in signs) / (one * other) ** 0.5)


def test_stages_come_from_the_records_detail():
    column = Column("res4", ("x", "res4", "top1"), "probe", "top1", stage="res4")
    layout = a_layout(columns=(column,), notes=(), delta=None)
    assert "60.1 (1)" in table(layout, [], measured("ra", 1.0, detail={"per_stage": {"res4": 60.1}}))
    with pytest.raises(UserError, match="has no 'res4'"):
        table(layout, [], measured("ra", 1.0))


def test_a_current_run_goes_before_a_published_record_and_a_stale_one_does_not():
    old, new, lone = (
        a_record(metrics={"top1": 1.0}),
        a_record(metrics={"top1": 2.0}),
        a_record(seed=3),
    )
    assert collect([old], [new, lone], lambda record: True) == [new, lone]
    assert collect([old], [new, lone], lambda record: False) == [old]


def test_every_printed_delta_is_what_its_rows_say():
    ledger = read_reported("misra2020_pirl")
    value = {(line.table, line.method, line.transfer): float(line.value) for line in ledger}
    printed = [line for line in ledger if line.method == "delta_of_pirl"]
    assert len(printed) == 4
    for line in printed:
        of, minus = (value[line.table, method, line.transfer] for method in ("pirl_rotation", "rotation"))
        assert round(of - minus, 1) == float(line.value)


def test_the_ledger_is_shown_whole():
    """Every number of a table that is laid out is in it, but for deltas (recomputed) and sizes of comparable rows."""
    shown = {
        (layout.printed, row.method, *column.reported)
        for layout in read_layouts()
        for row in layout.rows
        for column in layout.columns
    }
    laid_out = {table for table, *_ in shown}
    for line in read_reported("misra2020_pirl"):
        if line.table in laid_out and line.method != "delta_of_pirl" and line.value != "25.6":
            assert (line.table, line.method, line.transfer, line.setting, line.metric) in shown, line


def test_what_the_tables_name_exists():
    from benchmark.catalog import find_recipes
    from benchmark.leaderboards import recipes_of

    assert set(recipes_of(read_layouts())) <= find_recipes().keys()
    find_transfers = pytest.importorskip("benchmark.transfers").find_transfers
    cards = {name: transfer.card for name, transfer in find_transfers().items()}
    assert set(transfers_of(read_layouts())) <= cards.keys()
    for layout in read_layouts():
        for column in layout.columns:
            if column.transfer:
                assert column.metric in cards[column.transfer].metrics, column


def test_written_leaderboards_are_not_stale():
    for path, text in leaderboard_files().items():
        assert path.read_text() == text, f"{path} is stale: run `sslbench tables --write`"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title =", "titel =", r"has unknown \['titel'\] and lacks \['title'\]"),
        ('methods = ["supervised"]', 'methods = ["superfised"]', "names .*superfised"),
        ("rows = [", "rows = [[", "tables.toml"),
    ],
)
def test_faults_in_the_layout_are_named(tmp_path: Path, old: str, new: str, said: str):
    path = tmp_path / "tables.toml"
    path.write_text((LEADERBOARDS / "tables.toml").read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=said):
        read_layouts(path)


def test_tables_need_no_torch():
    code = "import sys, benchmark.tables, benchmark.results, benchmark.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
