"""How a loader process hands over what it made, and what is said where it cannot.

Left to its queue, a batch is packed in a thread of the loader. If that fails, for lack of shared memory for instance,
nobody is told, and whoever waits for the batch waits for ever. So it is packed before, where an error can be sent.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch.multiprocessing  # noqa: F401 - has tensors packed as shared memory

from benchmark.core.errors import UserError, remedy

IN_THIS_PROCESS = "--workers 0 (make: WORKERS=0) loads without other processes"
NO_ROOM = (
    "/dev/shm is too small for the batches of loader processes. Take fewer, e.g. --workers 1, or make it larger; a "
    "container gets more with docker run --shm-size=8g (or --ipc=host)"
)


@dataclass(frozen=True)
class Parcel:
    """A batch, its tensors in shared memory that the loader process keeps until it is opened."""

    content: bytes

    def opened(self) -> Any | UserError:
        try:
            return pickle.loads(self.content)
        except (OSError, RuntimeError, EOFError) as error:  # no more files may be open; or the loader has just died
            return refused(error)

    def pin_memory(self) -> Any | UserError:
        """What DataLoader calls beside a GPU, in a thread."""
        content = self.opened()
        return content.pin_memory() if hasattr(content, "pin_memory") else content


def packed(batch: Any) -> Parcel | UserError:
    try:
        return Parcel(bytes(ForkingPickler.dumps(batch)))
    except (OSError, RuntimeError) as error:
        return refused(error)


def refused(error: Exception) -> UserError:
    """What to do where loader processes cannot start, or not hand over a batch."""
    if "AF_UNIX" in str(error):
        return UserError(
            "loader processes cannot connect to the main process: the path of the temporary folder, "
            f"{tempfile.gettempdir()}, is too long for a socket. Set TMPDIR to a shorter one, e.g. TMPDIR=/tmp; or "
            f"{IN_THIS_PROCESS}"
        )
    if "No space left" in str(error):
        return UserError(f"{NO_ROOM}; or {IN_THIS_PROCESS} ({error})")
    advice = f"{remedy(error, 'in /dev/shm')}; " if isinstance(error, OSError) and error.errno else ""
    return UserError(f"loader processes cannot work here ({error}); {advice}{IN_THIS_PROCESS}")


@contextmanager
def lost_loader_told() -> Iterator[None]:
    """A loader process that dies interrupts whatever this process is doing: say that, in place of a traceback."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise UserError(
            f"a loader process ended unexpectedly ({str(error).split('. ')[0]}). What was done until the last "
            "checkpoint is kept, and the same command goes on there. If memory ran out, fewer --workers need less; if "
            f"it was a bus error, {NO_ROOM}; {IN_THIS_PROCESS}"
        ) from error
