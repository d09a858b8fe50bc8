"""A run killed at any point, started again, ends with the bits of one that was not, whatever of the engine it uses.
Whether every recipe keeps its state where the engine finds it is for test_every_recipe.py."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import (
    Processes,
    at_write,
    chance,
    die_in_write,
    drawn_images,
    in_processes,
    on_cpu,
    run,
    run_and_die,
    run_and_stop,
)
from tiny_methods import FEATURES, UNTRAINED

from benchmark.backbones.weights import read_facts
from benchmark.core import distributed, provenance
from benchmark.core.optimisation import Steps
from benchmark.engine import progress
from benchmark.engine.train import pretrain

KILLS = 2
DELAYS_SECONDS = (0.0, 0.02)  # about one step


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return drawn_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("name", FEATURES)
def test_killed_at_random_points_it_ends_with_the_same_bits(
    name: str, processes: int, alone: Processes, pair: Processes, images, tmp_path: Path
):
    recipe, kept = FEATURES[name], {1: alone, 2: pair}[processes]
    whole = kept.run(run, recipe, images, tmp_path / "whole", on_cpu(checkpoint_seconds=60))
    assert [outcome.error for outcome in whole] == [None] * processes
    random = chance(name, processes)
    for attempt in range(KILLS):
        victim = random.randrange(processes)
        point = random.randint(1, 3), random.uniform(*DELAYS_SECONDS)
        machine = on_cpu(workers=2 if attempt == 0 else 0)
        died = in_processes(processes, _run_with_victim, victim, recipe, images, tmp_path / "killed", machine, *point)
        assert died[victim].exit_code == -9, died
        for rank in set(range(processes)) - {victim}:
            if died[rank].error is None:  # the victim had nothing left to do with it
                assert (tmp_path / "killed/backbone.safetensors").exists(), died
                continue
            assert died[rank].error_type == "UserError", died
            assert "another process of this run has ended" in str(died[rank].error)
    ended = kept.run(run, recipe, images, tmp_path / "killed", on_cpu())
    assert [outcome.value == whole[0].value for outcome in ended] == [True] * processes, ended
    left = {path.name for path in (tmp_path / "killed").iterdir()} - {
        "method.safetensors"
    }  # not every method's is kept
    assert left == {".lock", "backbone.safetensors", "log.jsonl", "tensorboard"}


WRITING = {name: FEATURES[name] for name in ("one loss", "sharded bank")} | {"nothing trained": UNTRAINED}


@pytest.mark.parametrize("name", WRITING)
def test_killed_in_the_middle_of_a_file_it_ends_with_the_same_bits(name: str, alone: Processes, images, tmp_path: Path):
    """Also where nothing is trained: there the backbone is the only file, and no step is there to be killed in."""
    [whole] = alone.run(_run_and_count_writes, WRITING[name], images, tmp_path / "whole", on_cpu())
    file, writes = whole.value
    # the log, a checkpoint after every step but the last, of two files where there are shards, and the backbone
    assert writes == {"one loss": 8, "sharded bank": 14, "nothing trained": 1}[name]
    number = chance(name).randint(1, writes)
    [died] = in_processes(1, _run_and_die_in_write, number, WRITING[name], images, tmp_path / "killed", on_cpu())
    assert died.exit_code == -9, died
    assert not (tmp_path / "killed/backbone.safetensors").exists()
    [ended] = alone.run(run, WRITING[name], images, tmp_path / "killed", on_cpu())
    assert ended.value == file
    assert not [path for path in (tmp_path / "killed").iterdir() if path.name.startswith(".") and path.name != ".lock"]


def _run_and_count_writes(*arguments) -> tuple[bytes, int]:
    flush = os.fsync
    writes = at_write(0, lambda _: None)
    file = run(*arguments)
    os.fsync = flush
    return file, writes()


def _run_and_die_in_write(number: int, *arguments) -> None:
    die_in_write(number)
    run(*arguments)


def _run_with_victim(victim: int, *arguments) -> None:
    if distributed.rank() == victim:
        run_and_die(*arguments)
    else:
        run(*arguments[:4])


def test_shards_of_a_bank_are_restored_to_the_same_bits(pair: Processes, images, tmp_path: Path):
    recipe = FEATURES["sharded bank"]
    whole = pair.run(run, recipe, images, tmp_path / "whole", on_cpu())
    killed = in_processes(2, _run_with_victim, 1, recipe, images, tmp_path / "killed", on_cpu(), 3, 0.0)
    assert killed[1].exit_code == -9
    assert len(list((tmp_path / "killed").glob("checkpoint.shard*.pt"))) >= 2
    ended = pair.run(run, recipe, images, tmp_path / "killed", on_cpu())
    assert [outcome.error for outcome in [*whole, *ended]] == [None] * 4
    assert ended[0].value == whole[0].value


def test_a_checkpoint_of_more_processes_is_refused(alone: Processes, images, tmp_path: Path):
    recipe = FEATURES["sharded bank"]
    in_processes(2, _run_with_victim, 0, recipe, images, tmp_path / "run", on_cpu(), 3, 0.0)
    [refused] = alone.run(run, recipe, images, tmp_path / "run", on_cpu())
    assert refused.error_type == "UserError"
    assert "world_size was 2, now 1" in str(refused.error)


def test_a_finished_run_returns_at_once_and_is_not_written_again(images, tmp_path: Path):
    for number, recipe in enumerate((UNTRAINED, FEATURES["bank"])):
        folder = tmp_path / str(number)
        path = pretrain(recipe, "small", images, folder, on_cpu())
        (folder / "checkpoint.pt").write_bytes(b"left by a kill between the backbone and the clearing")
        written = path.stat().st_mtime_ns
        assert pretrain(recipe, "small", images, folder, on_cpu()).stat().st_mtime_ns == written
        assert not (folder / "checkpoint.pt").exists()


def test_the_log_has_every_step_once_after_a_kill(images, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    recipe, folder = FEATURES["one loss"], tmp_path / "run"
    [killed] = in_processes(1, run_and_die, recipe, images, folder, on_cpu(), 3, 0.0)
    assert killed.exit_code == -9
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"step": 2, "loss/ma')  # what a kill in the middle of a line leaves
    [ended] = in_processes(1, run, recipe, images, folder, on_cpu())
    assert ended.error is None
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(7)]
    assert all(line.keys() >= {"loss/main", "lr/main", "epoch"} for line in lines)
    paced = [line for line in lines if "images_per_s" in line]
    assert [line["step"] for line in paced] == [1, 3, 4, 5, 6], "all but the first of each start"
    assert all(line["images_per_s"] > 0 and 0 <= line["waiting_for_data"] <= 1 for line in paced)
    assert any(path.name.startswith("events.out.tfevents") for path in (folder / "tensorboard").iterdir())


@pytest.mark.parametrize(("steps", "averaged"), [(5, 3), (2, 2)])  # three steps are an epoch
def test_the_file_says_what_the_last_losses_came_to(steps: int, averaged: int, images, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    recipe = replace(FEATURES["bank"], length=Steps(steps))
    file = pretrain(recipe, "small", images, tmp_path, on_cpu())
    lines = [json.loads(line)["loss/main"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(set(lines)) == steps
    origin = read_facts(file)["origin"]
    assert origin["losses"] == {"loss/main": pytest.approx(fmean(lines[-averaged:]), rel=1e-12)}
    parts: list[float | None] = [None] * 20
    for step, loss in enumerate(lines):
        parts[step * 20 // steps] = loss
    assert origin["loss_course"] == {"loss/main": [loss and pytest.approx(loss, rel=1e-6) for loss in parts]}


def test_the_file_says_what_the_losses_were_in_each_twentieth_of_a_run(images, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    file = pretrain(replace(FEATURES["bank"], length=Steps(50)), "small", images, tmp_path, on_cpu())
    lines = [json.loads(line)["loss/main"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    [course] = read_facts(file)["origin"]["loss_course"].values()
    assert course[:2] == [pytest.approx(fmean(lines[:3]), rel=1e-6), pytest.approx(fmean(lines[3:5]), rel=1e-6)]
    assert course[19] == pytest.approx(fmean(lines[48:]), rel=1e-6)


def test_losses_of_before_a_kill_count(images, tmp_path: Path):
    """The sixth of seven steps is killed; the mean is over the last three."""
    recipe = FEATURES["bank"]
    [whole] = in_processes(1, run, recipe, images, tmp_path / "whole", on_cpu())
    [died] = in_processes(1, run_and_die, recipe, images, tmp_path / "killed", on_cpu(), 6, 0.0)
    assert died.exit_code == -9
    [ended] = in_processes(1, run, recipe, images, tmp_path / "killed", on_cpu(workers=2))
    assert ended.value == whole.value


def test_a_run_that_goes_on_under_other_code_says_so_for_both_halves(alone: Processes, images, tmp_path: Path):
    recipe = FEATURES["one loss"]
    assert alone.run(run, recipe, images, tmp_path / "whole", on_cpu())[0].error is None
    assert "stretches" not in _made_by(tmp_path / "whole")
    for code, steps in (("a", 2), ("a", 1), ("b", 2)):
        [outcome] = alone.run(_stopped_under, code, recipe, images, tmp_path / "run", on_cpu(), steps)
        told = f"goes on at step 3 after a change, which the record will say: sslbench code {'a' * 12} -> {'b' * 12}"
        assert outcome.error is None
        assert (told in outcome.value) is (code == "b"), outcome
    [outcome] = alone.run(_ended_under, "c", recipe, images, tmp_path / "run", on_cpu())
    assert f"goes on at step 5 after a change, which the record will say: sslbench code {'b' * 12}" in outcome.value
    made_by = _made_by(tmp_path / "run")
    codes = [(one["first_step"], one["versions"]["sslbench code"][0]) for one in made_by["stretches"]]
    assert codes == [(0, "a"), (3, "b"), (5, "c")]
    assert all(one["commit"] == made_by["commit"] for one in made_by["stretches"])
    assert made_by["versions"]["sslbench code"] == "c" * 12
    weights = [load_file(tmp_path / one / "backbone.safetensors") for one in ("whole", "run")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0]), "no number is another for that"


def test_a_checkpoint_from_before_its_code_was_kept_is_resumed(alone: Processes, images, tmp_path: Path):
    recipe, file = FEATURES["one loss"], tmp_path / "checkpoint.pt"
    [stopped] = alone.run(_stopped_under, "a", recipe, images, tmp_path, on_cpu(), 2)
    assert stopped.error is None
    state = torch.load(file, weights_only=True)
    del state["made_by"]
    torch.save(state, file)
    [outcome] = alone.run(_ended_under, "a", recipe, images, tmp_path, on_cpu())
    assert "goes on at step 2 after a change" in outcome.value
    assert "by what code it began was not kept then" in outcome.value
    assert _made_by(tmp_path)["stretches"][0]["commit"] == ""


def _made_by(folder: Path) -> dict[str, Any]:
    return read_facts(folder / "backbone.safetensors")["origin"]["made_by"]


def _stopped_under(code: str, *arguments) -> str:
    return _under(code, run_and_stop, *arguments)


def _ended_under(code: str, *arguments) -> str:
    return _under(code, run, *arguments)


def _under(code: str, action: Callable[..., object], *arguments) -> str:
    """What is printed by code with that hash."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.setattr(provenance, "code_hash", lambda: code * 12)
        action(*arguments)
    return out.getvalue()


def test_processes_with_unlike_code_do_not_train_together(pair: Processes, images, tmp_path: Path):
    for outcome in pair.run(_with_code_of_its_own, FEATURES["one loss"], images, tmp_path, on_cpu()):
        assert outcome.error_type == "UserError"
        assert "do not have the same code of the benchmark: 000000000000 in process 0, 1111" in str(outcome.error)


def _with_code_of_its_own(*arguments) -> None:
    _under(str(distributed.rank()), run, *arguments)


def test_what_is_not_trained_has_no_losses(images, tmp_path: Path):
    assert read_facts(pretrain(UNTRAINED, "small", images, tmp_path, on_cpu()))["origin"]["losses"] == {}


def test_tensorboard_reads_the_losses_of_the_log(images, tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"
    pretrain(FEATURES["bank"], "small", images, folder, on_cpu())
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    seen = {event.step: event.value for event in events.Scalars("loss/main")}
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert seen == pytest.approx({line["step"]: line["loss/main"] for line in lines})


def test_the_first_line_of_a_log_comes_with_the_first_step(capsys):
    with progress.Display("title", total=1000) as display:
        display.update(1, {"loss": 2.5})
        display.update(2, {"loss": 2.25})  # within LOG_SECONDS: not said
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("title  1/1000  loss 2.5")


def test_the_pace_is_told_by_the_clock_around_the_wait(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def loaded(seconds: float) -> Iterator[int]:
        for number in range(5):
            clock.now += 30 if number == 0 else seconds  # the loader processes start
            yield number

    pace, told = progress.Pace(batch_size=64), []
    for number in pace.timed(loaded(3)):
        clock.now += 1  # the step
        if number in (0, 2, 4):
            told.append(pace.since_last())
            clock.now += 10 if number == 2 else 0  # what comes between steps, such as a checkpoint
    assert told[0] == {}
    assert told[1] == {"steps_per_s": 2 / 8, "images_per_s": 2 * 64 / 8, "waiting_for_data": 6 / 8}
    assert told[2] == {"steps_per_s": 2 / 18, "images_per_s": 2 * 64 / 18, "waiting_for_data": 6 / 18}
