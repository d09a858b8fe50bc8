"""Checkpoints: all of the run's state, whole or not at all; and the lock that keeps two runs out of one folder."""

from __future__ import annotations

import fcntl
import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmark.engine import distributed
from benchmark.errors import UserError
from benchmark.files import write_whole
from benchmark.method import Method

Optimizers = dict[str, torch.optim.Optimizer]


def save_checkpoint(run: Path, step: int, identity: dict[str, Any], method: Method, optimizers: Optimizers) -> None:
    """Write run/checkpoint.pt (process 0) and, for buffers of which each process holds a part,
    run/checkpoint.shard<r>.step<s>.pt. The main file is written last and names the step: a kill in between leaves the
    old set whole."""
    sharded = method.sharded_buffers()
    state = method.state_dict()
    if sharded:
        part = {"step": step, "state": {name: state.pop(name) for name in sorted(sharded)}}
        write_whole(_shard(run, step), _bytes(part))
        distributed.barrier()
    if distributed.rank() == 0:
        optimizer_states = {name: optimizer.state_dict() for name, optimizer in optimizers.items()}
        whole = {"step": step, "identity": identity, "method": state, "optimizers": optimizer_states}
        write_whole(run / "checkpoint.pt", _bytes(whole))
    distributed.barrier()
    if sharded:
        for old in run.glob(f"checkpoint.shard{distributed.rank()}.step*.pt"):
            if old != _shard(run, step):
                old.unlink()


def load_checkpoint(run: Path, identity: dict[str, Any], method: Method, optimizers: Optimizers) -> int:
    """Restore method and optimizers and return the step to go on from: 0 when there is no checkpoint. Raises UserError
    when the checkpoint is another recipe's, or does not fit."""
    path = run / "checkpoint.pt"
    if not path.is_file():
        return 0
    whole = _read(path)
    if whole["identity"] != identity:
        raise UserError(_identity_fault(path, whole["identity"], identity))
    state = whole["method"]
    if method.sharded_buffers():
        state |= _read(_shard(run, whole["step"]))["state"]
    _fit(path, state, method)
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(whole["optimizers"][name])
    return whole["step"]


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold run/.lock for as long as the block runs; the kernel lets go of it when the process dies, however it dies."""
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{run}: another process is working there; wait for it, or give another --runs") from error
        yield


def _shard(run: Path, step: int) -> Path:
    return run / f"checkpoint.shard{distributed.rank()}.step{step}.pt"


def _bytes(content: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _read(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: missing; the checkpoint was made with other processes, start it with as many"
        ) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise UserError(f"{path}: not a checkpoint of this program; delete it to start over") from error


def _fit(path: Path, state: dict[str, Any], method: Method) -> None:
    try:
        method.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit the method: {error}; delete it to start over") from error


def _identity_fault(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    keys = sorted(key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key))
    changes = "; ".join(f"{key} was {theirs.get(key)!r}, now {ours.get(key)!r}" for key in keys)
    return (
        f"{path} belongs to another run ({changes}). Give the old values to go on, another --runs to start beside it, "
        f"or delete {path.parent} to start over"
    )
