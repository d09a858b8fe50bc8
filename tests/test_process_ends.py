"""No process outlives the one that started it, and a loader process that cannot go on is told of: never a wait without
end, never a traceback."""

from __future__ import annotations

import ast
import contextlib
import ctypes
import importlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import drawn_images, in_processes, on_cpu, run
from test_side_by_side import is_alive, until
from tiny_methods import FEATURES

from benchmark.core import distributed, processes
from benchmark.core.errors import UserError
from benchmark.core.processes import end_with_parent
from benchmark.data.image_set import ImageSet
from benchmark.data.loader import Samples, Views, batches, in_order
from benchmark.engine import train
from benchmark.transfers import voc_svm

HARNESS = Path(__file__).parents[1] / "benchmark"
BATCH = [(0, index) for index in range(8)]
PR_GET_PDEATHSIG = 2  # Linux, sys/prctl.h
PIXELS = 400  # so that one batch of views takes 4 MB


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return drawn_images(tmp_path_factory.mktemp("images"))


def large(image: Any) -> dict[str, torch.Tensor]:
    return {"image": torch.zeros(3, PIXELS, PIXELS, dtype=torch.uint8)}


def kills_its_loader(kind: signal.Signals, image: Any) -> dict[str, torch.Tensor]:
    os.kill(os.getpid(), kind)
    time.sleep(60)
    return {}


@pytest.mark.parametrize("moment", ["before it looks", "while it works"])
@pytest.mark.parametrize("platform", [sys.platform, "one without a kernel that tells"])
def test_a_process_ends_with_its_parent_whatever_the_moment(tmp_path: Path, moment: str, platform: str):
    [parent] = in_processes(1, _die_beside_a_child, tmp_path, moment == "before it looks", platform)
    assert parent.exit_code == -signal.SIGKILL
    [child] = [int(path.name) for path in tmp_path.iterdir()]
    assert until(lambda: is_alive(child), lambda alive: not alive) is False


def _die_beside_a_child(folder: Path, early: bool, platform: str) -> None:
    child = multiprocessing.get_context("fork").Process(target=_live_on, args=(folder, os.getpid(), early, platform))
    child.start()
    until(lambda: (folder / str(child.pid)).is_file(), bool)
    os.kill(os.getpid(), signal.SIGKILL)


def _live_on(folder: Path, parent: int, early: bool, platform: str) -> None:
    sys.platform, processes.LOOK_SECONDS = platform, 0.05  # type: ignore[misc]
    if not early:
        end_with_parent()
    (folder / str(os.getpid())).touch()
    until(lambda: os.getppid(), lambda now: now != parent)
    end_with_parent()
    time.sleep(600)


def test_loaders_end_with_a_process_that_dies_while_they_start(images: ImageSet, tmp_path: Path):
    [parent] = in_processes(1, _die_beside_loaders, images, tmp_path)
    assert parent.exit_code == -signal.SIGKILL
    loaders = [int(path.name) for path in tmp_path.iterdir()]
    assert len(loaders) == 2
    assert until(lambda: [one for one in loaders if is_alive(one)], lambda left: not left) == []


def _die_beside_loaders(images: ImageSet, folder: Path) -> None:
    _die_once_two_loaders_start(folder)
    next(batches(Views(images, large, 0), [BATCH, BATCH], 2, labels=False))


def _die_once_two_loaders_start(folder: Path) -> None:
    parent, sink = os.getpid(), os.nice

    def sink_late(by: int) -> None:  # what a loader does before torch's own watch begins
        (folder / str(os.getpid())).touch()
        until(lambda: os.getppid(), lambda now: now != parent)
        sink(by)

    def die() -> None:
        until(lambda: len(list(folder.iterdir())), lambda count: count == 2)
        os.kill(os.getpid(), signal.SIGKILL)

    os.nice = sink_late  # type: ignore[assignment]
    threading.Thread(target=die, daemon=True).start()


def test_a_peer_that_dies_while_its_loaders_start_is_missed_by_the_others(images: ImageSet, tmp_path: Path):
    """Loaders that lived on would hold its connections open, and the others would wait for it without end."""
    (tmp_path / "loaders").mkdir()
    there, died = in_processes(2, _train_or_die, images, tmp_path)
    assert died.exit_code == -signal.SIGKILL
    assert there.error_type == "UserError", there
    assert "another process of this run has ended" in there.error


def _train_or_die(images: ImageSet, folder: Path) -> None:
    if distributed.rank() == 1:
        _die_once_two_loaders_start(folder / "loaders")
    run(FEATURES["one loss"], images, folder / "run", on_cpu(workers=2))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a fork is not safe")
def test_loaders_of_a_job_are_forked_as_any_others_are(images: ImageSet):
    """A job was started afresh, and multiprocessing would start its loaders likewise: seconds and 400 MB for each, and
    all that time no loader looks whether the job still lives."""
    [outcome] = in_processes(1, _kind_of_loader, images)
    assert outcome.value == ["ForkProcess"] * len(BATCH)


def _kind_of_loader(images: ImageSet) -> list[str]:
    multiprocessing.set_start_method("spawn", force=True)  # as in a job
    return next(in_order(Kinds(images, 0), [BATCH], 1))


class Kinds(Samples):
    def sample(self, image: Any, index: int) -> str:
        return type(multiprocessing.current_process()).__name__


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process learns who sent a signal")
def test_a_loader_heeds_its_parent_s_sigterm_alone(images: ImageSet):
    """Slurm sends one to all processes of a job that it preempts, which then needs batches for as long as it may stay.
    A parent that ends sends its loaders one, and waits for them."""
    loaded = in_order(Kinds(images, 0), [BATCH] * 9, 1)
    next(loaded)
    [loader] = multiprocessing.active_children()
    for _ in range(2):
        subprocess.run(["kill", "-TERM", str(loader.pid)], check=True)
        time.sleep(0.2)
    assert len(list(loaded)) == 8
    loaded = in_order(Kinds(images, 0), [BATCH] * 9, 1)
    next(loaded)
    [loader] = multiprocessing.active_children()
    loader.terminate()
    loader.join(timeout=5)
    assert loader.exitcode == 0
    with pytest.raises(UserError, match="a loader process ended unexpectedly"):
        list(loaded)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process learns who sent a signal")
def test_so_does_a_process_of_a_forked_pool():
    with processes.forked_pool(1, os.getpid) as pool:
        worker = pool.submit(os.getpid).result()
        subprocess.run(["kill", "-TERM", str(worker)], check=True)
        time.sleep(0.2)
        assert pool.submit(os.getpid).result() == worker
        os.kill(worker, signal.SIGTERM)
        assert until(lambda: is_alive(worker), lambda alive: not alive) is False


def test_every_process_is_started_where_it_is_told_to_end():
    """Another way to start one needs `end_with_parent` too."""
    starts = {"Process", "ProcessPoolExecutor", "Parallel", "DataLoader", "Popen", "fork", "spawn"}
    found = {
        f"{path.relative_to(HARNESS)}: {name}"
        for path in HARNESS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name | ast.Attribute)
        and (name := node.id if isinstance(node, ast.Name) else node.attr) in starts
    }
    assert found == {"core/processes.py: ProcessPoolExecutor", "data/loader.py: DataLoader"}


def on_little_shared_memory() -> None:
    """Seen by this process and those it starts."""
    if ctypes.CDLL(None).unshare(0x00020000):  # CLONE_NEWNS
        pytest.skip("a mount namespace needs root: run the tests as root to see what a small /dev/shm does")
    assert os.system("mount --make-rprivate / && mount -t tmpfs -o size=1M tmpfs /dev/shm") == 0


def with_a_long_temporary_folder() -> None:
    multiprocessing.current_process()._config.pop("tempdir", None)  # type: ignore[attr-defined]
    tempfile.tempdir = tempfile.mkdtemp() + "/" + "x" * 80
    os.mkdir(tempfile.tempdir)


def with_few_open_files() -> None:
    limit_open_files(24)


def limit_open_files(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@pytest.mark.parametrize(
    ("limit", "views", "said"),
    [
        (on_little_shared_memory, large, ["/dev/shm is too small", "--shm-size", "--workers 0"]),
        (with_a_long_temporary_folder, large, ["too long for a socket", "TMPDIR", "--workers 0"]),
        (with_few_open_files, large, ["ulimit -n", "--workers 0"]),
        (None, "KILL", ["a loader process ended unexpectedly", "memory", "--workers 0"]),
        (None, "BUS", ["a loader process ended unexpectedly", "--shm-size", "--workers 0"]),
    ],
    ids=["shared memory", "temporary folder", "open files", "killed", "bus error"],
)
@pytest.mark.parametrize("kind", ["batches", "samples"])
def test_a_loader_that_cannot_go_on_says_what_to_do(
    images: ImageSet, limit: Callable[[], None] | None, views: Any, said: list[str], kind: str
):
    [outcome] = in_processes(1, _load, images, limit, views, kind)
    if outcome.error_type == "Skipped":
        pytest.skip(outcome.error)
    assert outcome.error_type == "UserError", outcome
    assert [part for part in said if part not in outcome.error] == []


def _load(images: ImageSet, limit: Callable[[], None] | None, views: Any, kind: str) -> int:
    if limit:
        try:
            limit()
        except BaseException as skipped:
            raise type("Skipped", (Exception,), {})(str(skipped)) from None
    if isinstance(views, str):
        number = getattr(signal, f"SIG{views}")
        views = lambda image: kills_its_loader(number, image)  # noqa: E731
    positions = [BATCH] * 40
    if kind == "batches":
        return sum(1 for _ in batches(Views(images, views, 0), positions, 2, labels=False))

    class Made(Samples):
        def sample(self, image: Any, index: int) -> Any:
            return views(image)

    return sum(1 for _ in in_order(Made(images, 0), positions, 2))


def test_what_cannot_be_sent_is_an_error_not_a_wait(images: ImageSet):
    [outcome] = in_processes(1, _load, images, None, lambda image: {"image": torch.zeros(1), "f": lambda: 0}, "samples")
    assert "DataLoader worker process" in outcome.error


def test_a_loader_that_dies_during_a_step_is_told_of_and_the_run_goes_on_from_there(images: ImageSet, tmp_path: Path):
    recipe = FEATURES["one loss"]
    [outcome] = in_processes(1, _lose_a_loader, recipe, images, tmp_path / "run")
    assert outcome.error_type == "UserError", outcome
    assert "a loader process ended unexpectedly" in outcome.error
    assert (tmp_path / "run/checkpoint.pt").is_file()
    ended, whole = (
        in_processes(1, run, recipe, images, tmp_path / name, on_cpu(workers=2))[0].value for name in ("run", "whole")
    )
    assert ended == whole


def _lose_a_loader(recipe: Any, images: ImageSet, folder: Path) -> None:
    step, done = train.train_step, 0

    def losing(*arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done == 3:
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
            time.sleep(60)
        return step(*arguments)

    train.train_step = losing
    run(recipe, images, folder, on_cpu(workers=2))


def test_loaders_have_ended_when_a_run_has(images: ImageSet, tmp_path: Path):
    [outcome] = in_processes(1, _children_after_a_run, images, tmp_path)
    assert outcome.value == []


def _children_after_a_run(images: ImageSet, folder: Path) -> list[str]:
    import gc

    gc.disable()
    run(FEATURES["one loss"], images, folder, on_cpu(workers=2))
    return [str(child) for child in multiprocessing.active_children()]


def test_a_killed_svm_process_is_told_of():
    [outcome] = in_processes(1, _lose_an_svm)
    assert outcome.error_type == "UserError", outcome
    assert "--workers 1" in outcome.error


def _lose_an_svm() -> None:
    codes = np.zeros(3)
    voc_svm._of_each(lambda codes, test_codes: os.kill(os.getpid(), signal.SIGKILL), [(codes, codes)] * 4, workers=2)  # type: ignore[arg-type, return-value]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked")
def test_a_fresh_process_is_bound_before_it_imports_what_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """torch takes seconds, and on a busy machine a minute, in which a kill would leave it alone."""
    asks = f"import ctypes; bound = ctypes.c_int(); ctypes.CDLL(None).prctl({PR_GET_PDEATHSIG}, ctypes.byref(bound))"
    (tmp_path / "slow_to_import.py").write_text(f"{asks}\n\n\ndef told():\n    return bound.value\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("slow_to_import")
    with processes.process_pool(1, module.told) as pool:
        assert pool.submit(module.told).result() == signal.SIGKILL


@pytest.mark.parametrize(
    ("how", "said"), [("full", "free space in /dev/shm"), ("spawned", "ulimit -n"), ("forked", "ulimit -n")]
)
def test_processes_that_cannot_start_are_told_of(how: str, said: str):
    [outcome] = in_processes(1, _start_in_vain, how)
    if outcome.error_type == "Skipped":
        pytest.skip(outcome.error)
    assert outcome.error_type == "UserError", outcome
    assert said in outcome.error


def _start_in_vain(how: str) -> None:
    if how != "full":
        pool = {"spawned": processes.process_pool, "forked": processes.forked_pool}[how](8, print)
        limit_open_files(len(os.listdir("/proc/self/fd")) + 4)
        list(pool.map(print, range(8)))
    on_little_shared_memory()
    with contextlib.suppress(OSError), open("/dev/shm/full", "wb", buffering=0) as full:
        while True:
            full.write(bytes(1 << 16))
    processes.process_pool(2, print)
