"""A path that cannot be what a command needs is refused by path and flag, before the work; a full disk or a folder that
may not be written to, after it, leaves nothing half-written."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_docs import COMMANDS

from benchmark import cli
from benchmark.core.errors import UserError
from benchmark.core.files import require_folder
from benchmark.toyland import build_world

# what a command cannot go without, so that only the path is at fault
NEEDED = {"plan": "pirl", "pretrain": "pirl", "speed": "pirl", "transfer": "pirl voc07_svm_goyal", "reproduce": "pirl"}


def flags_for_folders() -> Iterator[tuple[str, str]]:
    """(command, flag) of every flag that takes a path."""
    for command in COMMANDS:
        hints = cli._flags_of(command)
        for flag, _ in cli._paths([f"{flag}=x" for flag in hints], hints):
            if flag not in ("--folder", "--file") and (command, flag) != ("publish", "--runs"):  # these have no flag
                yield command, flag


FLAGS = list(flags_for_folders())


def test_the_flags_are_found():
    assert {flag for _, flag in FLAGS} == {"--data", "--runs", "--sheets", "--into", "--recipes-dir", "--transfers-dir"}
    assert len(FLAGS) > 20


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("f").write_text("mine", encoding="utf-8")
    Path("link").symlink_to("nowhere")
    return tmp_path


def refused(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.run(shlex.split(line)) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert Path("f").read_text(encoding="utf-8") == "mine"
    assert sorted(os.listdir(".")) == ["f", "link"], "nothing was drawn or written"
    return told


@pytest.mark.parametrize(("command", "flag"), FLAGS)
@pytest.mark.parametrize("path", ["f", "f/x/y", "link", "'f/a b'"])
def test_a_file_where_a_folder_is_wanted_is_named_with_its_flag(
    command: str, flag: str, path: str, capsys: pytest.CaptureFixture[str]
):
    told = refused(f"{command} {NEEDED.get(command, '')} {flag} {path}", capsys)
    assert f"{flag} {shlex.split(path)[0]}: " in told
    assert "is a file, or a link that leads nowhere; give another folder" in told


@pytest.mark.parametrize("command", ["export", "leaderboards", "publish"])
@pytest.mark.parametrize("path", ["f", "f/x", "link"])
def test_so_is_one_without_a_flag(command: str, path: str, capsys: pytest.CaptureFixture[str]):
    assert f"DIR {path}: " in refused(f"{command} {path}", capsys)


def test_a_name_that_no_file_system_takes_is_told(capsys: pytest.CaptureFixture[str]):
    assert "File name too long" in refused(f"tables --runs {'x' * 300}", capsys)


def test_a_folder_that_is_there_or_can_be_made_is_taken(here: Path):
    for path in (here, Path("."), Path("new/deep"), Path("two\nlines"), here / "new"):
        require_folder(path, "--runs")


COMMANDS_THAT_WRITE = ["export e/a", "tables --scale smoke --runs e/a", "leaderboards e/a"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("line", COMMANDS_THAT_WRITE)
def test_what_cannot_be_written_is_one_error_and_nothing_half_written(
    line: str, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    empty: dict[str, Any] = {}
    monkeypatch.setattr("benchmark.gate.check.current_boards", lambda: empty)
    monkeypatch.setattr("benchmark.gate.pages.current_boards", lambda: empty)
    monkeypatch.setattr("benchmark.gate.pages.IS_INSTALLED", True)  # the site alone: not this clone's own pages
    monkeypatch.setattr("benchmark.gate.pages.site_files", lambda boards, protocols: {"index.html": "x"})
    monkeypatch.setattr("benchmark.tables.export.export_files", lambda boards: {"some.csv": "x"})
    monkeypatch.setattr("benchmark.tables.parquet.parquet_files", lambda boards: empty)
    monkeypatch.setattr("benchmark.runs.reproduce.boards", lambda *_, **__: empty)
    monkeypatch.setattr(os, "fsync", fail)
    assert cli.run(line.split()) == 2
    told = capsys.readouterr().err
    assert "e/a/" in told
    assert os.strerror(number) in told
    assert [path for path in Path("e").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_world_that_cannot_be_drawn_leaves_nothing(number: int, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number), "w/some.jpg")

    monkeypatch.setattr("benchmark.toyland.world._draw_chunk", fail)
    with pytest.raises(UserError, match=rf"w: the world could not be written \({os.strerror(number)}: w/some\.jpg"):
        build_world(Path("w"), "smoke", datasets=["yfcc100m"], workers=1, progress=False)
    assert [path.name for path in Path("w").iterdir()] == [".toyland-lock"]
