"""One error, one advice: what keeps a file from being written, read or locked is told as what it is."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmark import cli
from benchmark.core import tensor_file
from benchmark.core.errors import UserError, remedy
from benchmark.core.files import write_whole
from benchmark.engine.checkpoint import CONTENT, locked, read_state
from benchmark.toyland import build_world


def raising(number: int) -> Callable[..., None]:
    def fail(*arguments: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EAGAIN, "another process is working there"),
        (errno.EACCES, "another process is working there"),  # what some systems say of a lock that is held
        (errno.ENOLCK, r"No locks available.*mounted with locks"),
        (errno.ENOSYS, r"not implemented.*mounted with locks"),
        (errno.EIO, r"Input/output error.*check the disk"),
    ],
)
def test_a_lock_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str):
    monkeypatch.setattr(fcntl, "lockf", raising(number))
    with pytest.raises(UserError, match=rf"{tmp_path}.*{said}.*--runs") as told, locked(tmp_path):
        pass
    assert ("another process" in str(told.value)) is (number in (errno.EAGAIN, errno.EACCES))


ADVICE = {
    errno.ENOSPC: "free space",
    errno.EDQUOT: "free space",
    errno.EACCES: "may write",
    errno.EROFS: "read-only",
    errno.EMFILE: "ulimit -n",
    errno.ENOTDIR: "a file stands where a folder must be",
    errno.EIO: "check the disk",
}


@pytest.mark.parametrize(("number", "said"), ADVICE.items(), ids=[errno.errorcode[one] for one in ADVICE])
def test_what_keeps_a_file_from_being_written(tmp_path: Path, monkeypatch, number: int, said: str):
    monkeypatch.setattr(Path, "open", raising(number))
    for write in (lambda: write_whole(tmp_path / "x", b""), lambda: locked(tmp_path).__enter__()):
        with pytest.raises(UserError, match=said) as told:
            write()
        assert os.strerror(number) in str(told.value)
        assert ("free space" in str(told.value)) is (said == "free space")


def test_no_advice_is_empty():
    assert {number for number in errno.errorcode if not remedy(OSError(number, "x"))} == set()
    assert remedy(OSError("AF_UNIX path too long"))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_a_file_that_cannot_be_read_now_is_not_called_damaged(tmp_path: Path, monkeypatch, number: int):
    """To delete it would lose days of work."""
    path = tmp_path / "checkpoint.pt"
    torch.save(dict.fromkeys(CONTENT, 0), path)
    monkeypatch.setattr(torch, "load", raising(number))
    monkeypatch.setattr(Path, "open", raising(number))
    form = tensor_file.Format("x", 1, frozenset())
    monkeypatch.setattr(Path, "read_text", raising(number))
    for read in (lambda: read_state(path, CONTENT), lambda: tensor_file.read_tensors(path, form)):
        with pytest.raises(UserError, match=rf"{path}: cannot be read \({os.strerror(number)}\)") as told:
            read()
        assert not any(word in str(told.value) for word in ("delete", "damaged", "not a"))
    with pytest.raises(UserError, match=rf"toyland\.json: cannot be read \({os.strerror(number)}\)"):
        build_world(tmp_path, "smoke", datasets=["imagenet"], progress=False)


def test_a_world_on_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fcntl, "flock", raising(errno.ENOLCK))
    with pytest.raises(UserError, match=r"No locks available.*choose another place"):
        build_world(tmp_path, "smoke", datasets=["imagenet"], progress=False)


ALONE = "list plan world doctor reproduce tables check show export import leaderboards speed publish"


@pytest.mark.parametrize("command", ALONE.split())
def test_several_processes_are_refused_at_once_where_one_does_the_work(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """All but pretrain and transfer, so that none does the same work, in the same folders, several times."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.run([command]) == 2
    assert f"`sslbench {command}` runs in one process: start it without torchrun" in capsys.readouterr().err


def test_one_process_of_torchrun_is_one_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert cli.run(["list"]) == 0
    assert capsys.readouterr().err == ""
