"""Shows how far the drawing has got: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

_LINE_SECONDS = 5.0


class Progress:
    """Counts pictures. Silent when `show` is false."""

    def __init__(self, total: int, show: bool) -> None:
        self._total, self._done = total, 0
        self._bar = _terminal_bar() if show and total and sys.stderr.isatty() else None
        self._task = self._bar.add_task("Toyland", total=total) if self._bar else None
        self._lines = show and self._bar is None
        self._start = self._last = time.monotonic()

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def advance(self, name: str, count: int) -> None:
        self._done += count
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count, description=f"Toyland: {name}")
        now = time.monotonic()
        if self._lines and (now - self._last > _LINE_SECONDS or self._done == self._total):
            self._last = now
            rate = self._done / max(now - self._start, 1e-9)
            print(f"Toyland: {name}, {self._done}/{self._total} pictures, {rate:.0f}/s", file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _terminal_bar() -> Bar:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Bar(*columns, console=Console(stderr=True))
