"""Flags add up, or contradict each other and are refused by name: none undoes an earlier one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmark import cli
from benchmark.core.errors import UserError
from benchmark.core.flags import gathered
from benchmark.core.optimisation import Epochs

ROOT = Path(__file__).parents[1]
HINTS = {"--seeds": tuple[int, ...], "--set": tuple[str, ...], "--num-images": int | None, "--write": bool}


def planned(line: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Key -> value of every change that a plan would show."""
    asked: list[Any] = []
    monkeypatch.setattr("benchmark.runs.plan.plan_text", lambda recipe, *_: asked.append(recipe))
    assert cli.run(["plan", "pirl", *line.split()]) == 0
    return {change.key: change.value for change in asked[0].overrides}


@pytest.mark.parametrize(
    "line",
    [
        "--recipe.batch-size 8 --set method.tau=0.1",
        "--set method.tau=0.1 --recipe.batch-size 8",
        "--set batch_size=8 --set method.tau=0.1",
        "--set batch_size=8 method.tau=0.1",
        "--set=batch-size=8 --scale smoke --set=method.tau=0.1",
        "--set batch_size=8 --recipe.method.tau=0.1 --set method.tau=0.1",
    ],
)
def test_settings_add_up_in_any_spelling(line: str, monkeypatch: pytest.MonkeyPatch):
    assert planned(line, monkeypatch) == {"batch_size": 8, "method.tau": 0.1}


def test_the_line_of_the_docs_sets_both(monkeypatch: pytest.MonkeyPatch):
    line = "--recipe.length 400epochs --set method.tau=0.1"
    assert f"sslbench plan pirl {line}" in (ROOT / "docs/reading-a-recipe.md").read_text(encoding="utf-8")
    assert planned(line, monkeypatch) == {"length": Epochs(400), "method.tau": 0.1}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--recipe.method.tau 0.1 --recipe.method.tau 0.2", "--recipe.method.tau 0.1 and --recipe.method.tau 0.2"),
        ("--set method.tau=0.1 --recipe.method.tau 0.2", "contradict each other"),
        ("--set batch_size=8 batch-size=9", "--recipe.batch_size 8 and --recipe.batch_size 9"),
        ("--recipe.length 3epochs --recipe.length.epochs 4", "--recipe.length 3epochs and --recipe.length.epochs 4"),
        ("--recipe.seed 3", "give --seed 3"),
        ("--set", "--set needs a value"),
        ("--set batch_size=8 --set", "--set needs a value"),
        ("--set method.tau", "--set takes KEY=VALUE, e.g. --set batch_size=64, not 'method.tau'"),
        ("--set method.tau 0.1", "--set takes KEY=VALUE"),
        ("--set =3", "--set takes KEY=VALUE"),
        ("--set method.tau=", "needs a value"),
        ("--scale desk --scale paper", "--scale=desk and --scale=paper contradict each other; give --scale once"),
        ("--processes 8 --processes=16", "--processes=8 and --processes=16"),
        ("--num-images 8 --num_images 9", "--num-images=8 and --num-images=9"),
        ("--data=", "--data is empty"),
        ("--data=~no-such-user/x", "nobody has the home folder ~no-such-user"),
    ],
)
def test_a_contradiction_is_refused_by_name(line: str, said: str, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["plan", "pirl", *line.split()]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["reproduce", "transfer", "tables", "check"])
def test_settings_where_none_are_taken_are_refused(command: str, capsys: pytest.CaptureFixture[str]):
    assert cli.run([command, "pirl", "--recipe.method.tau", "0.1"]) == 2
    assert "--recipe.method.tau: this command takes no settings of a recipe" in capsys.readouterr().err


def test_seeds_add_up_and_rows_are_run_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked: list[Any] = []
    monkeypatch.setattr("benchmark.runs.request.Request.is_answered", lambda self: False)
    monkeypatch.setattr("benchmark.runs.reproduce.fulfil", lambda request, *_: not asked.append(request))
    monkeypatch.chdir(tmp_path)
    line = "reproduce pirl --seeds 0 --scale smoke --seeds 1 2 --seeds=0 --runs r pirl --device cpu"
    assert cli.run(line.split()) == 0
    assert asked[0].seeds == (0, 1, 2)
    assert asked[0].names.count("pirl") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("x --seeds 0 --write --seeds 1 -2", "x --seeds 0 1 -2 --write"),
        ("x --write --write", "x --write"),
        ("x --num_images -5 y --num-images=-5", "x y --num-images=-5"),
        ("x --frob 3 --help", "x --frob 3 --help"),
        ("x --write -- --write", "x --write -- --write"),
        ("", ""),
    ],
)
def test_every_flag_is_there_once(words: str, expected: str):
    assert gathered(words.split(), HINTS) == expected.split()


@pytest.mark.parametrize("words", ["--write --no-write", "--no_write --write", "--num-images --write", "--seeds"])
def test_switches_contradict_and_values_are_needed(words: str):
    with pytest.raises(UserError, match=r"contradict each other; give --write once|needs a value"):
        gathered(words.split(), HINTS)


def test_an_empty_word_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Path("") is the current folder, which nobody asked for."""
    monkeypatch.chdir(tmp_path)
    for words in (["export", ""], ["world", "--data", ""]):
        assert cli.run(words) == 2
        assert re.search(r"is empty; give it a value or leave it out", capsys.readouterr().err)


def test_a_leading_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    words = gathered(
        ["world", "~", "a~/x", "./~/x", "--data=~/x", "--sheets", "~/s"], {"--data": Path, "--sheets": Path}
    )
    assert words == ["world", "/home/somebody", "a~/x", "./~/x", "--data=/home/somebody/x", "--sheets=/home/somebody/s"]


MODES = [
    ("check --accept --scale desk", "--accept takes every published record; leave out --scale"),
    ("check --accept --runs r", "leave out --runs"),
    ("check --accept --data d --runs r", "leave out --runs, --data"),
    ("tables --write --scale smoke", "--write shows published records alone; leave out --scale"),
    ("tables --write --runs r --recipes-dir d", "leave out --runs, --recipes-dir"),
]


@pytest.mark.parametrize(("line", "said"), MODES)
def test_a_flag_that_a_mode_would_ignore_is_refused(line: str, said: str, capsys: pytest.CaptureFixture[str]):
    assert cli.run(line.split()) == 2
    assert said in capsys.readouterr().err
