"""Freed memory stays with the process until it is given back."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.core import allocator

HALF_GB = 2**29
SCRIPT = f"""
import resource
from benchmark.core.allocator import give_back_freed_memory, keep_freed_memory
if KEEP:
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def held():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
def fill():
    before = faults()
    bytearray(b"1") * {HALF_GB}
    return faults() - before
fill()
print(fill(), held())
give_back_freed_memory()
print(held())
"""


def numbers(keep: bool) -> tuple[int, int, int]:
    """Pages faulted by a second block of half a GB, bytes held after it, and once they are given back."""
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("KEEP", str(keep))], capture_output=True, text=True, check=True
    )
    faults, held, after = map(int, told.stdout.split())
    return faults, held, after


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have another C library")
def test_a_second_block_takes_the_first_one_s_pages() -> None:
    faults, held, after = numbers(keep=True)
    usual, usually_held, _ = numbers(keep=False)
    assert faults < 100 < usual, (faults, usual)
    assert held > HALF_GB > usually_held
    assert after < HALF_GB / 4


def test_an_older_glibc_gets_the_most_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses more than 32 MB, and from the next option on no longer raises the 128 kB it begins with."""
    taken: dict[int, int] = {}

    class Older:
        def mallopt(self, option: int, value: int) -> int:
            if option == allocator.MMAP_THRESHOLD and value > 32 << 20:
                return 0
            taken[option] = value
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Older())
    allocator.keep_freed_memory()
    assert taken[allocator.MMAP_THRESHOLD] == 32 << 20


ROWS = """
from test_allocator import faults_of_a_second_block
from benchmark.runs.side_by_side import side_by_side
if __name__ == "__main__":
    print(*(faults for _, faults in side_by_side(faults_of_a_second_block, [1, 2], 2)))
"""


def faults_of_a_second_block(item: int) -> int:
    import resource

    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        bytearray(b"1") * (HALF_GB // 8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have another C library")
def test_rows_side_by_side_keep_theirs_too(tmp_path: Path) -> None:
    script = tmp_path / "rows.py"
    script.write_text(ROWS)
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
    told = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert [int(faults) < 100 for faults in told.stdout.split()] == [True, True], told.stdout + told.stderr
