"""From nothing to the tables: pretrain, transfer, record, for every recipe and seed. What is current is skipped."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.files import write_whole
from benchmark.engine.train import Machine
from benchmark.recipe.catalogue import get_recipe
from benchmark.recipe.contract import Recipe
from benchmark.recipe.scales import Scale, hashes_at
from benchmark.records.folders import PRETRAINING, published_seconds, read_runs
from benchmark.runs.current import current_check, is_pretrained, is_scored
from benchmark.runs.naming import backbones_before, recipe_called, require_untaken
from benchmark.runs.pretraining import pretrain_run
from benchmark.runs.request import Request, all_tables_in
from benchmark.runs.run import Run
from benchmark.runs.scoring import clear_workspace, refusal, score
from benchmark.runs.side_by_side import side_by_side
from benchmark.runs.time_left import Step, TimeLeft, foreseen
from benchmark.tables.ledger import LEADERBOARDS
from benchmark.tables.markdown import markdown
from benchmark.tables.measured import collect
from benchmark.tables.pages import boards, in_no_table, shown_records
from benchmark.tables.short import short_table
from benchmark.transfers import find_transfers, get_transfer
from benchmark.transfers.contract import Transfer

PRETRAIN = "pretrain"


@dataclass
class StepLog:
    """Times and outlives the steps of a row: one that fails is told of at the end, and the others still run."""

    row: str
    total: int
    time_left: TimeLeft | None = None
    started: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    done: int = 0

    def take(self, what: str, is_current: Callable[[], bool], action: Callable[[], object]) -> bool:
        """Run `action` unless its outcome is current; whether the outcome is now there."""
        title, mark = self._next(what)
        began = time.monotonic()
        try:
            if is_current():
                print(f"{mark}: current", flush=True)
                self._ended(what)
                return True
            print(f"{mark} ({self._times()})", flush=True)
            if self.time_left:
                self.time_left.began(self.row, what)
            action()
        except UserError as error:
            self.failures[title] = str(error)
        except Exception as error:  # a fault in one transfer must not lose the others
            traceback.print_exc()
            self.failures[title] = f"{type(error).__name__}: {error}"
        if title in self.failures:
            print(f"{mark}: failed, {self.failures[title]}", flush=True)
            self._ended(what)
            return False
        self.seconds[title] = time.monotonic() - began
        self._ended(what, self.seconds[title])
        print(f"{mark}: {self.seconds[title]:.0f} s", flush=True)
        return True

    def leave(self, what: str, because: str) -> None:
        """Leaving out what was never to be done is not a failure."""
        print(f"{self._next(what)[1]}: left out, {because}", flush=True)
        self._ended(what)

    def skip(self, what: str, because: str) -> None:
        title, mark = self._next(what)
        self.failures[title] = because
        print(f"{mark}: left out, {because}", flush=True)
        self._ended(what)

    def _ended(self, what: str, seconds: float = 0.0) -> None:
        if self.time_left:
            self.time_left.ended(self.row, what, seconds)

    def _next(self, what: str) -> tuple[str, str]:
        self.done += 1
        return f"{self.row}  {what}", f"[{self.row} {self.done}/{self.total}] {what}"

    def _times(self) -> str:
        minutes, seconds = divmod(round(time.monotonic() - self.started), 60)
        left = self.time_left.told() if self.time_left else ""
        return ", ".join(filter(None, (f"{minutes}:{seconds:02d} so far", left)))


def summary(rows: Sequence[StepLog], seconds: float) -> str:
    """What every step took, and which failed and why; `seconds`: the time in all."""
    lines = [f"{took:7.0f} s  {title}" for steps in rows for title, took in steps.seconds.items()]
    lines.append(f"{seconds:7.0f} s  in all")
    lines += [f"FAILED     {title}: {why}" for steps in rows for title, why in steps.failures.items()]
    return "\n".join(lines)


@dataclass(frozen=True)
class RowWork:
    """Brings a run and its records up to date. It is sent to other processes, so it says by name what is to be done.

    unscored: runs that others need, and that nobody asked to have scored. incomplete: whether data that is not complete
    will do at paper and photos scale. time_left: of all rows together."""

    transfers: Sequence[str]
    machine: Machine
    recipes_dir: Path | None = None
    transfers_dir: Path | None = None
    unscored: Collection[Run] = ()
    incomplete: bool = False
    time_left: TimeLeft | None = None

    def transfers_to(self, run: Run) -> Sequence[str]:
        return () if run in self.unscored else self.transfers

    def __call__(self, run: Run) -> StepLog:
        recipe = run.resolved(get_recipe(run.name, self.recipes_dir))
        known = find_transfers(self.transfers_dir)
        transfers = self.transfers_to(run)
        steps = StepLog(_row(run), 1 + len(transfers), self.time_left)
        there = steps.take(
            PRETRAIN,
            partial(is_pretrained, run, recipe),
            partial(_pretrain, run, recipe, self.machine, self.recipes_dir, self.incomplete),
        )
        scored = []
        for name in transfers:
            title, transfer = _title(name), known[name]
            if not there:
                steps.skip(title, "there is no backbone")
                continue
            if why := refusal(transfer, run):
                steps.leave(title, why)
                continue
            own, whole = self.recipes_dir, self.incomplete
            action = partial(score, transfer, run, self.machine, recipes_dir=own, incomplete=whole)
            scored.append(steps.take(title, partial(is_scored, transfer, run), action))
        if there and all(scored):  # else the same command, given again, goes on from what lies there
            clear_workspace(run)
        return steps


def _row(run: Run) -> str:
    return f"{run.name} seed {run.seed}"


def _title(transfer: str) -> str:
    return f"transfer to {transfer}"


def bring_up_to_date(
    row: RowWork, runs: Sequence[Run], jobs: int, make_world: Callable[[Iterable[Recipe]], object] | None
) -> list[StepLog]:
    """Bring every run and its records up to date, `jobs` runs at a time, and first the runs that they need.
    `make_world` draws the stand-in data of recipes, where the scale has it."""
    needs = runs_needed(runs, row.recipes_dir)
    row = replace(row, unscored=needs.keys() - set(runs))
    world = StepLog("world", total=1)
    recipes = [get_recipe(run.name, row.recipes_dir) for run in needs]
    if make_world and not world.take("draw missing datasets", lambda: False, partial(make_world, recipes)):
        return [world]
    done: dict[Run, StepLog] = {}
    with _forecast(row, list(needs), jobs) as forecast:
        for run, steps in side_by_side(replace(row, time_left=forecast), list(needs), jobs, needs):
            done[run] = steps
            told = "; ".join(filter(None, (steps.row, forecast.told())))
            print(f"{len(done)} of {len(needs)} rows are done: {told}", flush=True)
    return [world, *(done[run] for run in needs)]


@contextmanager
def _forecast(row: RowWork, runs: Sequence[Run], jobs: int) -> Iterator[TimeLeft]:
    """Of all rows, while they are done."""
    scale, folder = runs[0].scale, runs[0].runs
    published = published_seconds(LEADERBOARDS / "measured", scale)
    steps: list[Step] = []
    for run in runs:
        recipe = run.resolved(get_recipe(run.name, row.recipes_dir))
        seconds = published.get((run.name, PRETRAINING)) if recipe.optimizers else 0.0
        steps.append(Step(_row(run), PRETRAIN, PRETRAIN if recipe.optimizers else "nothing trained", seconds))
        for name in row.transfers_to(run):
            steps.append(Step(_row(run), _title(name), "transfer", foreseen(run.name, name, published)))
    forecast = TimeLeft(steps, jobs, folder / scale / f".time-left-{os.getpid()}")
    forecast.begin()
    try:
        yield forecast
    finally:
        forecast.end()


def runs_needed(runs: Sequence[Run], recipes_dir: Path | None = None) -> dict[Run, list[Run]]:
    """Each of the runs, then each that these need, and so on -> the runs that it needs first. Raises UserError for
    recipes that come after each other in a circle."""
    needs: dict[Run, list[Run]] = {}
    waiting = list(runs)
    for run in waiting:
        if run not in needs:
            needs[run] = list(run.before(get_recipe(run.name, recipes_dir)).values())
            waiting += needs[run]
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle = " after ".join(run.name for run in error.args[1])
        raise UserError(f"no recipe can come after itself, as {circle}: change their `after`") from error
    return needs


def _pretrain(run: Run, recipe: Recipe, machine: Machine, recipes_dir: Path | None, incomplete: bool) -> None:
    require_untaken(run)
    pretrain_run(run, recipe, machine, backbones_before(run, recipe, recipes_dir), incomplete)


def fulfil(
    request: Request, machine: Machine, jobs: int | None, make_world: Callable[[Iterable[Recipe]], object] | None
) -> bool:
    """Bring every row up to date, then write and print the tables; whether all of it went well. `make_world` draws the
    stand-in data of recipes, unless the user brought data."""
    started = time.monotonic()
    asked = asked_runs(request)
    recipes = {name: recipe_called(name, request.recipes_dir) for name in request.names}
    known = find_transfers(request.transfers_dir)
    needed = runs_needed(asked, request.recipes_dir)
    jobs = min(jobs or jobs_by_default(request.scale, machine.device.type), len(needed))
    on = replace(machine, workers=loaders_of_each(machine.workers, jobs))
    row = RowWork(scored_on(request), on, request.recipes_dir, request.transfers_dir, incomplete=request.incomplete)
    rows = bring_up_to_date(row, asked, jobs, make_world)
    told = summary(rows, time.monotonic() - started)
    write_tables(recipes, known, request.data_root, request.runs, request.scale)
    print(f"\n{told}\n\n{request.shown()}")
    if any(steps.failures for steps in rows):
        return False
    request.answer.write([run.folder for run in needed if run not in asked])
    return True


def asked_runs(request: Request) -> list[Run]:
    """In the order in which they begin. Raises UserError for the name of an imported backbone."""
    for name in request.names:
        require_untaken(Run(name, request.scale, 0, request.data_root, request.runs))
    return [
        Run(name, request.scale, seed, request.data_root, request.runs)
        for seed in request.seeds
        for name in request.names
    ]


def scored_on(request: Request) -> list[str]:
    """The ids of its transfers. Raises UserError for one that there is not."""
    known = find_transfers(request.transfers_dir)
    return [get_transfer(name, known).card.id for name in request.transfers]


def jobs_by_default(scale: Scale, device_type: str) -> int:
    """One row at a time gets a GPU, or runs at paper scale."""
    return 1 if scale == "paper" or device_type == "cuda" else min(2, os.cpu_count() or 1)


def loaders_of_each(workers: int, jobs: int) -> int:
    """Loader processes of each row: more than there are cores would only start more slowly."""
    return min(workers, max(workers // jobs, 1))


def write_tables(
    recipes: Mapping[str, Recipe],
    transfers: Mapping[str, Transfer],
    root: Path | None,
    runs: Path,
    scale: Scale,
    beside: Collection[str] = (),
) -> str:
    """Every table with a number of this scale, written below runs/<scale> as markdown and in short for a terminal
    (benchmark.tables.short). Returns the short ones and where the whole ones are; empty without any number.

    root: the folder of the data; None where nobody said which it is, and then no run is current but those on the user's
    own images. beside: names of runs that get a row besides. Raises UserError for one of those that has no number."""
    is_current = current_check(recipes, transfers, root, runs)
    collected = collect(shown_records(), read_runs(runs), is_current)
    records = [record for record in collected if record.scale == scale]
    if missing := [name for name in beside if name not in {record.recipe for record in records}]:
        raise UserError(
            f"--with {missing[0]}: it has no number at {scale} scale that is current; `sslbench transfer {missing[0]} "
            f"TRANSFER --scale {scale}` gives it some"
        )
    found = boards(
        records, also_unmeasured=False, current=frozenset(hashes_at(recipes, [scale]).values()), beside=beside
    )
    folder = runs / scale / "tables"
    whole, short = [], []
    for key, one in found.items():
        whole.append(markdown(one))
        short.append(f"{short_table(one)}Whole table: {folder / key}.md\n")
        write_whole(folder / f"{key}.md", whole[-1].encode())
        write_whole(folder / f"{key}.txt", short[-1].encode())
    elsewhere = in_no_table(records, beside=beside)
    told = {ending: "\n".join(filter(None, [*texts, elsewhere])) for ending, texts in (("md", whole), ("txt", short))}
    for ending, text in told.items():
        write_whole(folder.with_suffix(f".{ending}"), text.encode())
    return f"{told['txt']}\n{all_tables_in(folder.with_suffix('.md'))}" if told["txt"] else ""
