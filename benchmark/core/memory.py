"""The most memory that this process has held, of the machine's and not of a GPU's."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from benchmark.core.allocator import give_back_freed_memory

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak() -> None:
    """Count from now on: one process runs a whole row. Only Linux can; elsewhere the peak is that of the process."""
    give_back_freed_memory()
    with suppress(OSError):
        CLEAR.write_text("5", encoding="ascii")


def peak_in_words() -> str:
    return f"peak memory {peak_gb():.2f} GB, loaders not counted"


def peak_gb() -> float:
    """In 10⁹ bytes. Loader processes are not in it."""
    import resource

    with suppress(OSError, KeyError, ValueError):  # a sandbox's file may lack the field
        fields = dict(line.partition(":")[::2] for line in STATUS.read_text(encoding="utf-8").splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024 / 1e9
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e9 if sys.platform == "darwin" else most * 1024 / 1e9
