"""How long a command of many rows will still take, by what the same steps took where the published records were made.

From these come ratios between steps, not promises: what this machine makes of them is learned from the steps that it
has done. Rows that run side by side share what they know in a file.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BEGUN, ENDED = "begun", "ended"
FORESEEN_SECONDS = 1.0  # a step of less on record says nothing about a machine


@dataclass(frozen=True)
class Step:
    """seconds: what it took where the published records were made; None where none says so. kind: steps of one kind
    stand in for each other where that is so."""

    row: str
    title: str
    kind: str
    seconds: float | None


@dataclass
class _Known:
    """begun: step -> when. took: step -> seconds; 0 of one that had nothing to do."""

    begun: dict[tuple[str, str], float] = field(default_factory=dict)
    took: dict[tuple[str, str], float] = field(default_factory=dict)


@dataclass(frozen=True)
class TimeLeft:
    """steps: of all rows, in the order in which each row takes them. jobs: rows at a time. notes: the file that all
    processes of the command write to; a line is so short that it is written whole."""

    steps: Sequence[Step]
    jobs: int
    notes: Path

    def begin(self) -> None:
        self.notes.parent.mkdir(parents=True, exist_ok=True)
        self.notes.write_bytes(b"")

    def end(self) -> None:
        self.notes.unlink(missing_ok=True)

    def began(self, row: str, title: str) -> None:
        self._note(BEGUN, row, title, time.time())

    def ended(self, row: str, title: str, seconds: float = 0.0) -> None:
        """seconds: what it took; 0 for a step that was current or left out."""
        self._note(ENDED, row, title, seconds)

    def told(self) -> str:
        """As `about 12 min left in all`; empty while nothing has been timed on this machine."""
        known = self._known()
        left = [step for step in self.steps if (step.row, step.title) not in known.took]
        if not left:
            return ""
        seconds, unknown = self._seconds(known, left)
        if seconds is None:
            return ""
        besides = f" besides {len(unknown)} steps that no record times" if unknown else ""
        return f"about {in_minutes(seconds)} left in all{besides}"

    def _seconds(self, known: _Known, left: Sequence[Step]) -> tuple[float | None, list[Step]]:
        """(of what is left, the steps of which nothing can be said); None where nothing has been timed."""
        timed = [(step, took) for step in self.steps if (took := known.took.get((step.row, step.title)))]
        if not timed:
            return None, []
        both = [(one.seconds, took) for one, took in timed if one.seconds and one.seconds >= FORESEEN_SECONDS]
        pace = sum(took for _, took in both) / sum(seconds for seconds, _ in both) if both else None
        alike: dict[str, list[float]] = defaultdict(list)
        for step, took in timed:
            alike[step.kind].append(took)
        of_rows: dict[str, float] = defaultdict(float)
        unknown = []
        for step in left:
            if pace is not None and step.seconds is not None:
                seconds = step.seconds * pace
            elif step.kind in alike:
                seconds = statistics.fmean(alike[step.kind])
            elif step.seconds is None:
                unknown.append(step)
                continue
            elif step.seconds:
                return None, []  # how fast this machine is shows when one of these has ended
            else:
                seconds = 0.0
            begun = known.begun.get((step.row, step.title))
            of_rows[step.row] += max(seconds - (time.time() - begun if begun else 0.0), 0.0)
        if not of_rows:
            return None, unknown
        # the rows share the jobs, and no row is shared
        return max(sum(of_rows.values()) / self.jobs, *of_rows.values()), unknown

    def _note(self, what: str, row: str, title: str, seconds: float) -> None:
        try:
            with self.notes.open("ab", buffering=0) as file:
                file.write(f"{what}\t{row}\t{title}\t{seconds:.3f}\n".encode())
        except OSError:
            pass  # a full disk is told of by what matters more

    def _known(self) -> _Known:
        known = _Known()
        try:
            lines = self.notes.read_text(encoding="utf-8").splitlines()
        except OSError:
            return known
        for line in lines:
            what, row, title, seconds = line.split("\t")
            (known.begun if what == BEGUN else known.took)[row, title] = float(seconds)
        return known


def foreseen(recipe: str, transfer: str, published: Mapping[tuple[str, str], float]) -> float | None:
    """What the step took by the published clocks; of a recipe that has none, what it took others."""
    own = published.get((recipe, transfer))
    others = [seconds for (_, name), seconds in published.items() if name == transfer]
    return own if own is not None else statistics.fmean(others) if others else None


def in_minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{max(math.ceil(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
