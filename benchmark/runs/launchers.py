"""Work as jobs of Slurm, by submitit. The tasks of a job find each other as torchrun's processes do.

Before a job's limit Slurm sends SIGUSR2. Pretraining then writes a checkpoint (benchmark.engine.notice), and submitit
puts the job back into the queue, from where it goes on. Before Slurm preempts a job it sends SIGTERM: a checkpoint is
written, and the job stays until Slurm ends it and puts it back, as it would not do with a job that has ended by itself.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.core.allocator import keep_freed_memory
from benchmark.core.errors import UserError

MOST_TIMEOUTS = 1000  # a run of weeks in jobs of a day
DEFAULT_MINUTES = 1440
WHOLE = {"time", "nodes", "ntasks_per_node", "cpus_per_task", "gpus_per_node", "gpus_per_task", "signal_delay_s"}
OWN_MEANING = WHOLE | {"job_name", "dependency"}


@dataclass(frozen=True)
class Slurm:
    """Submits jobs. options: sbatch's long options by name. folder: where their files and logs go. cluster: `local`
    starts a job at once on this machine, by the same path."""

    options: Mapping[str, Any]
    folder: Path
    cluster: str = "slurm"
    submitted: list[Any] = field(default_factory=list)

    def submit(self, name: str, work: Callable[[], object], after: Sequence[str] = (), alone: bool = False) -> str:
        """The job's number. work: is pickled; its process ends with what it returns, if that is an int. after: jobs
        that must have ended. alone: one task, whatever the options say. Raises UserError where Slurm refuses."""
        import submitit

        options = _of_one_task(self.options) if alone else {**self.options}
        options |= {"dependency": f"afterany:{':'.join(after)}"} if after else {}
        try:
            executor = submitit.AutoExecutor(self.folder, self.cluster, slurm_max_num_timeout=MOST_TIMEOUTS)
            executor.update_parameters(**_as_submitit_calls_them(options | {"job_name": name}, self.cluster))
            job = executor.submit(Job(work))
        except (RuntimeError, ValueError, OSError) as error:
            before = " ".join(str(job.job_id) for job in self.submitted)
            left = f"; the jobs before it were submitted: `scancel {before}` cancels them" if before else ""
            why = f"no job could be submitted for {name}: {str(error).strip()}"
            raise UserError(f"--launcher {self.cluster}: {why}{left}") from error
        self.submitted.append(job)
        return str(job.job_id)

    @property
    def tasks(self) -> int:
        return self.options.get("nodes", 1) * self.options.get("ntasks_per_node", 1)

    def log(self, job: str) -> Path:
        """Of its first task."""
        return self.folder / f"{job}_0_log.out"


@dataclass(frozen=True)
class Job:
    """What each task of a job runs. It is submitit's idea of a callable that can be put back into the queue."""

    work: Callable[[], object]

    def __call__(self) -> None:
        from submitit.helpers import TorchDistributedEnvironment

        environment = TorchDistributedEnvironment()
        if environment.world_size > 1:
            environment.export(set_cuda_visible_devices=False, overwrite=True)
        self.run_alone()

    def run_alone(self) -> None:
        """What it does once it knows of the others."""
        keep_freed_memory()
        try:
            status = self.work()
        except UserError as error:
            print(f"sslbench: {error}", file=sys.stderr)
            status = 2
        if isinstance(status, int) and status:
            sys.exit(status)

    def checkpoint(self) -> Any:
        """The same again: what was done is kept in the run's folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def slurm(options: Sequence[str], runs: Path) -> Slurm:
    """options: KEY=VALUE, as sbatch calls them. Raises UserError for what is no option, or if submitit is missing."""
    if importlib.util.find_spec("submitit") is None:
        raise UserError("--launcher slurm: its package is not installed; pip install 'sslbench[slurm]'")
    return Slurm({"time": DEFAULT_MINUTES, **dict(map(_option, options))}, runs / "slurm")


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.removeprefix("--").partition("=")
    key = key.replace("-", "_")
    if not equals or not re.fullmatch(r"[a-z_]+", key) or not value:
        raise UserError(f"--slurm takes sbatch's long options as KEY=VALUE, e.g. partition=gpu, not {text!r}")
    if key == "ntasks":  # a job of one task would have them too
        raise UserError("--slurm ntasks is not taken: give nodes and ntasks-per-node, as in nodes=2 ntasks-per-node=8")
    if key not in WHOLE:
        return key, value
    if not value.isdigit() or not int(value):
        minutes = ", in minutes" if key == "time" else ""
        raise UserError(f"--slurm {key.replace('_', '-')} must be a number of 1 or more{minutes}, not {value!r}")
    return key, int(value)


def _of_one_task(options: Mapping[str, Any]) -> dict[str, Any]:
    """With one GPU where there were any."""
    gpus = {key: 1 for key in ("gpus_per_node", "gpus_per_task") if key in options}
    return {**options, "nodes": 1, "ntasks_per_node": 1, **gpus}


def _as_submitit_calls_them(options: Mapping[str, Any], cluster: str) -> dict[str, Any]:
    """submitit gives some options a meaning of its own, and passes the others on to sbatch as they are."""
    if cluster == "local":
        return {"tasks_per_node": options.get("ntasks_per_node", 1), "timeout_min": options["time"]}
    others = {key.replace("_", "-"): value for key, value in options.items() if key not in OWN_MEANING}
    own = {f"slurm_{key}": value for key, value in options.items() if key in OWN_MEANING}
    # a job can then be put back into the queue also where the cluster does not do so by itself
    return own | {"slurm_additional_parameters": {"requeue": True, **others}}
