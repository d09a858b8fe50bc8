"""What a run reports while it runs: a bar on a terminal, a line per interval in a log, JSON lines and TensorBoard."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from benchmark.core import distributed
from benchmark.core.errors import UserError, remedy
from benchmark.core.files import write_whole
from benchmark.engine.trackers import Tracker

LOG_SECONDS = 10.0
Loaded = TypeVar("Loaded")
_terminal_is_shared = False


def share_terminal() -> None:
    """From now on this process prints lines, not bars, since others print to the same terminal."""
    global _terminal_is_shared
    _terminal_is_shared = True


class Timer:
    """Due every `seconds` by process 0's clock, or where process 0 wants it now, on all processes at the same step."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.last = seconds, time.monotonic()

    def due(self, now: bool = False) -> bool:
        if not distributed.agree(now or time.monotonic() - self.last >= self.seconds):
            return False
        self.last = time.monotonic()
        return True


class Pace:
    """How fast the steps go, and what share of the time they wait for their data. It only reads this process's clock
    around the wait for the loader, so it costs a step nothing and never makes it wait for a GPU."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.begun: float | None = None
        self.images, self.waited = 0, 0.0

    def timed(self, batches: Iterator[Loaded]) -> Iterator[Loaded]:
        """The same batches, one per step."""
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            self.images += self.batch_size
            yield batch

    def since_last(self) -> dict[str, float]:
        """Steps and images per second, of all processes together, and the share of the time that this one waited for
        its data, all since the last call. The first call gives nothing, because until then the loader processes were
        starting."""
        now, begun = time.perf_counter(), self.begun
        images, waited = self.images, self.waited
        self.begun, self.images, self.waited = now, 0, 0.0
        if begun is None:
            return {}
        rate = images / (now - begun)
        figures = {"steps_per_s": rate / self.batch_size, "images_per_s": rate}
        return {**figures, "waiting_for_data": waited / (now - begun)}


class Display:
    """A rich bar on a terminal that is ours alone; otherwise a line at once, then one every LOG_SECONDS."""

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self.title, self.total, self.first = title, total, done
        self.started = time.monotonic()
        self.last = -float("inf")
        self.bar = _bar() if sys.stdout.isatty() and not _terminal_is_shared else None
        self.task = self.bar.add_task(title, total=total, completed=done, figures="") if self.bar else None

    def __enter__(self) -> Display:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def update(self, done: int, figures: dict[str, float] | None = None, beside: str = "") -> None:
        """The bar goes on showing the last `figures` until new ones come."""
        text = "  ".join(filter(None, [in_a_line(figures or {}), beside]))
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=done, **(dict[str, Any](figures=text) if text else {}))
            return
        now = time.monotonic()
        if now - self.last >= LOG_SECONDS or done == self.total:
            self.last = now
            rate = (done - self.first) / max(now - self.started, 1e-9)
            left = f"{(self.total - done) / rate:.0f} s left" if rate > 0 and done - self.first > 1 else ""
            print(f"{self.title}  {done}/{self.total}  {text}  {left}".rstrip(), flush=True)

    def tell(self, text: str) -> None:
        if self.bar:
            self.bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, flush=True)


class RunProgress:
    """Everything that a run reports: the display and the journal. Only process 0 reports, and has `trackers`."""

    def __init__(self, run: Path, title: str, total: int, first: int, trackers: Sequence[Tracker] = ()) -> None:
        self.display: Display | None = None
        if distributed.rank() == 0:
            self.journal = Journal(run, first, trackers)
            self.display = Display(title, total, first)

    def __enter__(self) -> RunProgress:
        if self.display:
            self.display.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.display:
            self.display.__exit__(kind, error, trace)
            self.journal.close(has_failed=kind is not None)

    def stepped(self, done: int) -> None:
        if self.display and self.display.bar:
            self.display.update(done)

    def write(self, step: int, shown: dict[str, float], also_logged: dict[str, float], beside: str = "") -> None:
        """beside: text for the display alone."""
        if self.display:
            self.journal.write(step, shown | also_logged)
            self.display.update(step + 1, shown, beside)

    def tell(self, text: str) -> None:
        """A line of its own, above the bar where there is one."""
        if self.display:
            self.display.tell(text)


class Journal:
    """run/log.jsonl, one line per interval, TensorBoard events in run/tensorboard, and whatever `trackers` keep. Lines
    past the step that a killed run resumes from are dropped, so that no step appears twice."""

    def __init__(self, run: Path, first_step: int, trackers: Sequence[Tracker] = ()) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import, and only training needs it

        self.trackers = trackers
        self.path = run / "log.jsonl"
        kept = [line for line in _lines(self.path) if json.loads(line)["step"] < first_step]
        write_whole(self.path, "".join(line + "\n" for line in kept).encode())
        with self._failure_told():
            self.writer = SummaryWriter(str(run / "tensorboard"), purge_step=first_step)

    def write(self, step: int, figures: dict[str, float]) -> None:
        with self._failure_told():
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **figures}) + "\n")
            for name, value in figures.items():
                self.writer.add_scalar(name, value, step)
        for tracker in self.trackers:
            tracker.write(step, figures)

    @contextmanager
    def _failure_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path}: could not be written ({error.strerror}); {remedy(error)}, then run again"
            ) from error

    def close(self, has_failed: bool) -> None:
        self.writer.close()
        for tracker in self.trackers:
            tracker.close(has_failed)


def in_a_line(figures: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())


def _lines(path: Path) -> list[str]:
    """Complete lines only: a kill can leave half of one."""
    if not path.is_file():
        return []
    return [line[:-1] for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("}\n")]


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        # on a narrow terminal the figures wrap, so that the count and the time left can be read
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=False)),
    )
