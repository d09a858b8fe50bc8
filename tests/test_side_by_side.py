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
from benchmark.engine.progress import Display
from benchmark.errors import UserError
from benchmark.results import read_runs
from benchmark.side_by_side import side_by_side


def about(item: int) -> tuple[int, int, bool]:
    return os.getpid(), torch.get_num_threads(), Display("", 1).bar is None


def ends_itself(item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def waits(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def test_one_job_works_in_this_process_and_two_in_two_others():
    alone = dict(side_by_side(about, [1, 2, 3], jobs=1))
    assert {pid for pid, *_ in alone.values()} == {os.getpid()}
    together = dict(side_by_side(about, range(8), jobs=2))
    assert list(alone) == [1, 2, 3]
    assert together.keys() == set(range(8))
    assert os.getpid() not in {pid for pid, *_ in together.values()}
    assert {threads for _, threads, _ in together.values()} == {max(torch.get_num_threads() // 2, 1)}


def test_a_killed_process_is_told_of():
    with pytest.raises(UserError, match=r"a process was killed.* --jobs 1"):
        list(side_by_side(ends_itself, [1], jobs=2))


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_none_outlives_who_began_it(tmp_path: Path, kind: signal.Signals):
    tests = str(Path(__file__).parent)
    code = "from pathlib import Path; from test_side_by_side import waits; from benchmark.side_by_side import *;"
    code += f"list(side_by_side(waits, [Path({str(tmp_path)!r})] * 2, 2))"
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": tests}, stderr=subprocess.PIPE
    )
    children = _until(lambda: [int(path.name) for path in tmp_path.iterdir()], lambda found: len(found) == 2)
    parent.send_signal(kind)
    assert parent.wait(timeout=60) != 0
    assert _until(lambda: [child for child in children if _lives(child)], lambda left: not left) == []


def _until(look, is_enough):  # type: ignore[no-untyped-def]
    for _ in range(600):
        if is_enough(seen := look()):
            break
        time.sleep(0.1)
    return seen


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_rows_side_by_side_have_the_records_of_rows_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("benchmark.leaderboards.transfers_of", lambda chosen: ["voc07_svm_goyal"])
    command = ["reproduce", "supervised", "--scale", "smoke", "--workers", "0", "--device", "cpu"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the two will have, or the last bits might differ
    for jobs in ("1", "2"):
        assert cli.run([*command, "--jobs", jobs, "--runs", jobs]) == 0
        assert "random_init seed 0  transfer to voc07_svm_goyal\n" in capfd.readouterr().out
    torch.set_num_threads(threads)
    one, two = ({(each.recipe, str(each.metrics)) for each in read_runs(Path(jobs))} for jobs in ("1", "2"))
    assert len(one) == 2
    assert one == two
