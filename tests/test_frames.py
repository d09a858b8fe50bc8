"""Records and ledger as DataFrames: every number of the files once, in columns of fixed types; and Parquet files."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from test_results import a_record

from benchmark import cli
from benchmark.core.errors import UserError
from benchmark.records import frame
from benchmark.records.folders import write_record
from benchmark.records.frames import COLUMNS, frame_of
from benchmark.tables import ledger_frame
from benchmark.tables.export import as_csv
from benchmark.tables.ledger import LEADERBOARDS
from benchmark.tables.pages import boards, shown_records
from benchmark.tables.parquet import board_frame, parquet_files

BOARDS = boards(shown_records())


def in_the_files() -> Iterator[tuple[str, str, int, str, str, float]]:
    """(scale, recipe, seed, transfer, stage, value) of every score below leaderboards/measured, read by json alone."""
    for path in (LEADERBOARDS / "measured").rglob("seed*.json"):
        if not path.name.endswith(".time.json"):
            scale, recipe, transfer, _ = path.relative_to(LEADERBOARDS / "measured").parts
            content = json.loads(path.read_text())
            scores = [("", value) for value in content["metrics"].values()]
            for stage, value in (*scores, *content["detail"].get("per_stage", {}).items()):
                yield scale, recipe, int(path.stem.removeprefix("seed")), transfer, stage, float(value)


def test_every_published_score_is_there_once():
    columns = ["scale", "recipe", "seed", "transfer", "stage", "value"]
    assert Counter(frame()[columns].itertuples(index=False, name=None)) == Counter(in_the_files())


def test_columns_have_their_types_whatever_is_known(tmp_path: Path):
    bare = a_record(origin={}, versions={}, transfer_data={})
    strange = a_record(origin={"num_images": "many", "world_size": 1.5, "data": ["d"], "made_by": {"threads": True}})
    for found in (frame(), frame_of([bare]), frame_of([strange]), frame_of([]), frame(tmp_path)):
        assert {name: str(dtype) for name, dtype in found.dtypes.items()} == COLUMNS
    row = frame_of([bare]).iloc[0]
    assert (row["torch"], row["pretrain_commit"], row["transfer_data"]) == ("", "", "")
    for one in (bare, strange):
        assert frame_of([one])[["pretrain_images", "pretrain_threads", "pretrain_processes"]].isna().all(axis=None)


def test_a_record_says_what_the_frame_says_of_it():
    record = a_record(
        transfer_data={"b/val": "2", "a/train": "1"},
        origin={"data": "d", "data_fingerprint": "f", "num_images": 9, "world_size": 8, "made_by": {"threads": 3}},
    )
    found = frame_of([a_record(seed=1), record]).loc[1]
    assert list(found["stage"]) == ["", "", "res4", "res5"]
    assert list(found["metric"]) == ["top1", "top5", "", ""], "of two metrics, nobody knows whose the stages are"
    assert list(found["value"]) == [63.6, 80.0, 60.1, 63.6]
    row = found.iloc[0]
    assert (row["transfer_data"], row["transfer_fingerprints"]) == ("a/train,b/val", "1,2")
    assert tuple(row[f"pretrain_{what}"] for what in ("data", "fingerprint", "images", "threads", "processes")) == (
        ("d", "f", 9, 3, 8)
    )
    for name in ("scale", "recipe", "seed", "transfer_version", "recipe_hash", "backbone_hash", "commit", "device"):
        assert row[name] == getattr(record, name)


def test_stages_are_of_the_one_metric_and_only_numbers_are_scores():
    record = a_record(metrics={"map": 50.0}, detail={"per_stage": {"res4": 1, "res5": "high", "res3": True}})
    assert frame_of([record])[["metric", "stage", "value"]].values.tolist() == [["map", "", 50.0], ["map", "res4", 1.0]]
    assert frame_of([a_record(detail={"per_stage": [1.0]})])["stage"].tolist() == ["", ""]


def test_runs_have_the_same_columns(tmp_path: Path):
    write_record(a_record(seed=4), tmp_path, seconds=1.0)
    found = frame(str(tmp_path))
    assert set(found["seed"]) == {4}
    assert list(found.index) == [0, 1, 2, 3]
    with pytest.raises(UserError, match="nowhere: no such folder"):
        frame(tmp_path / "nowhere")


def test_the_ledger_is_there_line_by_line():
    lines = []
    for path in sorted((LEADERBOARDS / "reported").glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            lines += [{"source": path.stem, **line} for line in csv.DictReader(file)]
    found = ledger_frame()
    assert len(found) == len(lines) > 3000
    texts = found.drop(columns=["value", "verified"]).rename(columns={"printed": "value"})
    assert texts[list(lines[0])].to_dict("records") == lines
    assert found["value"].tolist() == [float(line["value"]) for line in lines]
    assert (found["verified"] == (found["evidence"] != "unverified")).all()
    assert str(found["value"].dtype) == "float64"


def test_parquet_gives_the_frames_back():
    files = parquet_files(BOARDS)
    assert files.keys() == {f"{key}.parquet" for key in (*BOARDS, "records", "ledger")}
    made = {"records": frame(), "ledger": ledger_frame(), **{key: board_frame(one) for key, one in BOARDS.items()}}
    for key, one in made.items():
        pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(files[f"{key}.parquet"])), one)


@pytest.mark.parametrize("key", BOARDS)
def test_the_numbers_of_a_table_print_as_its_csv_does(key: str):
    header, *lines = csv.reader(io.StringIO(as_csv(BOARDS[key])))
    numbers = [head.kind not in ("method", "fact", "verdict") for head in BOARDS[key].heads]
    printed = [
        (line[0], title, cell)
        for line in lines
        for title, cell, is_number in zip(header, line, numbers, strict=True)
        if cell and is_number
    ]
    hours = {"hours": 1, "days": 24, "week": 168, "weeks": 168}
    for one, (row, title, cell) in zip(board_frame(BOARDS[key]).itertuples(), printed, strict=True):
        assert (one.title, one.heading) == (row, title)
        number, *rest = cell.split()
        factor = hours.get(rest[0], 1) if rest else 1
        decimals = len(number.partition(".")[2])
        assert round(one.value / factor, decimals) == pytest.approx(float(number))
        assert cell.endswith(f"({one.seeds})") is bool(one.seeds) is (one.kind == "measured")
        assert f" ± {one.std:.1f}" in cell if one.seeds > 1 else pd.isna(one.std)


def test_rows_and_headings_name_a_number():
    for one in BOARDS.values():
        assert not board_frame(one).duplicated(["row", "heading"]).any(), one.layout.key


def test_a_row_less_another_is_no_measured_number():
    found = board_frame(BOARDS["pirl_other_pretexts"])
    (row,) = set(found.loc[found["kind"] == "difference", "row"])
    assert row.startswith("Δ")
    assert set(found.loc[found["row"] == row, "kind"]) == {"difference"}


def test_export_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["export", str(tmp_path)]) == 0
    assert str(tmp_path / "pirl_linear.parquet") in capsys.readouterr().out
    for key in ("pirl_linear", "records", "ledger"):
        assert len(pd.read_parquet(tmp_path / f"{key}.parquet")) > 10
    assert (tmp_path / "pirl_linear.csv").is_file()


def test_pandas_is_imported_by_those_who_need_it():
    code = "import sys, benchmark.cli, benchmark.records, benchmark.tables.pages, benchmark.tables.parquet"
    code += "; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
