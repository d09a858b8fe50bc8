"""What a run says while it runs: a bar on a terminal, a line per interval in a log, JSON lines and TensorBoard."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LOG_SECONDS = 10.0


class Display:
    """A rich bar when standard output is a terminal, else one printed line every LOG_SECONDS."""

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self.title, self.total, self.first = title, total, done
        self.started = self.last = time.monotonic()
        self.bar = _bar() if sys.stdout.isatty() else None
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

    def update(self, done: int, figures: dict[str, float]) -> None:
        text = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=done, figures=text)
            return
        now = time.monotonic()
        if now - self.last >= LOG_SECONDS or done == self.total:
            self.last = now
            rate = (done - self.first) / max(now - self.started, 1e-9)
            left = (self.total - done) / rate if rate > 0 else float("inf")
            print(f"{self.title}  {done}/{self.total}  {text}  {left:.0f} s left", flush=True)


class Journal:
    """run/log.jsonl, one line per interval, and TensorBoard events in run/tensorboard. Lines past the step that a
    killed run goes on from are dropped, so that every step stands there once."""

    def __init__(self, run: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import, and only training needs it

        self.path = run / "log.jsonl"
        kept = [line for line in _lines(self.path) if json.loads(line)["step"] < first_step]
        self.path.write_text("".join(line + "\n" for line in kept))
        self.writer = SummaryWriter(str(run / "tensorboard"), purge_step=first_step)

    def write(self, step: int, figures: dict[str, float]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **figures}) + "\n")
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


def _lines(path: Path) -> list[str]:
    """Complete lines only: a kill can leave half of one."""
    if not path.is_file():
        return []
    return [line[:-1] for line in path.read_text().splitlines(keepends=True) if line.endswith("}\n")]


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
