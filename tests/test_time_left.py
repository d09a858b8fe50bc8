"""The time left of a command: ratios from published clocks, the pace from what this machine has done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark.records.folders import published_seconds
from benchmark.runs import time_left
from benchmark.runs.time_left import Step, TimeLeft, foreseen, in_minutes

NOW = 1000.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_left.time, "time", lambda: NOW)


def two_rows(folder: Path, jobs: int = 1, pretraining: float | None = 100.0) -> TimeLeft:
    steps = [
        Step(row, title, title, seconds)
        for row in ("a", "b")
        for title, seconds in (("pretrain", pretraining), ("x", 40.0), ("y", 10.0))
    ]
    left = TimeLeft(steps, jobs, folder / "scale/.notes")
    left.begin()
    return left


def test_nothing_is_said_before_anything_was_timed(tmp_path: Path):
    left = two_rows(tmp_path)
    assert left.told() == ""
    left.ended("a", "pretrain")  # it was current
    assert left.told() == ""
    steps = [Step("a", "begin", "begin", 0.0), Step("a", "x", "x", 40.0), Step("b", "begin", "begin", 0.0)]
    left = TimeLeft(steps, 1, tmp_path / "notes")
    left.ended("a", "begin", 0.2)
    assert left.told() == "", "that took no time on record, and says nothing about this machine"
    left.ended("a", "x", 20.0)
    assert left.told() == "about 1 s left in all"


def test_the_pace_of_what_was_done_applies_to_what_is_left(tmp_path: Path):
    left = two_rows(tmp_path)
    left.ended("a", "pretrain", 200.0)  # twice as long as published
    assert left.told() == "about 7 min left in all"  # 2 * (40 + 10 + 100 + 40 + 10) = 400 s
    left.ended("a", "x", 10.0)  # 210 s for 140: the pace is 1.5
    assert left.told() == "about 4 min left in all"  # 1.5 * (10 + 150) = 240 s
    left.ended("a", "y")
    left.ended("b", "pretrain")
    assert left.told() == "about 75 s left in all"
    left.began("b", "x")
    left.ended("b", "y")
    assert left.told() == "about 60 s left in all"
    left.ended("b", "x")
    assert left.told() == ""


def test_what_a_step_has_already_taken_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    left = two_rows(tmp_path)
    for title, took in (("pretrain", 100.0), ("x", 40.0), ("y", 10.0)):
        left.ended("a", title, took)
    left.began("b", "pretrain")
    monkeypatch.setattr(time_left.time, "time", lambda: NOW + 80)
    assert left.told() == "about 70 s left in all"
    monkeypatch.setattr(time_left.time, "time", lambda: NOW + 1000)
    assert left.told() == "about 50 s left in all", "never less than nothing"


def test_rows_share_the_jobs_and_none_is_shared(tmp_path: Path):
    left = two_rows(tmp_path, jobs=2)
    left.ended("a", "x", 40.0)
    assert left.told() == "about 2 min left in all"  # b has 150 s, which is more than half of 260
    left.ended("b", "pretrain")
    assert left.told() == "about 2 min left in all"  # a: 110 s
    left.ended("a", "pretrain")
    assert left.told() == "about 50 s left in all"


def test_what_no_record_times_is_learned_here_or_told(tmp_path: Path):
    left = two_rows(tmp_path, pretraining=None)
    left.ended("a", "x", 40.0)
    assert left.told() == "about 60 s left in all besides 2 steps that no record times"
    left.ended("a", "pretrain", 30.0)
    assert left.told() == "about 2 min left in all"  # 30 + 40 + 10 + 10 s


def test_the_notes_are_gone_in_the_end_and_their_loss_is_no_fault(tmp_path: Path):
    left = two_rows(tmp_path)
    assert left.notes.is_file()
    left.end()
    assert not left.notes.exists()
    assert left.told() == ""
    left.notes.parent.rmdir()
    left.ended("a", "x", 1.0)


def test_published_clocks_are_averaged_and_stand_in_for_others(tmp_path: Path):
    for recipe, transfer, seed, seconds in (("a", "x", 0, 10), ("a", "x", 1, 30), ("b", "x", 0, 40), ("b", "y", 0, 5)):
        path = tmp_path / "desk" / recipe / transfer / f"seed{seed}.time.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"seconds": seconds}))
    for number, text in enumerate(("", "[]", "{}", '{"seconds": "soon"}', '{"seconds": null}')):
        (tmp_path / f"desk/a/x/seed{9 + number}.time.json").write_text(text)
    published = published_seconds(tmp_path, "desk")
    assert published == {("a", "x"): 20, ("b", "x"): 40, ("b", "y"): 5}
    assert published_seconds(tmp_path, "paper") == {}
    assert foreseen("a", "x", published) == 20
    assert foreseen("new", "x", published) == 30
    assert foreseen("new", "z", published) is None


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "1 s"), (61, "61 s"), (90, "2 min"), (5370, "1 h 30 min"), (7320, "2 h 02 min")]
)
def test_the_time_is_told_in_words(seconds: float, said: str):
    assert in_minutes(seconds) == said
