"""What is watched of a run changes nothing of it, is logged once a step, and goes where it is asked to."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import RECIPES, Processes, drawn_images, in_processes, on_cpu, run, run_and_die, run_and_stop
from tiny_methods import FEATURES

from benchmark import cli
from benchmark.backbones.weights import read_facts
from benchmark.core.errors import UserError
from benchmark.core.optimisation import Epochs, Steps
from benchmark.engine.trackers import open_trackers, require_trackers
from benchmark.engine.watch import PublishedLosses, Watch
from benchmark.recipe.contract import recipe_hash
from benchmark.records.record import Record, read_record
from benchmark.runs.probe import TrainingImagesProbe
from benchmark.runs.published_losses import published_losses
from benchmark.runs.run import Run
from benchmark.tables.ledger import LEADERBOARDS

FIGURES = {"knn_top1_percent", "rankme", "alignment", "uniformity", "collapsed_percent"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return drawn_images(tmp_path_factory.mktemp("images"))


def probing(images, steps: int) -> Watch:
    return Watch(TrainingImagesProbe({"drawn": images}, 0, on_cpu()), Steps(steps))


def logged(folder: Path) -> dict[int, set[str]]:
    """Step -> what the probe found after it."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({line["step"] for line in lines}) == len(lines)
    assert all("loss/main" in line for line in lines)
    found = {line["step"]: {key.removeprefix("probe/") for key in line if key.startswith("probe/")} for line in lines}
    return {step: names for step, names in found.items() if names}


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("name", ["bank", "export", "rows of all"])
def test_probed_and_killed_it_ends_with_the_bits_of_a_run_that_nobody_watched(
    name: str, processes: int, alone: Processes, pair: Processes, images, tmp_path: Path
):
    recipe, kept, watch = FEATURES[name], {1: alone, 2: pair}[processes], probing(images, 2)
    plain = kept.run(run, recipe, images, tmp_path / "plain", on_cpu())
    watched = kept.run(run, recipe, images, tmp_path / "watched", on_cpu(workers=1), watch)
    assert [outcome.error for outcome in (*plain, *watched)] == [None] * 2 * processes
    assert watched[0].value == plain[0].value
    assert logged(tmp_path / "plain") == {}
    assert logged(tmp_path / "watched") == dict.fromkeys((1, 3, 5, 6), FIGURES), "every second step, and the last"
    died = in_processes(processes, run_and_die, recipe, images, tmp_path / "killed", on_cpu(), 4, 0.0, watch)
    assert -9 in [outcome.exit_code for outcome in died]
    resumed = kept.run(run, recipe, images, tmp_path / "killed", on_cpu(), watch)
    assert resumed[0].value == plain[0].value
    assert logged(tmp_path / "killed") == logged(tmp_path / "watched")


def meddles(backbone) -> dict[str, float]:
    next(backbone.parameters()).data.add_(1e-3)
    return {}


def test_a_probe_that_changed_the_weights_would_be_noticed(alone: Processes, images, tmp_path: Path):
    recipe = FEATURES["bank"]
    watches = {"plain": Watch(), "meddled": Watch(meddles, Steps(2))}
    plain, meddled = (
        alone.run(run, recipe, images, tmp_path / name, on_cpu(), one)[0] for name, one in watches.items()
    )
    assert (plain.error, meddled.error) == (None, None)
    assert plain.value != meddled.value


def test_it_is_due_by_the_step_alone():
    def due(every: Steps | Epochs, total: int = 10) -> list[int]:
        return [done for done in range(1, total + 1) if Watch(meddles, every).is_due(done, total, steps_per_epoch=4)]

    assert due(Steps(3)) == [3, 6, 9, 10]
    assert due(Epochs(1)) == [4, 8, 10]
    assert due(Epochs(0.5)) == [2, 4, 6, 8, 10]
    assert due(Epochs(0.01), 3) == [1, 2, 3]
    assert not Watch().is_due(10, 10, 4)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--probe-every never", "takes epochs or steps, e.g. 1, 0.5 or 500steps, not 'never'"),
        ("--probe-every 0", "--probe-every must be more than 0"),
        ("--probe-every=-1", "takes epochs or steps"),
        ("--probe-every 1.5steps", "takes epochs or steps"),
        ("--log-to tensorbord", "takes wandb and mlflow, not 'tensorbord'"),
    ],
)
def test_flags_that_say_nothing_are_refused(line: str, said: str, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["pretrain", "supervised", "--scale", "smoke", *line.split()]) == 2
    assert said in capsys.readouterr().err


def test_a_service_that_is_not_installed_is_told_by_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("wandb", "mlflow"):
        with pytest.raises(UserError, match=rf"--log-to {name}: .* pip install 'sslbench\[{name}\]'"):
            require_trackers([name])


NOTE = """
import json
from types import SimpleNamespace
from uuid import uuid4

def note(*what):
    if FAILS and what[0] == "log":
        raise ConnectionError("nobody answers")
    with open(LOG, "a") as file:
        file.write(json.dumps(what) + "\\n")
"""
FAKES = {
    "wandb": """
def init(**named):
    note("begin", named["id"], named["name"], named["config"]["recipe"])
    finish = lambda exit_code: note("end", exit_code != 0)
    return SimpleNamespace(log=lambda figures, step: note("log", step, sorted(figures)), finish=finish)
""",
    "mlflow": """
def set_tracking_uri(uri): pass
def set_experiment(name): pass
def start_run(run_id, run_name):
    own = run_id or uuid4().hex
    note("begin", own, run_name or "small seed 0", "small")
    return SimpleNamespace(info=SimpleNamespace(run_id=own))
def log_params(parameters): pass
def log_metrics(figures, step): note("log", step, sorted(figures))
def end_run(status): note("end", status != "FINISHED")
""",
}


def tracked(name: str, log: Path, fails: bool, function: Callable[..., object], *arguments: object) -> str:
    """Call the function where a stand-in for the service is installed that notes what it gets; what was complained."""
    modules, err = log.parent / "modules", io.StringIO()
    modules.mkdir(exist_ok=True)
    (modules / f"{name}.py").write_text(f"FAILS, LOG = {fails}, {str(log)!r}\n{NOTE}{FAKES[name]}")
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(err):
        patch.syspath_prepend(modules)
        patch.delitem(sys.modules, name, raising=False)
        function(*arguments)
        assert sys.modules.pop(name, None), "imported where it is asked for"
    return err.getvalue()


@pytest.mark.parametrize("name", FAKES)
def test_figures_go_to_the_service_and_a_resumed_run_goes_on_there(name: str, alone: Processes, images, tmp_path: Path):
    recipe, log = FEATURES["one loss"], tmp_path / "log"
    watch = replace(probing(images, 3), trackers=(name,), tracked_in=tmp_path)
    options = (recipe, images, tmp_path / "run", on_cpu())
    for steps in ((run_and_stop, *options, 4, watch), (run, *options, watch)):
        [outcome] = alone.run(tracked, name, log, False, *steps)
        assert (outcome.error, outcome.value) == (None, "")
    noted = [json.loads(line) for line in log.read_text().splitlines()]
    begun = [what[1:] for what in noted if what[0] == "begin"]
    assert begun == [[(tmp_path / f"run/{name}.id").read_text(), "small seed 0", "small"]] * 2
    assert [what for what in noted if what[0] == "end"] == [["end", True], ["end", False]], "stopped, then finished"
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    sent = {what[1]: what[2] for what in noted if what[0] == "log"}
    assert sent == {line.pop("step"): sorted(line) for line in lines}
    assert {"probe/rankme", "loss/main"} <= set(sent[2])


@pytest.mark.parametrize("name", FAKES)
def test_a_service_that_fails_costs_its_curve_and_not_the_run(name: str, alone: Processes, images, tmp_path: Path):
    watch = Watch(trackers=(name,), tracked_in=tmp_path)
    options = (FEATURES["one loss"], images, tmp_path / "run", on_cpu(), watch)
    [outcome] = alone.run(tracked, name, tmp_path / "log", True, run, *options)
    assert outcome.error is None
    assert outcome.value == f"sslbench: {name} gets no more figures (ConnectionError: nobody answers)\n"
    assert (tmp_path / "run/backbone.safetensors").is_file()


def test_nothing_is_imported_that_nobody_asked_for(alone: Processes, images, tmp_path: Path):
    [outcome] = alone.run(_imported_by_a_run, FEATURES["one loss"], images, tmp_path)
    assert outcome.value == []


def _imported_by_a_run(recipe, images, folder: Path) -> list[str]:
    run(recipe, images, folder, on_cpu())
    return [name for name in FAKES if name in sys.modules]


def test_a_service_that_refuses_is_told_by_its_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "wandb.py").write_text("def init(**named): raise ValueError('not logged in')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(UserError, match="--log-to wandb: ValueError: not logged in"):
        open_trackers(["wandb"], tmp_path, tmp_path, "some seed 0", {}, resumes=False)
    monkeypatch.delitem(sys.modules, "wandb")


def published(folder: Path, **changes: object) -> Record:
    """A published record of some recipe at smoke scale, written where it belongs below `folder`."""
    record = replace(read_record(next((LEADERBOARDS / "measured/smoke/pirl").glob("*/seed0.json"))), **changes)
    path = folder / record.published_path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(record.to_bytes())
    return record


def test_normal_is_what_published_runs_with_these_settings_on_this_data_ended_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = RECIPES["supervised"]
    run_ = Run("supervised", "smoke", 0, tmp_path, tmp_path)
    monkeypatch.setattr("benchmark.runs.published_losses.pretraining_fingerprint", lambda *_: "here")
    assert published_losses(run_, recipe, tmp_path) == PublishedLosses()
    own = {"recipe": "supervised", "recipe_hash": recipe_hash(recipe)}

    def origin(loss: float, data: str = "here") -> dict[str, object]:
        course = (
            {} if loss == 1.25 else {"loss_course": {"loss/main": [2 * loss, None, loss]}}
        )  # records of before lack it
        return {"data_fingerprint": data, "losses": {"loss/main": loss}, **course}

    for seed, loss in enumerate((1.5, 1.25)):
        for transfer in ("one", "other"):  # both scored the same backbone
            published(tmp_path, **own, transfer=transfer, seed=seed, origin=origin(loss))
    published(tmp_path, **{**own, "recipe_hash": "another"}, seed=2, origin=origin(7.0))
    published(tmp_path, **own, seed=3, origin=origin(8.0, data="elsewhere"))
    (tmp_path / "smoke/supervised/one/seed4.json").write_text("not a record")
    assert published_losses(run_, recipe, tmp_path) == PublishedLosses(
        {"loss/main": [1.5, 1.25]}, {"loss/main": [[3.0, None, 1.5]]}
    )


def test_the_last_loss_stands_beside_what_is_normal(alone: Processes, images, tmp_path: Path):
    watch = Watch(published=PublishedLosses({"loss/main": [1.5, 1.25]}, {"loss/main": [[2.0] * 10 + [1.0] * 10]}))
    [outcome] = alone.run(_printed, FEATURES["one loss"], images, tmp_path, on_cpu(), watch)
    first, *lines, last, _ = outcome.value.splitlines()
    assert first == "small seed 0  published runs of this recipe end at loss/main 1.25 to 1.5 (2 seeds)"
    mean = read_facts(tmp_path / "backbone.safetensors")["origin"]["losses"]["loss/main"]
    assert "published loss/main 2 (1 seed)" in lines[0]
    assert last == f"small seed 0  ended at loss/main {mean:.4g}; published runs end at loss/main 1.25 to 1.5 (2 seeds)"


def _printed(*arguments) -> str:
    with redirect_stdout(io.StringIO()) as shown:
        run(*arguments)
    return shown.getvalue()
