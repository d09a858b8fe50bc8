"""A run killed at any point, started again, ends with the bits of one that was not; for every recipe there is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest
from small_runs import (
    NUM_IMAGES,
    RECIPES,
    TRAINED,
    chance,
    die_in_write,
    drawn_images,
    in_processes,
    on_cpu,
    run,
    run_and_die,
    short,
)

from benchmark.backbones.weights import read_facts
from benchmark.core import distributed
from benchmark.core.optimisation import Steps
from benchmark.engine import progress
from benchmark.engine.train import pretrain, train_steps
from benchmark.recipe.contract import Recipe

KILLS = 2
DELAYS_SECONDS = (0.0, 0.15)  # about one step


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return drawn_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("name", TRAINED)
def test_killed_at_random_points_it_ends_with_the_same_bits(name: str, processes: int, images, tmp_path: Path):
    recipe = TRAINED[name]
    whole = in_processes(processes, run, recipe, images, tmp_path / "whole", on_cpu(checkpoint_seconds=60))
    assert [outcome.error for outcome in whole] == [None] * processes
    random = chance(name, processes)
    for attempt in range(KILLS):
        victim = random.randrange(processes)
        point = random.randint(1, 2), random.uniform(*DELAYS_SECONDS)
        workers = 2 if attempt == 0 else 0
        died = in_processes(
            processes, _run_with_victim, victim, recipe, images, tmp_path / "killed", on_cpu(workers), *point
        )
        assert died[victim].exit_code == -9, died
        for rank in set(range(processes)) - {victim}:
            if died[rank].error is None:  # the victim had nothing left to do with it
                assert (tmp_path / "killed/backbone.safetensors").exists(), died
                continue
            assert died[rank].error_type == "UserError", died
            assert "another process of this run has ended" in str(died[rank].error)
    ended = in_processes(processes, run, recipe, images, tmp_path / "killed", on_cpu(workers=2))
    assert [outcome.value == whole[0].value for outcome in ended] == [True] * processes, ended
    left = {path.name for path in (tmp_path / "killed").iterdir()} - {
        "method.safetensors"
    }  # not every method's is kept
    assert left == {".lock", "backbone.safetensors", "log.jsonl", "tensorboard"}


@pytest.mark.parametrize("name", RECIPES)
def test_killed_in_the_middle_of_a_file_it_ends_with_the_same_bits(name: str, images, tmp_path: Path):
    """Also where nothing is trained: there the backbone is the only file, and no step is there to be killed in."""
    [whole] = in_processes(1, run, RECIPES[name], images, tmp_path / "whole", on_cpu())
    number = chance(name).randint(1, SAVES[name])
    [died] = in_processes(1, _run_and_die_in_write, number, RECIPES[name], images, tmp_path / "killed", on_cpu())
    assert died.exit_code == -9, died
    assert not (tmp_path / "killed/backbone.safetensors").exists()
    [ended] = in_processes(1, run, RECIPES[name], images, tmp_path / "killed", on_cpu())
    assert ended.value == whole.value
    assert not [path for path in (tmp_path / "killed").iterdir() if path.name.startswith(".") and path.name != ".lock"]


# a checkpoint after every step but the last, and the backbone
SAVES = {name: max(train_steps(recipe, NUM_IMAGES), 1) for name, recipe in RECIPES.items()}


def _run_and_die_in_write(number: int, *arguments) -> None:
    die_in_write(number)
    run(*arguments)


def _run_with_victim(victim: int, *arguments) -> None:
    if distributed.rank() == victim:
        run_and_die(*arguments)
    else:
        run(*arguments[:4])


@pytest.mark.parametrize("name", ["pirl", "npid"])
def test_shards_of_a_bank_are_restored_to_the_same_bits(name: str, images, tmp_path: Path):
    recipe = with_sharded_bank(TRAINED[name])
    whole = in_processes(2, run, recipe, images, tmp_path / "whole", on_cpu())
    killed = in_processes(2, _run_with_victim, 1, recipe, images, tmp_path / "killed", on_cpu(), 3, 0.0)
    assert killed[1].exit_code == -9
    assert len(list((tmp_path / "killed").glob("checkpoint.shard*.pt"))) >= 2
    ended = in_processes(2, run, recipe, images, tmp_path / "killed", on_cpu())
    assert [outcome.error for outcome in [*whole, *ended]] == [None] * 4
    assert ended[0].value == whole[0].value


def with_sharded_bank(recipe: Recipe) -> Recipe:
    from benchmark.recipe.contract import with_change

    return with_change(recipe, "method.sharded_bank", True)


def test_a_checkpoint_of_more_processes_is_refused(images, tmp_path: Path):
    recipe = with_sharded_bank(TRAINED["pirl"])
    in_processes(2, _run_with_victim, 0, recipe, images, tmp_path / "run", on_cpu(), 3, 0.0)
    [alone] = in_processes(1, run, recipe, images, tmp_path / "run", on_cpu())
    assert alone.error_type == "UserError"
    assert "world_size was 2, now 1" in str(alone.error)


def test_a_finished_run_returns_at_once_and_is_not_written_again(images, tmp_path: Path):
    for name in ("random_init", "npid_pp"):
        folder = tmp_path / name
        path = pretrain(RECIPES[name], "small", images, folder, on_cpu())
        (folder / "checkpoint.pt").write_bytes(b"left by a kill between the backbone and the clearing")
        before = path.stat().st_mtime_ns
        assert pretrain(RECIPES[name], "small", images, folder, on_cpu()).stat().st_mtime_ns == before
        assert not (folder / "checkpoint.pt").exists()


def test_the_log_has_every_step_once_after_a_kill(images, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    recipe, folder = TRAINED["supervised"], tmp_path / "run"
    [killed] = in_processes(1, run_and_die, recipe, images, folder, on_cpu(), 3, 0.0)
    assert killed.exit_code == -9
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"step": 2, "loss/ma')  # what a kill in the middle of a line leaves
    [ended] = in_processes(1, run, recipe, images, folder, on_cpu())
    assert ended.error is None
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert all(line.keys() >= {"loss/main", "lr/main", "epoch"} for line in lines)
    paced = [line for line in lines if "images_per_s" in line]
    assert [line["step"] for line in paced] == [1, 3], "all but the first of each start"
    assert all(line["images_per_s"] > 0 and 0 <= line["waiting_for_data"] <= 1 for line in paced)
    assert any(path.name.startswith("events.out.tfevents") for path in (folder / "tensorboard").iterdir())


@pytest.mark.parametrize(("steps", "averaged"), [(5, 3), (2, 2)])  # three steps are an epoch
def test_the_file_says_what_the_last_losses_came_to(steps: int, averaged: int, images, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    recipe = short(TRAINED["npid_pp"], length=Steps(steps))
    file = pretrain(recipe, "small", images, tmp_path, on_cpu())
    lines = [json.loads(line)["loss/main"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(set(lines)) == steps
    assert read_facts(file)["origin"]["losses"] == {"loss/main": pytest.approx(fmean(lines[-averaged:]), rel=1e-12)}


def test_losses_of_before_a_kill_count(images, tmp_path: Path):
    """The third of four steps is killed; the mean is over the last three."""
    recipe = TRAINED["npid_pp"]
    [whole] = in_processes(1, run, recipe, images, tmp_path / "whole", on_cpu())
    [died] = in_processes(1, run_and_die, recipe, images, tmp_path / "killed", on_cpu(), 3, 0.0)
    assert died.exit_code == -9
    [ended] = in_processes(1, run, recipe, images, tmp_path / "killed", on_cpu(workers=2))
    assert ended.value == whole.value


def test_what_is_not_trained_has_no_losses(images, tmp_path: Path):
    assert read_facts(pretrain(RECIPES["random_init"], "small", images, tmp_path, on_cpu()))["origin"]["losses"] == {}


def test_tensorboard_reads_the_losses_of_the_log(images, tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"
    pretrain(TRAINED["npid_pp"], "small", images, folder, on_cpu())
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
    assert told[1] == {"images_per_s": 2 * 64 / 8, "waiting_for_data": 6 / 8}
    assert told[2] == {"images_per_s": 2 * 64 / 18, "waiting_for_data": 6 / 18}
