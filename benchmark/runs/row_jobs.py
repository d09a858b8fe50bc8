"""The rows of `sslbench reproduce` as jobs of Slurm, which begin when the rows that they need have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from graphlib import TopologicalSorter

from benchmark.engine.train import Machine
from benchmark.recipe.catalogue import get_recipe
from benchmark.recipe.contract import Recipe
from benchmark.runs.launchers import Slurm
from benchmark.runs.naming import recipe_called
from benchmark.runs.reproduce import RowWork, asked_runs, runs_needed, scored_on, summary, write_tables
from benchmark.runs.request import Request
from benchmark.runs.run import Run
from benchmark.transfers import find_transfers


@dataclass(frozen=True)
class RowJob:
    """machine: of whoever runs it, which is not who submits it."""

    request: Request
    run: Run
    transfers: Sequence[str]
    machine: Callable[[], Machine]

    def __call__(self) -> int:
        began, of = time.monotonic(), self.request
        row = RowWork(self.transfers, self.machine(), of.recipes_dir, of.transfers_dir, incomplete=of.incomplete)
        steps = row(self.run)
        print(summary([steps], time.monotonic() - began), flush=True)
        return int(bool(steps.failures))


def submit_rows(
    request: Request,
    slurm: Slurm,
    machine: Callable[[], Machine],
    make_world: Callable[[Iterable[Recipe]], object] | None,
) -> None:
    """Submit a job for each row, and a last one that writes the tables. Where a job has several tasks, they pretrain
    together, and a second job of one task scores."""
    asked, transfers = asked_runs(request), scored_on(request)
    needs = runs_needed(asked, request.recipes_dir)
    if make_world:
        make_world([get_recipe(run.name, request.recipes_dir) for run in needs])
    last: dict[Run, str] = {}
    for run in TopologicalSorter(needs).static_order():
        title, on = f"{run.name}_seed{run.seed}", transfers if run in asked else ()
        after = [last[earlier] for earlier in needs[run]]
        if slurm.tasks > 1:
            last[run] = _submitted(slurm, f"{title}_pretrain", RowJob(request, run, (), machine), after)
            after = [last[run]]
        if on or slurm.tasks == 1:
            last[run] = _submitted(slurm, title, RowJob(request, run, on, machine), after, alone=True)
    _submitted(slurm, "tables", partial(_write_tables_of, request), list(last.values()), alone=True)


def _submitted(slurm: Slurm, title: str, work: Callable[[], object], after: Sequence[str], alone: bool = False) -> str:
    job = slurm.submit(title, work, after, alone)
    waits = f" after {', '.join(after)}" if after else ""
    print(f"job {job}{waits}: {title}, log {slurm.log(job)}", flush=True)
    return job


def _write_tables_of(request: Request) -> None:
    recipes = {name: recipe_called(name, request.recipes_dir) for name in request.names}
    known = find_transfers(request.transfers_dir)
    write_tables(recipes, known, request.data_root, request.runs, request.scale)
    print(request.shown())
