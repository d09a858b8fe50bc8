"""Freed memory is kept for the next tensor. glibc hands every large block back to the system when it is freed, and the
system clears it page by page for the next one: a fifth of a training step's time on a CPU, and more beside a second
process."""

from __future__ import annotations

import ctypes
from contextlib import suppress

# glibc's malloc.h: from what size a block is a mapping of its own, how much may lie free, by how much the heap grows
MMAP_THRESHOLD, TRIM_THRESHOLD, TOP_PAD = -3, -1, -2
AS_LARGE_AS_IT_TAKES, AS_LARGE_AS_OLDER_ONES_TAKE, A_STEP = 2**31 - 1, 2**25, 2**26


def keep_freed_memory() -> None:
    """For this process and those it forks; those that start afresh call it again. Where the C library is another one,
    everything stays as it is."""
    with suppress(OSError, AttributeError, TypeError):
        c_library = ctypes.CDLL(None)
        # one that was refused would stay at 128 kB: with the options below glibc no longer raises it by itself
        if not c_library.mallopt(MMAP_THRESHOLD, AS_LARGE_AS_IT_TAKES):
            c_library.mallopt(MMAP_THRESHOLD, AS_LARGE_AS_OLDER_ONES_TAKE)
        c_library.mallopt(TRIM_THRESHOLD, AS_LARGE_AS_IT_TAKES)
        c_library.mallopt(TOP_PAD, A_STEP)


def give_back_freed_memory() -> None:
    """To the system, so that the next peak counts only what the next work needs."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
