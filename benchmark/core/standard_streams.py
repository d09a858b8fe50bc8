"""Work that does not end with its output: where a reader has gone (`| head -1`), a terminal was closed, a disk is full,
or a standard stream was never there (`>&-`), it goes on without."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any

NOBODY_READS = (errno.EPIPE, errno.EIO)  # EIO: of a terminal that was closed
_lost: list[OSError] = []


def keep_writable() -> None:
    """For the beginning of a process. Streams that are not there lead nowhere from now on. If they were left out, the
    next file that is opened would take their place, and whatever other code prints would be written into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the least number that is free, which is this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = _lasting(1, sys.stdout), _lasting(2, sys.stderr)


def lost_output() -> str:
    """Why output was lost that somebody may miss; empty if none was, or if only nobody read it any more."""
    sys.stdout.flush()
    return "; ".join(dict.fromkeys(error.strerror or str(error) for error in _lost))


def _lasting(number: int, old: Any) -> io.TextIOWrapper:
    r"""The stream of that number, in the encoding of `old`. What that cannot say is written as \u2191: neither a
    terminal of few letters nor a file name that is no text may cost a run its end."""
    if old is not None:
        old.flush()
    encoding = old.encoding if old is not None else None
    at_once = number == 2 or bool(old is not None and getattr(old, "line_buffering", False))
    return io.TextIOWrapper(io.BufferedWriter(_Lasting(number)), encoding, "backslashreplace", line_buffering=at_once)


class _Lasting(io.FileIO):
    """Leads nowhere once it cannot be written to."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)

    def write(self, data: Any, /) -> int:
        try:
            while (written := super().write(data)) is None:  # a pipe that is full and does not make us wait
                select.select([], [self], [])
        except OSError as error:
            if error.errno not in NOBODY_READS:
                _lost.append(error)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes
        return written
