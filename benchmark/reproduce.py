"""From nothing to the tables: pretrain, transfer, record, for every recipe and seed. What is current is skipped."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmark.engine.train import Machine, pretrain
from benchmark.errors import UserError
from benchmark.files import write_whole
from benchmark.measured import collect
from benchmark.pages import in_no_table, render, shown_records
from benchmark.recipe import Recipe
from benchmark.results import Record, read_runs
from benchmark.scale import Scale
from benchmark.scoring import Run, clear_workspace, is_pretrained, is_scored, pretraining_images, score
from benchmark.transfers.contract import Transfer


@dataclass
class Steps:
    """Numbers, times and outlives its steps: one that fails is told of at the end, and the others still run."""

    total: int
    started: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    done: int = 0

    def take(self, title: str, is_current: Callable[[], bool], action: Callable[[], object]) -> bool:
        """Run `action` unless its outcome is current; whether the outcome is now there."""
        self.done += 1
        mark = f"[{self.done}/{self.total}] {title}"
        began = time.monotonic()
        try:
            if is_current():
                print(f"{mark}: current", flush=True)
                return True
            print(f"{mark} ({self._elapsed()} so far)", flush=True)
            action()
        except UserError as error:
            self.failures[title] = str(error)
        except Exception as error:  # a fault in one transfer must not lose the others
            traceback.print_exc()
            self.failures[title] = f"{type(error).__name__}: {error}"
        if title in self.failures:
            print(f"{mark}: failed, {self.failures[title]}", flush=True)
            return False
        self.seconds[title] = time.monotonic() - began
        print(f"{mark}: {self.seconds[title]:.0f} s", flush=True)
        return True

    def skip(self, title: str, because: str) -> None:
        self.done += 1
        self.failures[title] = because
        print(f"[{self.done}/{self.total}] {title}: left out, {because}", flush=True)

    def _elapsed(self) -> str:
        minutes, seconds = divmod(round(time.monotonic() - self.started), 60)
        return f"{minutes}:{seconds:02d}"

    def summary(self) -> str:
        lines = [f"{seconds:7.0f} s  {title}" for title, seconds in self.seconds.items()]
        lines.append(f"{time.monotonic() - self.started:7.0f} s  in all")
        lines += [f"FAILED     {title}: {why}" for title, why in self.failures.items()]
        return "\n".join(lines)


def reproduce(
    recipes: Mapping[str, Recipe],
    transfers: Sequence[Transfer],
    runs: Sequence[Run],
    machine: Machine,
    make_world: Callable[[], object] | None,
) -> Steps:
    """Bring every run and its records up to date. `make_world` draws the stand-in data, where the scale has it."""
    steps = Steps(total=len(runs) * (1 + len(transfers)) + (make_world is not None))
    if make_world and not steps.take("draw the world (what is there is kept)", lambda: False, make_world):
        return steps
    for run in runs:
        recipe = run.resolved(recipes[run.name])
        who = f"{run.name} seed {run.seed}"
        there = steps.take(
            f"pretrain {who}",
            partial(is_pretrained, run, recipe),
            partial(_pretrain, run, recipe, machine),
        )
        scored = []
        for transfer in transfers:
            title = f"transfer {who} to {transfer.card.id}"
            if not there:
                steps.skip(title, "there is no backbone")
                continue
            scored.append(steps.take(title, partial(is_scored, transfer, run), partial(score, transfer, run, machine)))
        if there and all(scored):  # else the same command, given again, goes on from what lies there
            clear_workspace(run)
    return steps


def _pretrain(run: Run, recipe: Recipe, machine: Machine) -> None:
    pretrain(recipe, run.name, pretraining_images(recipe, run.data_root), run.folder, machine)


def current_check(
    recipes: Mapping[str, Recipe], transfers: Mapping[str, Transfer], data_root: Path, runs: Path
) -> Callable[[Record], bool]:
    """Whether a record below `runs` is what would be run now; one of a recipe or transfer that is gone is not."""

    def is_current(record: Record) -> bool:
        if record.recipe not in recipes or record.transfer not in transfers:
            return False
        run = Run(record.recipe, record.scale, record.seed, data_root, runs)  # type: ignore[arg-type]
        try:
            recipe = run.resolved(recipes[record.recipe])
            return is_pretrained(run, recipe) and is_scored(transfers[record.transfer], run)
        except UserError:
            return False  # e.g. the data is gone, so nothing could be run now

    return is_current


def write_tables(runs: Path, scale: Scale, is_current: Callable[[Record], bool], current: Collection[str]) -> str:
    """Every table with a number of this scale, as markdown; also written below runs/<scale>. current: hashes of the
    recipes as they would run now."""
    collected = collect(shown_records(), read_runs(runs), is_current)
    records = [record for record in collected if record.scale == scale]
    rendered = render(records, current)
    folder = runs / scale / "tables"
    for key, text in rendered.items():
        write_whole(folder / f"{key}.md", text.encode())
    whole = "\n".join(filter(None, [*rendered.values(), in_no_table(records)]))
    write_whole(runs / scale / "tables.md", whole.encode())
    return whole
