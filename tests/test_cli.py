"""Commands: help that comes at once, bad input told in one line with status 2, interruption without a traceback."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Annotated

import pytest
import torch
import tyro
from tyro.conf import arg

from benchmark import cli
from benchmark.core.processes import default_loaders
from benchmark.recipe.contract import recipe_hash
from benchmark.recipe.scales import Scale, at_scale
from benchmark.runs.reproduce import jobs_by_default, loaders_of_each

COMMANDS = (
    *("list", "plan", "world", "doctor", "pretrain", "transfer", "reproduce", "tables", "speed", "publish"),
    *("check", "show", "export", "leaderboards", "propose", "import"),
)
RUNNING = ("pretrain", "plan", "speed", "reproduce")  # those that take a RECIPE, and transfer


def run(*arguments: str) -> int:
    try:
        return cli.run(arguments)
    except SystemExit as stop:  # how the parser itself ends
        return int(stop.code or 0)


def test_help_names_every_command_and_needs_no_torch(capsys: pytest.CaptureFixture[str]):
    code = "import sys, benchmark.cli as c\ntry: c.run(['--help'])\nexcept SystemExit: sys.exit('torch' in sys.modules)"
    started = time.process_time()
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
    assert time.process_time() - started < 1
    run("--help")
    shown = capsys.readouterr().out
    assert all(command in shown for command in COMMANDS)


# what stands between an option and its help: INT, {paper,desk}, {None}|PATH, [INT [INT ...]], KEY=VALUE
METAVAR = r"(?: (?:\{[^}]*\}(?:\|[A-Z]+)?|\[[A-Z .\[\]]+\]|[A-Z]+(?:=[A-Z]+)?))?"


def unexplained(shown: str) -> list[str]:
    """Options of a --help text that only their default follows."""
    text = " ".join(shown.replace("│", " ").split())
    return re.findall(rf"(--[a-z-]+){METAVAR} \((?:default|required)", text)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_is_explained(command: str, capsys: pytest.CaptureFixture[str]):
    assert run(command, "--help") == 0
    assert unexplained(capsys.readouterr().out) == []


def test_an_option_without_an_explanation_would_be_found(capsys: pytest.CaptureFixture[str]):
    def command(  # one of each kind that a command here has
        whole: int,
        scale: cli.Scale = "desk",
        data: Path | None = None,
        seeds: tuple[int, ...] = (0,),
        write: bool = False,
        told: Annotated[int, arg(help="Told.")] = 0,
        named: Annotated[tuple[str, ...], arg(metavar="KEY=VALUE")] = (),
    ) -> None: ...

    with pytest.raises(SystemExit):
        tyro.cli(command, args=["--help"])
    shown = capsys.readouterr().out
    assert "--told" in shown
    assert unexplained(shown) == ["--whole", "--scale", "--data", "--seeds", "--no-write", "--named"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pretrain supervized", "no recipe 'supervized' (did you mean supervised"),
        *((f"{command} infomin", "`sslbench show infomin` shows its numbers") for command in RUNNING),
        *((f"{command} supervized", "did you mean supervised") for command in RUNNING),
        *((f"{command} my.pth", "my.pth: a file, not a recipe's name") for command in RUNNING),
        ("transfer my.pth voc07_svm_goyal", "other weights get a name by `sslbench import FILE --as NAME`"),
        ("transfer runs/mine/weights voc07_svm_goyal", "a file, not a recipe's name. What `sslbench pretrain RECIPE`"),
        (
            "transfer infomin voc07_svm_goyal",
            "infomin: InfoMin is in the ledger as papers report it, and no recipe here runs it",
        ),
        ("transfer infomin@batch_size=64 voc07_svm_goyal", "no recipe here runs it"),
        ("transfer infomin_aug voc07_svm_goyal", "`sslbench show infomin`"),
        ("transfer supervized voc07_svm_goyal", "no recipe and no run 'supervized' (did you mean supervised"),
        ("pretrain rotnet", "no recipe 'rotnet'; here it is called rotation"),
        ("pretrain recipes/pirl.py", "--recipes-dir takes a folder of your own recipe files"),
        ("transfer pirl voc07_svm_goyal", "`sslbench pretrain pirl --scale desk --seed 0` makes it"),
        ("transfer pirl@batch_size=64 voc07_svm_goyal", "--seed 0` and the settings that were changed"),
        ("plan supervised --recipe.batch-sise 3", "did you mean batch_size"),
        ("plan supervised --recipe.batch-size", "needs a value"),
        ("transfer supervised linear_imagenet_prl", "no transfer 'linear_imagenet_prl' (did you mean"),
        ("transfer supervised voc07_svm_goyal --runs nowhere", "`sslbench pretrain supervised --scale desk --seed 0`"),
        ("pretrain supervised --scale paper", "give --data DIR"),
        *((f"{command} supervised --data nowhere", "--data nowhere: there is no such folder") for command in RUNNING),
        ("world --scale paper", "only desk and smoke have a drawn world"),
        ("reproduce", "name a recipe, or --tables-of a paper"),
        ("reproduce --tables-of nobody", "no tables of 'nobody'"),
        ("publish nowhere", "no records there"),
        ("list --recipes-dir nowhere", "no such folder of recipes"),
        ("list --transfers-dir nowhere", "nowhere: no such folder of transfers"),
        ("plan pirl --processes 0", "--processes must be 1 or more, not 0"),
        ("plan pirl --num-images 0", "--num-images must be 1 or more, not 0"),
        ("plan pirl --num-images -5", "--num-images must be 1 or more, not -5"),
        ("plan pirl --utilisation 0", "--utilisation must be more than 0, at most 1, not 0"),
        ("plan pirl --utilisation nan", "--utilisation must be"),
        ("plan pirl --peak-tflops 0", "--peak-tflops must be more than 0, not 0"),
        ("plan pirl --peak-tflops inf", "--peak-tflops must be"),
        ("plan pirl --recipe.batch-size 0", "--recipe.batch_size 0: Recipe: batch_size must be at least 1"),
        ("plan pirl --recipe.method.crop-area (0.3,)", "(0.3,) has the wrong type; expected tuple[float, float]"),
        ("plan pirl --recipe.method.jitter (0.4,0.4)", "has the wrong type"),
        ("plan pirl --recipe.method.patch-size 200", "patches of 200 pixels do not fit"),
        ("pretrain pirl --seed -1", "--seed must be 0 or more"),
        ("pretrain pirl --seed 99999999999", "--seed must be 0 or more, at most 4294967295"),
        ("pretrain pirl --workers -1", "--workers must be 0 or more, not -1"),
        ("pretrain pirl --device foo", "--device must be auto, cpu, cuda or cuda:NUMBER, not 'foo'"),
        ("transfer pirl voc07_svm_goyal --seed -1", "--seed must be 0 or more"),
        ("transfer pirl voc07_svm_goyal --device foo", "--device must be"),
        ("transfer pirl", "name a TRANSFER to score pirl under"),
        ("reproduce pirl --seeds", "--seeds needs a value"),
        ("reproduce pirl --seeds 0 -1", "--seeds must be 0 or more"),
        ("speed pirl --rounds 0", "--rounds must be 1 or more, not 0"),
        ("speed pirl --workers -1", "--workers must be 0 or more"),
        ("world --seed 1", "--seed 1 needs --data DIR"),
        ("world --scale smoke --seed 2", "other commands keep data/smoke drawn with seed 0"),
        ("world --seed -1 --data nowhere", "--seed must be 0 or more"),
        ("publish", "name a run's folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    line: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)  # where nothing has been run yet
    assert run(*line.split()) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == [], "it is refused before anything is drawn or written"


@pytest.mark.parametrize("name", ["supervised@batch_size=64", "of_my_own", "infomin"])
def test_a_run_that_is_there_is_scored_whatever_its_recipe(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("benchmark.runs.current.is_scored", lambda *_: True)
    monkeypatch.setattr("benchmark.runs.scoring.refusal", lambda *_: "")  # the file below is empty
    folder = tmp_path / "smoke" / name / "seed0"
    folder.mkdir(parents=True)
    line = ["transfer", name, "voc07_svm_goyal", "--scale", "smoke", "--data", str(tmp_path), "--runs", str(tmp_path)]
    assert run(*line) == 2
    assert f"`sslbench pretrain {name.partition('@')[0]} --scale smoke" in capsys.readouterr().err
    (folder / "backbone.safetensors").touch()
    assert run(*line) == 0
    assert f"record: {folder}/voc07_svm_goyal.json" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["frobnicate", "plan supervised --scale big", "plan supervised --no-such", "plan"])
def test_the_parser_refuses_with_status_2(line: str, capsys: pytest.CaptureFixture[str]):
    assert run(*line.split()) == 2
    assert "Traceback" not in "".join(capsys.readouterr())


def test_an_interruption_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.app, "cli", interrupted)
    assert run("list") == 130
    assert capsys.readouterr().err == "sslbench: stopped; the same command picks up where this one left off\n"


def test_changed_settings_make_a_run_of_their_own():
    name, recipe = cli._chosen("supervised", ("batch-size=32", "method.crop_area=(0.4,1.0)"), None, "desk")
    plain, original = cli._chosen("supervised", (), None, "desk")
    assert (name, plain) == ("supervised@batch_size=32,method.crop_area=-0.4-1.0-", "supervised")
    assert recipe_hash(at_scale(recipe, "desk")) != recipe_hash(at_scale(original, "desk"))
    assert at_scale(recipe, "desk").batch_size == 32  # although the desk scale itself sets another


def test_the_version_is_told_with_the_commit(capsys: pytest.CaptureFixture[str]):
    assert run("--version") == 0
    version = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]["version"]
    commit, code = r"([0-9a-f]{40}(\+dirty)?|unknown)", "[0-9a-f]{12}"
    package = re.escape(importlib.metadata.version("torch"))
    told = capsys.readouterr().out
    assert re.fullmatch(f"sslbench {version}, commit {commit}, code {code}, torch {package}\n", told)


def test_list_shows_recipes_and_transfers(capsys: pytest.CaptureFixture[str]):
    assert run("list") == 0
    shown = capsys.readouterr().out
    assert "supervised" in shown
    assert "voc07_svm_goyal" in shown


def test_plan_of_changed_settings(capsys: pytest.CaptureFixture[str]):
    line = ["plan", "supervised", "--num-images", "100", "--scale", "smoke", "--recipe.backbone.depth", "101"]
    assert run(*line) == 0
    assert "backbone.depth  101" in capsys.readouterr().out


@pytest.mark.parametrize(("scale", "processes"), [("desk", 1), ("paper", 8)])
def test_a_plan_says_for_how_many_processes_it_is(scale: str, processes: int, capsys: pytest.CaptureFixture[str]):
    assert run("plan", "moco", "--scale", scale, "--num-images", "2000") == 0
    assert re.search(rf"^processes +{processes}  set with --processes$", capsys.readouterr().out, re.MULTILINE)


def test_tables_at_paper_scale_need_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run("tables", "--scale", "paper", "--runs", str(tmp_path)) == 0
    assert (tmp_path / "paper" / "tables.md").is_file()
    assert capsys.readouterr().err == ""


def test_tables_are_shown_in_short_and_say_where_the_whole_ones_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run("tables", "--runs", str(tmp_path)) == 0
    told, _, last = capsys.readouterr().out.rstrip().rpartition("\n")
    assert last == f"All tables: {tmp_path / 'desk/tables.md'}"
    shown = told.partition("## Results that no paper's table shows")[0].splitlines()
    wheres = [line.removeprefix("Whole table: ") for line in shown if line.startswith("Whole table: ")]
    assert len(wheres) > 20
    assert all(Path(where).read_text() in (tmp_path / "desk/tables.md").read_text() for where in wheres)
    assert max(len(line) for line in shown if not line.startswith("Whole table: ")) <= 100
    assert not [line for line in shown if line.startswith("|")]


def test_speed_times_data_step_and_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert run("speed", "supervised", "--scale", "smoke", "--rounds", "2", "--workers", "0", "--device", "cpu") == 0
    shown = capsys.readouterr().out
    assert all(what in shown for what in ("data path", "step", "bare backbone", "images/s"))
    assert run("speed", "random_init", "--scale", "smoke") == 2
    assert "nothing is trained" in capsys.readouterr().err


def test_no_traceback_for_a_reader_that_goes_away():
    command = f"{sys.executable} -m benchmark tables --write --help | head -1; exit ${{PIPESTATUS[0]}}"
    root = Path(__file__).parents[1]
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=root, check=False)
    assert "Traceback" not in done.stderr


def test_jobs_share_the_loaders_and_have_one_at_least():
    shares = [loaders_of_each(workers, jobs) for workers, jobs in ((0, 2), (1, 2), (2, 2), (5, 2), (3, 1))]
    assert shares == [0, 1, 1, 2, 3]


@pytest.mark.parametrize(
    ("cores", "processes", "on_cpu", "beside_gpu"),
    [(1, 1, 1, 1), (2, 1, 2, 1), (4, 1, 2, 3), (16, 1, 4, 15), (16, 8, 2, 1), (128, 8, 4, 15), (128, 1, 32, 32)],
)
def test_loaders_are_as_the_cores_allow(
    cores: int, processes: int, on_cpu: int, beside_gpu: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("joblib.cpu_count", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))  # as torchrun sets it
    assert default_loaders(beside_gpu=False) == on_cpu
    assert default_loaders(beside_gpu=True) == beside_gpu


def test_the_number_of_loaders_is_the_flags_or_else_the_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 40)
    assert cli._machine("cpu", None).workers == 10
    assert [cli._machine("cpu", given).workers for given in (0, 3)] == [0, 3]
    monkeypatch.setattr("benchmark.core.distributed.start", lambda _: torch.device("cuda"))
    assert cli._machine("auto", None).workers == 32


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_only_the_cores_that_may_be_used_count():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    code += "from benchmark.core.processes import default_loaders; print(default_loaders(False), default_loaders(True))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 1\n"


@pytest.mark.parametrize(
    ("device", "scale", "expected"), [("cpu", "desk", 2), ("cpu", "paper", 1), ("cuda", "smoke", 1)]
)
def test_a_paper_scale_run_and_a_gpu_are_had_by_one_row(
    device: str, scale: Scale, expected: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert jobs_by_default(scale, device) == expected
