"""A signal that announces the end finds a checkpoint written; a job that was put back goes on to the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_runs import Processes, drawn_images, in_processes, on_cpu, run
from tiny_methods import FEATURES

from benchmark import cli
from benchmark.core import distributed, processes
from benchmark.core.errors import UserError
from benchmark.engine import train
from benchmark.runs import launchers
from benchmark.runs.launchers import Job, Slurm, slurm

STEPS_DONE = 3


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    return drawn_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize(("name", "told"), [("one loss", [0, 1]), ("one loss", [1]), ("sharded bank", [0, 1])])
def test_sigterm_ends_a_run_with_a_checkpoint_of_the_step(
    name: str, told: list[int], pair: Processes, images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also where it comes to one process alone, as by `kill`, and to the loaders."""
    monkeypatch.setattr(train, "LOG_SECONDS", 0.0 if told == [1] else 600.0)
    recipe = FEATURES[name]
    whole = pair.run(run, recipe, images, tmp_path / "whole", on_cpu(checkpoint_seconds=600))
    ended = in_processes(2, _sent_sigterm, told, recipe, images, tmp_path / "stopped")
    for rank, outcome in enumerate(ended):
        assert outcome.exit_code == -signal.SIGTERM or "another process" in str(outcome.error), (rank, outcome)
    assert ended[told[0]].exit_code == -signal.SIGTERM
    checkpoint = torch.load(tmp_path / "stopped/checkpoint.pt", weights_only=True)
    assert checkpoint["step"] == STEPS_DONE
    again = pair.run(run, recipe, images, tmp_path / "stopped", on_cpu(checkpoint_seconds=600))
    assert [outcome.value for outcome in again] == [outcome.value for outcome in whole]


def _sent_sigterm(told: list[int], recipe: Any, images: Any, folder: Path) -> None:
    kills = [signal.SIGTERM] if distributed.rank() in told else []
    train.train_step = _at_step(STEPS_DONE, kills)
    run(recipe, images, folder, on_cpu(workers=1, checkpoint_seconds=600))


def _at_step(number: int, kills: list[signal.Signals]) -> Any:
    """The engine's step, in the middle of which the signals come from elsewhere to this process and its loaders."""
    import multiprocessing

    step, done = train.train_step, 0

    def counted(*arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done == number:
            for kind in kills:
                all_of_it = [*multiprocessing.active_children(), multiprocessing.current_process()]
                subprocess.run(["kill", f"-{kind.value}", *(str(one.pid) for one in all_of_it)], check=True)
        return step(*arguments)

    return counted


def test_what_handled_a_signal_before_acts_after_the_checkpoint(images: Any, tmp_path: Path):
    """The run then goes on where that lets it, as a job of Slurm does after SIGTERM."""
    [outcome] = in_processes(1, _handled, images, tmp_path)
    assert outcome.value == [(signal.SIGTERM, STEPS_DONE), (signal.SIGUSR2, STEPS_DONE)]
    assert (tmp_path / "backbone.safetensors").is_file()


def _handled(images: Any, folder: Path) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []

    def handler(number: int, frame: object) -> None:
        seen.append((number, torch.load(folder / "checkpoint.pt", weights_only=True)["step"]))

    for kind in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(kind, handler)
    train.train_step = _at_step(STEPS_DONE, [signal.SIGTERM, signal.SIGUSR2])
    run(FEATURES["one loss"], images, folder, on_cpu(workers=1, checkpoint_seconds=600))
    assert signal.getsignal(signal.SIGTERM) is handler
    return seen


def test_before_a_pass_over_the_images_all_is_saved(images: Any, tmp_path: Path):
    """A signal acts at once there, since the pass may take longer than there is time."""
    [outcome] = in_processes(1, _killed_in_a_pass, images, tmp_path)
    assert outcome.exit_code == -signal.SIGTERM
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3  # steps of an epoch


def _killed_in_a_pass(images: Any, folder: Path) -> None:
    begun = train._begun

    def killed(begin: Any, recipe: Any, epoch: int, embed_all: Any) -> None:
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        begun(begin, recipe, epoch, embed_all)

    train._begun = killed
    run(FEATURES["assigned order"], images, folder, on_cpu(checkpoint_seconds=600))


def test_a_job_is_put_back_and_ends_with_the_same_bits(
    pair: Processes, images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By submitit's executor for this machine: two tasks on the path that Slurm's jobs take."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    whole = pair.run(run, FEATURES["one loss"], images, tmp_path / "whole", on_cpu(checkpoint_seconds=600))
    cluster = Slurm({"ntasks_per_node": 2, "time": 60}, tmp_path / "jobs", "local")
    cluster.submit("a_run", partial(_train, images, tmp_path / "stopped"))
    cluster.submitted[0].results()
    assert (tmp_path / "starts").read_text() == "11"
    assert (tmp_path / "stopped" / "backbone.safetensors").read_bytes() == whole[0].value


def _train(images: Any, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.start("cpu")
    assert distributed.world_size() == 2
    if distributed.rank() == 0:
        with (folder.parent / "starts").open("a") as file:
            file.write("1")
    resumes = (folder / "checkpoint.pt").is_file()
    train.train_step = _at_step(STEPS_DONE, [] if resumes else [signal.SIGUSR2])
    run(FEATURES["one loss"], images, folder, on_cpu(checkpoint_seconds=600))
    distributed.stop()


def test_a_job_keeps_freed_memory_as_the_command_does(monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []
    monkeypatch.setattr(launchers, "keep_freed_memory", lambda: done.append("kept"))
    Job(lambda: done.append("worked")).run_alone()
    assert done == ["kept", "worked"]


def test_a_job_that_failed_ends_as_the_command_would(capsys: pytest.CaptureFixture[str]):
    def refused() -> int:
        raise UserError("there is no data")

    for work, status in ((refused, 2), (lambda: 1, 1)):
        with pytest.raises(SystemExit) as ended:
            Job(work).run_alone()
        assert ended.value.code == status
    assert "sslbench: there is no data" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["partition", "=gpu", "time=1-00:00:00", "nodes=0", "Partition=gpu", "partition=", "ntasks=2"]
)
def test_what_is_no_option_of_sbatch_is_refused(text: str):
    with pytest.raises(UserError, match="--slurm"):
        slurm([text], Path("runs"))


def test_options_may_be_spelt_as_sbatch_spells_them(tmp_path: Path):
    made = slurm(["--ntasks-per-node=4", "nodes=2", "partition=gpu", "gpus-per-task=1"], tmp_path)
    assert made.tasks == 8
    assert made.options == {"time": 1440, "ntasks_per_node": 4, "nodes": 2, "partition": "gpu", "gpus_per_task": 1}


@pytest.mark.parametrize(("process", "seen", "own"), [(0, 8, 0), (5, 8, 5), (5, 1, 0), (5, 2, 1)])
def test_each_process_of_a_machine_has_a_gpu(process: int, seen: int, own: int, monkeypatch: pytest.MonkeyPatch):
    """Also where it sees no other's, as with --slurm gpus-per-task=1."""
    taken: list[str] = []
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("LOCAL_RANK", str(process))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert str(distributed.start("cuda")) == f"cuda:{own}"
    assert taken == [f"cuda:{own}"]


@pytest.mark.parametrize(("names", "shared"), [(["GPU-1", "GPU-2"], False), (["GPU-1", "GPU-1"], True)])
def test_processes_that_share_a_gpu_are_refused(pair: Processes, names: list[str], shared: bool):
    outcomes = pair.run(_own_gpu, names)
    assert ["2 processes and fewer GPUs (1)" in str(outcome.error) for outcome in outcomes] == [shared] * 2


def _own_gpu(names: list[str]) -> None:
    distributed._require_own_gpu(names[distributed.rank()])


def test_without_a_cluster_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PATH", str(tmp_path))
    line = ["pretrain", "rotation", "--scale", "smoke", "--runs", str(tmp_path / "runs")]
    assert cli.run([*line, "--launcher", "slurm"]) == 2
    assert "no job could be submitted" in capsys.readouterr().err
    assert cli.run([*line, "--slurm", "nodes=2"]) == 2
    assert "--slurm is for --launcher slurm" in capsys.readouterr().err


def test_the_command_ends_by_sigterm_as_by_an_interrupt(monkeypatch: pytest.MonkeyPatch, capsys):  # type: ignore[no-untyped-def]
    monkeypatch.setattr(cli.app, "cli", lambda **_: processes.raise_terminated(signal.SIGTERM, None))
    assert cli.run(["list"]) == 143
    assert "picks up where this one left off" in capsys.readouterr().err


def test_loaders_are_as_many_as_slurm_gives_a_task(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 96)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert processes.default_loaders(beside_gpu=True) == 11
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "10")
    assert processes.default_loaders(beside_gpu=True) == 9
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "80")  # one task, which is torchrun
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert processes.default_loaders(beside_gpu=True) == 9


def test_a_job_that_is_refused_names_those_that_were_submitted_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # so there is no sbatch
    before = slurm([], tmp_path)
    before.submitted.extend([SimpleNamespace(job_id=7), SimpleNamespace(job_id=8)])
    with pytest.raises(UserError, match=r"for tables: .*`scancel 7 8` cancels them"):
        before.submit("tables", int)
