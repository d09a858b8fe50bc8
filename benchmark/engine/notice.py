"""Signals that announce the end: a checkpoint is written first, then whoever handled them before acts.

SIGTERM comes from `kill`, from torchrun and from Slurm, before it kills a job; SIGUSR2 is what Slurm sends some time
before a job's limit (`--signal`). Both may come at any point of a step, where no state is whole.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import torch

from benchmark.core import distributed

KINDS = (signal.SIGTERM, signal.SIGUSR2)


class Notice:
    """While the block runs it takes the place of the handlers of KINDS. After `keep_back` they wait until `let_through`
    or the end of the block; before that they act at once. With no handler before, a signal ends the process, as it
    would have."""

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self.is_kept_back = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Notice:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self.before = {kind: signal.signal(kind, self._came) for kind in KINDS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if error is None:
            self.let_through()

    def keep_back(self) -> None:
        self.is_kept_back = True

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """In this block they act when they come."""
        kept, self.is_kept_back = self.is_kept_back, False
        try:
            self.let_through()
            yield
        finally:
            self.is_kept_back = kept

    def came_to_any(self) -> bool:
        """Whether one waits in any of the processes; all must ask together."""
        return bool(distributed.sum_over_processes(torch.tensor(len(self.waiting))))

    def let_through(self) -> None:
        """Those that wait act now, in this process."""
        while self.waiting:
            self._act(self.waiting.pop(0))

    def _came(self, number: int, frame: FrameType | None) -> None:
        if self.is_kept_back:
            self.waiting.append(number)
        else:
            self._act(number)

    def _act(self, number: int) -> None:
        handler = self.before[number]
        if callable(handler):
            handler(number, None)
        elif handler == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(signal.Signals(number))
