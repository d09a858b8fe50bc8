"""Freed memory stays with the process until it is given back."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
