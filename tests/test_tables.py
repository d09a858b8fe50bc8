"""Tables: numbers kept apart that must be, recomputed that can be, and leaderboards never stale."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from survey import survey_tables
from test_results import a_record

from benchmark.core.errors import UserError
from benchmark.gate.check import current_boards
from benchmark.gate.staleness import own_hashes
from benchmark.recipe.catalogue import find_recipes
from benchmark.records.folders import read_published
from benchmark.records.record import Record
from benchmark.tables.agreement import rank_agreement
from benchmark.tables.board import Board, Legend, board
from benchmark.tables.layout import (
    Column,
    Delta,
    Note,
    Row,
    TableLayout,
    read_chapters,
    read_discrepancies,
    read_layouts,
    recipes_of,
    select,
    transfers_of,
)
from benchmark.tables.ledger import LEADERBOARDS, Reported, read_ledger
from benchmark.tables.markdown import markdown
from benchmark.tables.measured import collect, measured_scores
from benchmark.tables.pages import boards, leaderboard_files, photos_files
from benchmark.tables.reported import printed_in


def table(layout: TableLayout, reported: list[Reported], records: list[Record]) -> str:
    return markdown(board(layout, reported, measured_scores(records), Legend()))


def a_layout(**changes) -> TableLayout:
    parts = {
        "key": "k",
        "of": "p",
        "source": "misra2020_pirl",
        "printed": "Table 9",
        "title": "T",
        "rows": (
            Row("floor", "Floor", recipe="r0", competes=False),
            Row("a", "A", recipe="ra"),
            Row("b", "B", recipe="rb"),
            Row("c", "C", recipe="rc"),
        ),
        "columns": (Column("X", ("x", "best", "top1"), transfer="probe", metric="top1"),),
        "notes": (Note("All."), Note("On A.", ("a",)), Note("On B's X.", ("b",), ("X",))),
        "delta": Delta("Δ", "b", "a"),
        "references": ("r0",),
        "scales": {"desk": "a toy", "paper": "real"},
        "tolerances": {"probe": 1.0},
    }
    return TableLayout(**{**parts, **changes})


def reported(**values: str) -> list[Reported]:
    return [
        Reported(method, "r50", "none", "x", "", "best", "top1", "%", value, "Table 9", "", "", "")
        for method, value in values.items()
    ]


def measured(recipe: str, *values: float, scale: str = "desk", **changes):
    return [
        a_record(
            recipe=recipe,
            seed=seed,
            scale=scale,
            **{"transfer": "probe", "metrics": {"top1": value}, "detail": {}, **changes},
        )
        for seed, value in enumerate(values)
    ]


def cells(text: str) -> list[list[str]]:
    return [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


ALL = reported(floor="10.0", a="48.9", b="60.2", c="61.0")


def test_reported_and_measured_side_by_side():
    records = [*measured("r0", 99.0), *measured("ra", 50.0, 52.0), *measured("rb", 70.0), *measured("rc", 65.0)]
    header, _, *lines = cells(table(a_layout(), ALL, records))
    assert header == ["Method", "X, reported", "X, desk", "X, desk verdict"]
    assert lines[:5] == [
        ["Floor", "10.0", "99.0 (1)", "order 0/3"],
        ["A <sup>a</sup>", "48.9", "51.0 ± 1.4 (2)", "order 2/3"],
        ["B", "60.2 <sup>b</sup>", "70.0 (1)", "order 1/3"],
        ["Δ", "+11.3", "+19.0", "–"],
        ["C", "**61.0**", "65.0 (1)", "order 1/3"],
    ]


def test_paper_scale_is_judged_by_its_distance():
    records = [
        *measured("ra", 49.5, scale="paper"),
        *measured("rb", 62.0, scale="paper"),
        *measured("rc", 59.9, scale="paper"),
    ]
    header, _, *lines = cells(table(a_layout(delta=None, notes=()), ALL, records))
    assert header == ["Method", "X, reported", "X, paper", "X, paper Δ", "X, paper verdict"]
    assert [line[3:] for line in lines[:4]] == [
        ["–", "–"],
        ["+0.6", "reproduced within 1"],
        ["+1.8", "above"],
        ["-1.1", "below"],
    ]


def test_a_row_may_have_another_transfer_in_some_columns():
    """Of another version, and on a part of what the column's reads."""
    columns = tuple(
        Column(title, ("x", "best", "top1"), transfer=transfer, metric="top1")
        for title, transfer in (("X", "probe"), ("Y", "probe"), ("Z", "later"))
    )
    rows = (Row("a", "A", recipe="ra"), Row("b", "B", recipe="rb", transfers={"X": "own", "Y": "own"}))
    layout = a_layout(rows=rows, columns=columns, delta=None, notes=())
    train, val = {"d/train": "one"}, {"d/val": "two"}
    records = [
        *measured("ra", 1.0, transfer_data=train | val, transfer_version=3),
        *measured("ra", 2.0, transfer="later", transfer_data=train | val),
        *measured("rb", 5.0, transfer="own", transfer_data=val, transfer_version=1),
        *measured("rb", 6.0, transfer="own", transfer_data=val, transfer_version=2),
        *measured("rb", 7.0, transfer_data=train | val, transfer_version=3),
        *measured("rb", 8.0, transfer="later", transfer_data=train | val),
    ]
    text = table(layout, ALL, records)
    header, _, a, b, *_ = cells(text)
    found = {title: (one, other) for title, one, other in zip(header, a, b, strict=True) if title.endswith(", desk")}
    assert found == {
        "X, desk": ("1.0 (1)", "6.0 (1)"),
        "Y, desk": ("1.0 (1)", "6.0 (1)"),
        "Z, desk": ("2.0 (1)", "8.0 (1)"),
    }
    assert "X, Y: `probe` v3; Z: `later` v1; B in X, Y: `own` v2." in text


def test_a_row_on_other_data_has_a_column_of_its_own():
    rows = (Row("a", "A", recipe="ra"), Row("b", "B", recipe="rb", transfers={"X": "own"}))
    records = [
        *measured("ra", 1.0, transfer_data={"d/train": "one", "d/val": "two"}),
        *measured("rb", 5.0, transfer="own", transfer_data={"d/val": "three"}),
    ]
    header, _, a, b, *_ = cells(table(a_layout(rows=rows, delta=None, notes=()), ALL, records))
    assert "5.0 (1)" in b
    assert header[a.index("1.0 (1)")] != header[b.index("5.0 (1)")]


def test_scales_versions_and_data_have_columns_of_their_own():
    records = [
        *measured("ra", 1.0),
        *measured("rb", 2.0, scale="paper"),
        *measured("rb", 3.0, transfer_version=2),
        *measured("rc", 4.0, transfer_version=2, transfer_data={"imagenet/val": "other"}),
    ]
    header, *_ = cells(table(a_layout(), ALL, records))
    assert [title for title in header[2:] if not title.endswith((" verdict", " Δ"))] == [
        "X, desk v1",
        "X, desk v2 on data aaaaaaaaaaaa",
        "X, desk v2 on data other",
        "X, paper",
    ]


def test_a_row_may_have_a_recipe_of_its_own_in_each_column():
    columns = tuple(
        Column(t, ("x", "best", "top1"), transfer="probe", metric="top1") for t in ("K = 1", "K = 2", "more")
    )
    rows = (Row("a", "A", recipes={"K = 1": "ra1", "K = 2": "ra2"}), Row("b", "B", recipes={"K = 1": "rb1"}))
    layout = a_layout(rows=rows, columns=columns, delta=None, notes=())
    records = [*measured("ra1", 1.0), *measured("ra2", 2.0), *measured("rb1", 3.0), *measured("ra", 9.0)]
    header, _, *lines = cells(table(layout, ALL, records))
    shown = [place for place, title in enumerate(header) if title.endswith("desk")]
    assert [header[place] for place in shown] == ["K = 1, desk", "K = 2, desk"]
    assert [[line[place] for place in shown] for line in lines[:2]] == [["1.0 (1)", "2.0 (1)"], ["3.0 (1)", "–"]]
    assert recipes_of([layout]) == ["ra1", "ra2", "rb1"]


def test_seeds_with_other_settings_are_never_averaged():
    records = [*measured("ra", 1.0, 3.0), a_record(recipe="ra", transfer="probe", seed=7, recipe_hash="other")]
    text = table(a_layout(), ALL, records)
    assert "2.0 ± 1.4 (2)" in text
    assert "ra seed 7 at desk scale ran with other settings (other, not 0123456789ab) and is left out." in text


def test_numbers_of_current_settings_go_before_more_seeds_of_others():
    new = a_record(recipe="ra", transfer="probe", seed=7, recipe_hash="new", metrics={"top1": 9.0}, detail={})
    records = [*measured("ra", 1.0, 3.0), new, *measured("rb", 4.0)]
    text = markdown(board(a_layout(), ALL, measured_scores(records, current={"new"}), Legend()))
    assert "| 9.0 (1) |" in " ".join(text.split()).replace("**", "")
    assert "4.0 (1)" in text  # none of its settings is current: they stay
    for seed in (0, 1):
        assert f"ra seed {seed} at desk scale ran with other settings (0123456789ab, not new) and is left out." in text


def test_smoke_numbers_are_published_for_the_gate_and_stand_in_no_table():
    assert "smoke" in {record.scale for record in read_published(LEADERBOARDS / "measured")}
    assert "smoke" not in {head.scale for one in current_boards().values() for head in one.heads}


def test_rank_agreement_is_printed_with_its_number_of_methods():
    records = [*measured("r0", 20.0), *measured("ra", 50.0), *measured("rb", 70.0), *measured("rc", 65.0)]
    text = table(a_layout(), ALL, records)
    (line,) = [line for line in cells(text) if line[0] == "X, desk"]
    assert line[1] == "+0.67 (4 rows)"  # 5 of 6 pairs agree, 1 does not: (5 - 1) / 6
    assert line[5] == "+0.33 (3 rows)", "the floor only frames the table: 2 of 3 pairs agree"
    assert "| – (1 to compare) |" in " ".join(table(a_layout(), ALL, measured("ra", 50.0)).split())


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
    column = Column("res4", ("x", "res4", "top1"), transfer="probe", metric="top1", stage="res4")
    layout = a_layout(columns=(column,), notes=(), delta=None)
    assert "60.1 (1)" in table(layout, [], measured("ra", 1.0, detail={"per_stage": {"res4": 60.1}}))
    with pytest.raises(UserError, match="has no 'res4'"):
        table(layout, [], measured("ra", 1.0))


def test_a_rows_own_transfer_stands_below_the_columns_that_it_names():
    """And what else was measured of its recipe does not."""

    def own(*given, **changes):
        return [dataclasses.replace(record, transfer="own") for record in measured(*given, **changes)]

    columns = tuple(
        Column(name, ("x", name, "top1"), transfer="probe", metric="top1", stage=name) for name in ("a", "b")
    )
    columns = (*columns, Column("never", ("x", "never", "top1")))
    named = {"a": "own", "b": "own"}
    rows = [dataclasses.replace(row, transfers=named if row.recipe == "ra" else {}) for row in a_layout().rows]
    layout = a_layout(columns=columns, rows=tuple(rows), notes=(), delta=None)
    stages = {"per_stage": {"a": 33.0, "b": 44.0}}
    records = [
        *own("ra", 70.5),
        *measured("ra", 1.0, detail={"per_stage": {"a": 2.0, "b": 3.0}}),
        *measured("rb", 44.0, detail=stages),
    ]
    assert transfers_of([layout]) == ["probe", "own"]
    text = table(layout, [], records)
    shown = [[cell.replace("*", "") for cell in line if "(1)" in cell] for line in cells(text)]
    assert [line for line in shown if line] == [["70.5 (1)"] * 2, ["33.0 (1)", "44.0 (1)"]]
    assert "A in a, b: `own` v" in text
    with pytest.raises(UserError, match="has no 'top1'"):
        table(layout, [], own("ra", 70.5, metrics={"top5": 70.5}))


def test_a_current_run_goes_before_a_published_record_and_a_stale_one_does_not():
    old, new, lone = (
        a_record(metrics={"top1": 1.0}),
        a_record(metrics={"top1": 2.0}),
        a_record(seed=3),
    )
    assert collect([old], [new, lone], lambda record: True) == [new, lone]
    assert collect([old], [new, lone], lambda record: False) == [old]


# rows of the papers that the documents leave out, and rows that are only measured
EXTRA = {
    "pirl_detection_voc07": [(None, None, None, None)],
    "pirl_detection_voc0712": [(None, None, None, None), (None, 70.6, None, None), (None, 72.1, None, None)],
    "pirl_semi_supervised": [(29.8, 62.0), (64.0, 84.9)],
}
SURVEY = {document.key: document for document in survey_tables()}
RESOLVED = boards([])
LEDGER = read_ledger()


def numbers(one: Board) -> list[tuple[float | None, ...]]:
    """The reported and computed numbers of each line."""
    wanted = [i for i, head in enumerate(one.heads) if head.kind in ("reported", "computed")]
    return [tuple(line[i].number for i in wanted) for line in one.lines]


@pytest.mark.parametrize("key", sorted(SURVEY))
def test_the_survey_documents_tables_stand_here_row_by_row(key: str):
    """In the documents' order; their text joins or swaps cells on three slides, as D7 and D8 say."""
    ours = numbers(RESOLVED[key])
    if key == "dim_tiny_imagenet":
        ours[0] = ours[0][:1]  # one cell over three columns
    if key == "jigsaw_voc07":
        ours = [(float(line[2].text.split()[0]), *row[1:]) for line, row in zip(RESOLVED[key].lines, ours, strict=True)]
    if key == "pirl_other_pretexts":
        ours[2] = ours[2][1:]
    theirs = [tuple(row) for row in SURVEY[key].rows]
    if key == "voc07_finetune_small":
        ours, theirs = ([tuple(sorted(row, key=str)) for row in rows] for rows in (ours, theirs))
    ours = [row for row in ours if row not in EXTRA.get(key, ())]
    assert [[None if n is None else round(n, 6) for n in row] for row in ours] == [list(row) for row in theirs]


def test_the_small_tables_repeat_the_summary():
    summary = {line[0].text: line[2:] for line in RESOLVED["voc07_finetune"].lines}
    for line in RESOLVED["voc07_finetune_small"].lines:
        assert [cell.number for cell in line[1:]] == [cell.number for cell in summary[line[0].text]]


def test_every_number_of_a_table_that_is_laid_out_is_shown():
    """But for printed differences, which are computed here."""
    shown: dict[str, set[int]] = {}
    for one in RESOLVED.values():
        layout = one.layout
        numbered = printed_in(layout, LEDGER[layout.source])
        lines = {id(line) for number in numbered.values() for line in number.lines}
        shown.setdefault(f"{layout.source}, {layout.printed}", set()).update(lines)
    for source, ledger in LEDGER.items():
        for line in ledger:
            if f"{source}, {line.table}" in shown and line.metric != "delta_ap75" and line.method != "delta_of_pirl":
                assert id(line) in shown[f"{source}, {line.table}"], line


def test_every_printed_difference_is_what_its_rows_say():
    for key in ("pirl_detection_voc0712", "pirl_detection_voc07"):
        one = RESOLVED[key]
        computed = {line[0].text: line[-1].number for line in one.lines if line[-1].number is not None}
        names = {row.method: row.title for row in one.layout.rows}
        printed = {
            names[line.method]: float(line.value)
            for line in LEDGER[one.layout.source]
            if line.table == one.layout.printed and line.metric == "delta_ap75"
        }
        assert len(printed) >= 3
        assert printed == {title: round(value, 1) for title, value in computed.items()}
    printed_pirl = [float(line.value) for line in LEDGER["misra2020_pirl"] if line.method == "delta_of_pirl"]
    difference = RESOLVED["pirl_other_pretexts"].lines[2]
    assert [cell.number and round(cell.number, 1) for cell in difference[2:]] == printed_pirl


def test_the_eighteen_tables_of_the_survey():
    chapters = read_chapters()
    assert len(chapters) == 18
    assert sorted(key for chapter in chapters for key in chapter.tables) == sorted(RESOLVED)


def test_every_discrepancy_is_a_footnote_at_its_cells():
    notes = [(one, note) for one in RESOLVED.values() for note in one.layout.notes if note.discrepancy]
    assert {note.discrepancy for _, note in notes} == read_discrepancies().keys()
    assert len(read_discrepancies()) == 25
    in_words = {"D10", "D11", "D25"}  # the documents differ in a text or an equation, not in a row of a table
    assert read_discrepancies().keys() - {note.discrepancy for _, note in notes if note.methods} == in_words
    for one, note in notes:
        if note.methods:
            mark = next(foot.mark for foot in one.footnotes if foot.discrepancy == note.discrepancy)
            marked = [
                (line[0].text, head.column)
                for line in one.lines
                for head, cell in zip(one.heads, line, strict=True)
                if mark in cell.marks
            ]
            titles = [row.title for row in one.layout.rows if row.key in note.methods]
            for title in titles:
                for column in note.columns or ("",):
                    assert (title, column) in marked, (one.layout.key, note)


def test_bold_and_underlined_as_the_documents_have_them():
    def styled(key: str, style: str) -> list[str]:
        return [cell.text for line in RESOLVED[key].lines for cell in line if cell.style == style]

    assert styled("rotnet_places205", "bold") == ["23.3", "33.9", "36.3", "34.7", "33.7"]
    assert styled("rotnet_places205", "underline") == ["23.0", "31.9", "32.5", "35.1", "34.6"]
    assert styled("pirl_detection_voc0712", "bold") == ["54.0", "59.7"]
    assert styled("pirl_detection_voc0712", "underline") == ["80.7"]
    assert styled("jigsaw_voc07", "bold") == ["78.2", "56.8", "48.0", "67.6", "53.2", "37.6"]
    assert styled("jigsaw_permutations", "bold") == ["53.2"]


def test_two_numbers_for_one_cell_are_an_error():
    twice = [*ALL, dataclasses.replace(ALL[1], backbone="r101")]
    with pytest.raises(UserError, match=r"row 'a', column 'X' could be any of 48\.9, 48\.9"):
        table(a_layout(), twice, [])


def test_a_computed_column_subtracts_and_keeps_the_decimals():
    columns = (*a_layout().columns, Column("ΔX", of="X", minus="floor", best="none"))
    lines = cells(table(a_layout(columns=columns, notes=(), delta=None), reported(floor="10.04", a="48.9"), []))[2:]
    assert [line[2] for line in lines] == ["+0.00", "+38.86"]


def test_unverified_and_stale_are_marked():
    lines = [dataclasses.replace(line, evidence="unverified" if line.method == "a" else "") for line in ALL]
    records = [*measured("ra", 50.0), *measured("rb", 70.0)]
    context = Legend(stale={records[-1].published_path: "its recipe has changed"})
    text = markdown(board(a_layout(), lines, measured_scores(records), context))
    assert "48.9 <sup>?</sup>" in text
    assert "70.0 (1) <sup>†</sup>" in text
    assert "Stale: desk/rb/probe/seed0.json: its recipe has changed." in text


def test_records_that_are_stale_for_one_reason_share_a_line():
    records = measured("rb", *(70.0 + seed for seed in range(11)))
    reasons = {record.published_path: "old" if record.seed else "its data is gone" for record in records}
    text = markdown(board(a_layout(), ALL, measured_scores(records), Legend(stale=reasons)))
    seeds = ", ".join(f"seed{seed}.json" for seed in range(1, 11))
    assert f"Stale: desk/rb/probe/{seeds}: old." in text
    assert text.count("Stale:") == 2


def test_there_are_as_many_letters_as_footnotes():
    notes = tuple(Note(f"note {i}", ("a",)) for i in range(30))
    text = table(a_layout(notes=notes), ALL, [])
    assert "<sup>ab</sup> note 27" in text


def test_what_the_tables_name_exists():
    from benchmark.tables.layout import recipes_of

    assert set(recipes_of(read_layouts())) <= find_recipes().keys()
    find_transfers = pytest.importorskip("benchmark.transfers").find_transfers
    cards = {name: transfer.card for name, transfer in find_transfers().items()}
    assert set(transfers_of(read_layouts())) <= cards.keys()
    for layout in read_layouts():
        for column in layout.columns:
            if column.transfer:
                metric = cards[column.transfer].metrics[column.metric]
                assert column.best in ("none", "highest" if metric.higher else "lowest"), column


def test_written_leaderboards_are_not_stale():
    files = leaderboard_files(current_boards()) | photos_files(frozenset(own_hashes().values()))
    for path, text in files.items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is stale: run `sslbench tables --write`"


def test_leaderboards_are_the_same_in_another_locale_zone_and_order_of_files():
    code = """
import hashlib, sys, time
from pathlib import Path
glob = Path.glob
Path.glob = lambda self, pattern: iter(sorted(glob(self, pattern), reverse=True))
time.time = lambda: 0.0
from benchmark.gate.check import current_boards
from benchmark.tables.pages import leaderboard_files
for path, text in sorted(leaderboard_files(current_boards()).items()):
    print(path.name, hashlib.sha256(text.encode()).hexdigest())
"""
    elsewhere = {
        "LC_ALL": "C",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
        "TZ": "Asia/Tokyo",
        "PYTHONHASHSEED": "7",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **elsewhere}, capture_output=True, text=True, check=True
    )
    files = leaderboard_files(current_boards())
    here = {path.name: hashlib.sha256(text.encode()).hexdigest() for path, text in files.items()}
    assert dict(line.split() for line in done.stdout.splitlines()) == here


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("printed =", "print =", r"has unknown \['print'\] and lacks \['printed'\]"),
        ('best = "none"', 'best = "worst"', "best is 'worst'"),
        ('underline = "second"', 'underline = "third"', "underline is 'third'"),
        ('less = "Supervised ImageNet"', 'less = "nobody"', r"do not exist: \['nobody'\]"),
        ('minus = "supervised"', 'minus = ""', "needs `of` and one of `minus` and `less`"),
        ('name = "set 2"', 'name = "set 1"', r"are called \['set 1'\]"),
        ('key = "pirl_linear"', 'key = "pirl_yfcc"', "there is one already"),
        ('methods = ["supervised"]', 'methods = ["superfised"]', "do not exist: .*superfised"),
        ("transfers = { conv =", "transfers = { conf =", r"do not exist: \['conf'\]"),
        ('transfer = "tiny_imagenet_dim", stage = "conv", ', "", "a transfer for column 'conv', which has none itself"),
        ("rows = [", "rows = [[", "tables.toml"),
    ],
)
def test_faults_in_the_layout_are_named(tmp_path: Path, old: str, new: str, said: str):
    path = tmp_path / "tables.toml"
    path.write_text((LEADERBOARDS / "tables.toml").read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=said):
        read_layouts(path)


def test_tables_need_no_torch():
    code = (
        "import sys, benchmark.tables.pages, benchmark.records.record, benchmark.cli; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_takes_long_runs_for_a_papers_tables_or_for_one_that_is_named():
    layouts = read_layouts()
    quick = transfers_of(select(layouts, ["pirl"], None))
    assert {"linear_imagenet_pirl", "voc07_det_c4_pirl"} <= set(quick)
    assert not {"voc0712_det_c4_pirl", "voc12_seg_fcn_moco", "coco_det_c4_moco"} & set(quick)
    assert "voc12_seg_fcn_moco" in transfers_of(select(layouts, [], "moco"))
    assert [one.key for one in select(layouts, [], "jigsaw_shortcuts")] == ["jigsaw_shortcuts"]
    both = select(layouts, ["pirl"], "pirl_detection_voc0712")
    assert "voc0712_det_c4_pirl" in transfers_of(both)
    assert len({one.key for one in both}) == len(both) > 1
    with pytest.raises(UserError, match=r"no tables of 'jigsaw_shortcut' \(did you mean jigsaw_shortcuts"):
        select(layouts, [], "jigsaw_shortcut")


def test_every_recipe_is_scored_where_it_is_reproduced():
    layouts = read_layouts()
    for name in find_recipes():
        assert transfers_of(select(layouts, [name], None)), name
    of_places = transfers_of(select(layouts, ["supervised_places"], None))
    assert of_places == ["linear_places205_gidaris"], "it has no columns but those that take long"
    in_no_table = transfers_of(select(layouts, ["jigsaw_pp"], None))
    assert "linear_imagenet_pirl" in in_no_table
    assert "coco_det_c4_moco" not in in_no_table
