"""Every test runs on one thread: two pytest workers share two cores, and thread counts could move last bits."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
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
