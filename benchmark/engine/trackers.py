"""Services that a run's figures go to besides TensorBoard: Weights & Biases and MLflow. Each is an extra of this
package, and imported only when it is asked for."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from benchmark.core.errors import UserError
from benchmark.core.files import write_whole
from benchmark.core.plain import flat

PROJECT = "sslbench"
PARAMETERS_AT_ONCE = 100  # the most that MLflow's servers take
LONGEST_PARAMETER = 500  # characters, what its older servers take


class Tracker(Protocol):
    def write(self, step: int, figures: Mapping[str, float]) -> None: ...

    def close(self, has_failed: bool) -> None: ...


class _WandbRun:
    """Keeps below `folder`/wandb, or WANDB_DIR, what it has not sent: all of it with WANDB_MODE=offline."""

    def __init__(self, folder: Path, title: str, facts: Mapping[str, Any], known: str) -> None:
        import wandb

        self.id = known or uuid4().hex[:8]
        where = os.environ.get("WANDB_DIR") or str(folder)
        self.run = wandb.init(project=PROJECT, name=title, id=self.id, resume="allow", config=dict(facts), dir=where)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self.run.log(dict(figures), step=step)

    def close(self, has_failed: bool) -> None:
        self.run.finish(exit_code=int(has_failed))


class _MlflowRun:
    """Its store is `folder`/mlflow.db, unless MLFLOW_TRACKING_URI names another."""

    def __init__(self, folder: Path, title: str, facts: Mapping[str, Any], known: str) -> None:
        import mlflow

        if not os.environ.get("MLFLOW_TRACKING_URI"):
            mlflow.set_tracking_uri(f"sqlite:///{folder.absolute()}/mlflow.db")
        self.mlflow = mlflow
        mlflow.set_experiment(PROJECT)
        self.id = mlflow.start_run(run_id=known or None, run_name=None if known else title).info.run_id
        if not known:
            parameters = [(key, str(value)[:LONGEST_PARAMETER]) for key, value in flat(facts)]
            for start in range(0, len(parameters), PARAMETERS_AT_ONCE):
                mlflow.log_params(dict(parameters[start : start + PARAMETERS_AT_ONCE]))

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self.mlflow.log_metrics(dict(figures), step=step)

    def close(self, has_failed: bool) -> None:
        self.mlflow.end_run("FAILED" if has_failed else "FINISHED")


BY_NAME: Mapping[str, Callable[[Path, str, Mapping[str, Any], str], Any]] = {"wandb": _WandbRun, "mlflow": _MlflowRun}


def require_trackers(names: Sequence[str]) -> None:
    """Raises UserError for a name that is none, or whose package is not installed: before the work, not after it."""
    for name in names:
        if name not in BY_NAME:
            raise UserError(f"--log-to takes {' and '.join(BY_NAME)}, not {name!r}; TensorBoard is always written")
        if importlib.util.find_spec(name) is None:
            raise UserError(f"--log-to {name}: its package is not installed; pip install 'sslbench[{name}]'")


def open_trackers(
    names: Sequence[str], folder: Path, run: Path, title: str, facts: Mapping[str, Any], resumes: bool
) -> list[Tracker]:
    """folder: where the services keep what is here of all runs. run: this run's own folder, which keeps each service's
    name for it, so that a resumed run goes on there. facts: what the run is. Raises UserError where one refuses."""
    opened: list[Tracker] = []
    for name in names:
        kept = run / f"{name}.id"
        known = kept.read_text(encoding="utf-8") if resumes and kept.is_file() else ""
        try:
            one = BY_NAME[name](folder, title, facts, known)
        except Exception as error:  # their own kinds: not logged in, no server, a store of another version
            for other in opened:
                other.close(has_failed=True)
            raise UserError(f"--log-to {name}: {type(error).__name__}: {error}") from error
        write_whole(kept, one.id.encode())
        opened.append(_Forgiving(name, one))
    return opened


class _Forgiving:
    """A service that fails costs its curve, not the run."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name, self.tracker = name, tracker
        self.has_failed = False

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self._tried(lambda: self.tracker.write(step, figures))

    def close(self, has_failed: bool) -> None:
        self._tried(lambda: self.tracker.close(has_failed))

    def _tried(self, action: Callable[[], None]) -> None:
        if self.has_failed:
            return
        try:
            action()
        except Exception as error:
            self.has_failed = True
            print(f"sslbench: {self.name} gets no more figures ({type(error).__name__}: {error})", file=sys.stderr)
