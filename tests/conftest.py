"""Every test runs on one thread: two pytest workers share two cores, and thread counts could move last bits."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from benchmark.core.allocator import keep_freed_memory

if TYPE_CHECKING:
    from small_runs import Processes

os.environ.setdefault("OMP_NUM_THREADS", "1")
keep_freed_memory()
settings.register_profile("untimed", deadline=None)  # how long an example takes says what else the machine does
settings.load_profile("untimed")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount options -> a file system of their own kind, e.g. "size=64k". Mounting needs root, which continuous
    integration has."""
    disks: list[Path] = []

    def mounted(options: str) -> Path:
        disk = tmp_path / f"disk{len(disks)}"
        disk.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("mounting a small tmpfs needs root: run the tests as root to see what a full disk does")
        disks.append(disk)
        return disk

    yield mounted
    for disk in disks:
        subprocess.run(["umount", disk], check=True)


@pytest.fixture(scope="module")
def alone() -> Iterator[Processes]:
    """A process for what a test must not do itself: this one stays without autograd, so that it may fork."""
    yield from _processes(1)


@pytest.fixture(scope="module")
def pair() -> Iterator[Processes]:
    """Two processes that serve every test of a file."""
    yield from _processes(2)


def _processes(count: int) -> Iterator[Processes]:
    from small_runs import Processes

    processes = Processes(count)
    yield processes
    processes.stop()
