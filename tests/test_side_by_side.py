"""Work in several processes: the same outcomes, a share of the processor each, and none outlives who began it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmark import cli
from benchmark.core.errors import UserError
from benchmark.engine.progress import Display
from benchmark.records.folders import read_runs
from benchmark.runs.side_by_side import side_by_side

THREADS_OF_TWO = """
import sys, torch
from test_side_by_side import about
from benchmark.runs.side_by_side import side_by_side
if __name__ == "__main__":
    torch.set_num_threads(4)
    print(*(threads for _, (_, threads, _) in side_by_side(about, [1, 2], 2)))
"""


def about(item: int) -> tuple[int, int, bool]:
    """(process, its threads, whether it would draw bars on a terminal)"""
    sys.stdout.isatty = lambda: True  # type: ignore[method-assign]
    return os.getpid(), torch.get_num_threads(), Display("", 1).bar is not None


def ends_itself(item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fails_or_waits(item: int) -> None:
    if item:
        time.sleep(600)
    raise ValueError("a planted fault")


def waits(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def test_one_job_works_in_this_process_and_two_in_two_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    alone = dict(side_by_side(about, [1, 2, 3], jobs=1))
    assert list(alone) == [1, 2, 3]
    assert {(pid, bars) for pid, _, bars in alone.values()} == {(os.getpid(), True)}
    together = dict(side_by_side(about, range(8), jobs=2))
    assert together.keys() == set(range(8))
    assert os.getpid() not in {pid for pid, *_ in together.values()}
    assert {bars for *_, bars in together.values()} == {False}, "bars of two processes overwrite each other"
    assert dict(side_by_side(about, [1], jobs=2))[1][0] == os.getpid(), "one item has all the threads"


def test_each_process_has_its_share_of_the_threads(tmp_path: Path):
    script = tmp_path / "threads.py"
    script.write_text(THREADS_OF_TWO)
    found = subprocess.run([sys.executable, script], env=_environment(), capture_output=True, text=True)
    assert found.stdout.split() == ["2", "2"], found.stderr


def test_a_killed_process_is_told_of():
    with pytest.raises(UserError, match=r"killed.* --jobs 1"):
        list(side_by_side(ends_itself, [1, 2], jobs=2))


def test_a_fault_is_raised_at_once():
    started = time.monotonic()
    with pytest.raises(ValueError, match="a planted fault"):
        list(side_by_side(fails_or_waits, [0, 1, 2], jobs=2))
    assert time.monotonic() - started < 300  # what waits would wait for ten minutes


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_none_outlives_who_began_it(tmp_path: Path, kind: signal.Signals):
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"  # ignored in a shell's background
    code += "from pathlib import Path; from test_side_by_side import waits; from benchmark.runs.side_by_side import *;"
    code += f"list(side_by_side(waits, [Path({str(tmp_path)!r})] * 2, 2))"
    parent = subprocess.Popen([sys.executable, "-c", code], env=_environment(), stderr=subprocess.PIPE)
    try:
        children = until(lambda: [int(path.name) for path in tmp_path.iterdir()], lambda found: len(found) == 2)
        assert len(children) == 2
        parent.send_signal(kind)
        assert parent.wait(timeout=60) != 0
        assert until(lambda: [child for child in children if is_alive(child)], lambda left: not left) == []
    finally:
        parent.kill()


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parent)}


def until(look, is_enough):  # type: ignore[no-untyped-def]
    for _ in range(600):
        if is_enough(seen := look()):
            break
        time.sleep(0.1)
    return seen


def is_alive(process: int) -> bool:
    """And is no zombie that nobody has asked after yet."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.startswith("Z")


def test_rows_side_by_side_have_the_records_of_rows_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("benchmark.runs.request.transfers_of", lambda chosen: ["voc07_svm_goyal"])
    command = ["reproduce", "supervised", "--scale", "smoke", "--workers", "0", "--device", "cpu"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the two will have, or the last bits might differ
    try:
        for jobs in ("1", "2"):
            assert cli.run([*command, "--jobs", jobs, "--runs", jobs]) == 0
            assert "random_init seed 0  transfer to voc07_svm_goyal\n" in capfd.readouterr().out
    finally:
        torch.set_num_threads(threads)
    one, two = ({(each.recipe, str(each.metrics)) for each in read_runs(Path(jobs))} for jobs in ("1", "2"))
    assert len(one) == 3
    assert one == two
