"""What a command does where its output goes nowhere: the work is done, and the exit status is the work's."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from small_runs import in_processes

from benchmark import cli
from benchmark.core.standard_streams import keep_writable
from benchmark.toyland import build_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"), "smoke", datasets=("imagenet",), progress=False)


def nobody_reads(number: int) -> None:
    """As in `sslbench … | head -1`, once head has ended."""
    reader, writer = os.pipe()
    os.dup2(writer, number)
    os.close(writer)
    os.close(reader)


def disk_is_full(number: int) -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), number)


def only_read(number: int) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), number)


LOST = [(nobody_reads, 0), (os.close, 0), (disk_is_full, 1), (only_read, 1)]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(("lose", "status"), LOST, ids=lambda one: getattr(one, "__name__", ""))
def test_training_goes_on_without_its_output(
    world: Path, tmp_path: Path, lose: Callable[[int], None], status: int, number: int
):
    command = ["pretrain", "rotation", "--scale", "smoke", "--data", str(world), "--runs", str(tmp_path), "--workers=0"]
    [outcome] = in_processes(1, _command, command, lose, (number,))
    assert (outcome.error, outcome.value) == (None, status if number == 1 else 0)
    assert (tmp_path / "smoke/rotation/seed0/backbone.safetensors").is_file()


def test_training_goes_on_without_any_stream_and_no_file_takes_their_place(world: Path, tmp_path: Path):
    command = ["pretrain", "random_init", "--scale", "smoke", "--data", str(world), "--runs", str(tmp_path)]
    [outcome] = in_processes(1, _command, command, os.close, (0, 1, 2))
    assert (outcome.error, outcome.value) == (None, 0)
    [backbone] = tmp_path.rglob("backbone.safetensors")
    assert [path.name for path in backbone.parent.iterdir() if path.stat().st_size == 0] == [".lock"]


@pytest.mark.parametrize("command", [["list"], ["--help"], ["--version"]], ids=" ".join)
@pytest.mark.parametrize(("lose", "status"), LOST, ids=lambda one: getattr(one, "__name__", ""))
def test_a_command_that_prints_ends_well_unless_output_is_lost(
    command: list[str], lose: Callable[[int], None], status: int
):
    [outcome] = in_processes(1, _command, command, lose, (1,))
    assert (outcome.error, outcome.value) == (None, status)


@pytest.mark.parametrize("lose", [nobody_reads, os.close])
def test_a_verdict_is_not_lost_with_its_output(lose: Callable[[int], None], tmp_path: Path):
    """`doctor | head` must not call a bad dataset good."""
    (tmp_path / "imagenet/train/n01440764").mkdir(parents=True)
    [outcome] = in_processes(1, _command, ["doctor", "--data", str(tmp_path)], lose, (1,))
    assert (outcome.error, outcome.value) == (None, 1)


def test_a_pipe_that_is_full_is_waited_for():
    """As some programs hand it over: a write does not wait, but fails."""
    [outcome] = in_processes(1, _fill_a_pipe)
    assert outcome.value == 1 << 18


def _fill_a_pipe() -> int:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.dup2(writer, 1)
    os.close(writer)
    _as_started()
    keep_writable()
    taken = 0

    def take() -> None:
        nonlocal taken
        while part := os.read(reader, 1 << 12):
            taken += len(part)
            time.sleep(0.001)

    thread = threading.Thread(target=take)
    thread.start()
    print("x" * (1 << 18), end="", flush=True)
    os.close(1)
    thread.join()
    return taken


def _command(arguments: list[str], lose: Callable[[int], None], numbers: tuple[int, ...]) -> object:
    """Its exit status, where those streams are lost from the beginning."""
    for number in numbers:
        lose(number)
    _as_started()
    sys.argv = ["sslbench", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        status = end.code
    sys.stdout.flush()  # as at the end of a process
    sys.stderr.flush()
    return status or 0


def _as_started() -> None:
    """The streams as Python makes them of what it finds."""
    for number, (name, mode) in enumerate([("stdin", "r"), ("stdout", "w"), ("stderr", "w")]):
        stream = None
        with suppress(OSError):
            os.fstat(number)
            stream = os.fdopen(number, mode, closefd=False)
        setattr(sys, name, stream)
