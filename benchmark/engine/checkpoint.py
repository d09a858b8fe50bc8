"""Checkpoints, which hold all of a run's state or do not exist, and the lock that keeps two runs out of one folder."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import pickle
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmark.backbones.weights import load_strictly
from benchmark.core import distributed
from benchmark.core.errors import UserError, remedy
from benchmark.core.files import clear_unfinished, write_whole
from benchmark.core.plain import flat
from benchmark.engine.losses import LossMeans
from benchmark.engine.players import Player
from benchmark.engine.stretches import UNKNOWN, Maker
from benchmark.method import Method

Players = Mapping[str, Player]
CONTENT = {"step", "identity", "method", "optimizers", "losses"}
LATER = {"made_by"}  # checkpoints from before it was kept are resumed too


def save_checkpoint(
    run: Path,
    step: int,
    identity: dict[str, Any],
    method: Method,
    players: Players,
    losses: LossMeans,
    made_by: Sequence[Maker] = (),
) -> None:
    """Write run/checkpoint.pt (process 0) and, for buffers of which each process holds a part,
    run/checkpoint.shard<r>.step<s>.pt. The main file is written last and names the step, so a kill in between leaves
    the old set intact."""
    state = method.state_dict()
    shard = {name: state.pop(name) for name in sorted(method.sharded_buffers())}
    with distributed.together():
        if shard:
            write_state(_shard(run, step), {"step": step, "state": shard})
    with distributed.together():
        if distributed.rank() == 0:
            optimizers = {name: player.optimizer.state_dict() for name, player in players.items()}
            whole = {"step": step, "identity": identity, "method": state, "optimizers": optimizers}
            write_state(run / "checkpoint.pt", whole | {"losses": losses.state_dict(), "made_by": [*made_by]})
    for old in run.glob(f"checkpoint.shard{distributed.rank()}.step*.pt"):
        if old != _shard(run, step):
            old.unlink()


def load_checkpoint(
    run: Path, identity: dict[str, Any], method: Method, players: Players, losses: LossMeans
) -> tuple[int, list[Maker]]:
    """Restore the whole state; (the step to continue from, what made the steps before), 0 and nothing if there is no
    checkpoint. Raises UserError if the checkpoint belongs to another run or does not fit."""
    path = run / "checkpoint.pt"
    if not path.is_file():
        return 0, []
    whole = read_state(path, CONTENT, LATER)
    check_identity(path, whole["identity"], identity)
    state = whole["method"]
    if method.sharded_buffers():
        state |= read_state(_shard(run, whole["step"]), {"step", "state"})["state"]
    load_strictly(method, state, path)
    load_strictly(losses, whole["losses"], path)
    for name, player in players.items():
        load_optimizer(player.optimizer, whole["optimizers"].get(name, {}), path)
    return whole["step"], whole.get("made_by") or [{"first_step": 0, **UNKNOWN}]


def check_identity(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Raises UserError naming what differs between the run that wrote `path` and this one. The recipe's hash decides
    whether the recipe differs; the resolved settings are only used to say how."""
    if {**theirs, "resolved": None} == {**ours, "resolved": None}:
        return
    old, new = dict(flat(theirs)), dict(flat(ours))
    keys = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key) and key != "recipe_hash"]
    changes = {f"{key.removeprefix('resolved.')} was {old.get(key)!r}, now {new.get(key)!r}" for key in keys}
    raise UserError(
        f"{path} belongs to another run ({'; '.join(sorted(changes))}). Use the old values to resume it, another "
        f"--runs folder to keep both, or delete {path.parent} to start over"
    )


def clear_checkpoints(run: Path) -> None:
    """Remove the checkpoints, which a finished run no longer needs."""
    for path in run.glob("checkpoint*.pt"):
        path.unlink()


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Process 0 holds run/.lock while the block runs. The kernel releases it when that process dies, however it dies.
    Half-written files left by a killed run are removed first. Raises UserError, on all processes, if another run holds
    the lock."""
    with ExitStack() as stack:
        with distributed.together():
            if distributed.rank() == 0:
                stack.enter_context(_lock(run))
        yield


@contextmanager
def _lock(run: Path) -> Iterator[None]:
    _require_utf8(run)
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = (run / ".lock").open("wb")
    except OSError as error:
        raise UserError(
            f"{run}: cannot be written to ({error.strerror}); {remedy(error)} (--runs names the folder)"
        ) from error
    with file:
        try:
            # lockf, not flock: a loader process would inherit a flock, and could still hold it after the run was killed
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{run}: {_why_not_locked(error)}, or choose another folder with --runs") from error
        clear_unfinished(run)
        yield


def _why_not_locked(error: OSError) -> str:
    if error.errno in (errno.EAGAIN, errno.EACCES):
        return "another process is working there; wait for it"
    advice = remedy(error)
    if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
        advice = "a network file system must be mounted with locks (Lustre: -o flock; NFS: with its lock service)"
    return f"cannot be locked against a second run ({error.strerror}); {advice}"


def _require_utf8(run: Path) -> None:
    """Libraries that write a run's files take names in UTF-8 alone: one fails after all the work, another writes to a
    folder that nobody asked for."""
    if os.fsencode(run) != str(run).encode("utf-8", "replace"):
        raise UserError(
            f"{run}: a name that is not in UTF-8, or not in this locale's; choose a folder of plain letters with "
            "--runs, or set PYTHONUTF8=1"
        )


def _shard(run: Path, step: int) -> Path:
    return run / f"checkpoint.shard{distributed.rank()}.step{step}.pt"


def write_state(path: Path, content: dict[str, Any]) -> None:
    """Write what `read_state` reads: tensors and plain values."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getbuffer())


def read_state(path: Path, content: set[str], later: Collection[str] = ()) -> dict[str, Any]:
    """The dictionary stored at `path`, on the CPU, with exactly the keys `content`, and those in `later` or not;
    anything else is a UserError."""
    try:
        whole = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: missing; the checkpoint was written by more processes than there are now. Start as many as before"
        ) from error
    except OSError as error:  # the file may be sound
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy(error)}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(
            f"{path}: not a checkpoint of this program, or damaged; delete it to start over. No code in it was run"
        ) from error
    if not isinstance(whole, dict) or whole.keys() - set(later) != content:
        raise UserError(f"{path}: not a checkpoint of this version of the program; delete it to start over")
    return whole


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], path: Path) -> None:
    """Raises UserError, naming `path`, if the state is that of an optimizer with other parameters."""
    wanted = [group.keys() for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
        groups = [group.keys() for group in optimizer.param_groups]
        if lost := sorted({key for old, new in zip(wanted, groups, strict=True) for key in old - new}):
            raise ValueError(f"its parameter groups lack {', '.join(lost)}")
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} does not fit the optimizer: {error}; delete it to start over") from error
