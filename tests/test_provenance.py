"""Provenance is the code's own: not of a repository around it, not of one that the environment names, and never
silently empty."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from benchmark import cli
from benchmark.core import provenance
from benchmark.core.errors import UserError
from benchmark.engine.stretches import UNKNOWN, change_told, continued
from benchmark.runs.kept_work import kept_by


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=They", "-c", "user.email=they@example.org")
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def committed(folder: Path) -> str:
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "All")
    return git(folder, "rev-parse", "HEAD").strip()


@pytest.fixture
def theirs(tmp_path: Path) -> str:
    """The commit of a repository around the clone."""
    (tmp_path / "paper.tex").touch()
    return committed(tmp_path)


@pytest.fixture
def clone(tmp_path: Path, theirs: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "clone"
    for name in ("benchmark/core", "recipes"):
        (folder / name).mkdir(parents=True)
        (folder / name / "some.py").write_text("x = 1\n", encoding="utf-8")
    (folder / "pyproject.toml").write_text('[project]\nversion = "7.0"\n', encoding="utf-8")
    committed(folder)
    monkeypatch.setattr(provenance, "REPOSITORY", folder)
    forget()
    yield folder
    forget()


def forget() -> None:
    """What this process asked once, as a new process has not."""
    provenance._head.cache_clear()
    provenance.code_hash.cache_clear()


def test_a_clone_tells_its_own_commit_and_whether_code_differs(clone: Path, theirs: str):
    head = git(clone, "rev-parse", "HEAD").strip()
    assert (provenance.commit(), provenance.git_complaint()) == (head, "")
    assert head != theirs
    git(clone, "config", "status.showUntrackedFiles", "no")  # as some set for speed
    (clone / "recipes/new.py").touch()
    assert provenance.commit() == head, "what this process runs by is what it found first"
    forget()
    assert provenance.commit() == f"{head}+dirty"


def test_a_hook_of_another_repository_changes_nothing(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    head = git(clone, "rev-parse", "HEAD").strip()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert provenance.commit() == head


def damaged(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clone / ".git/HEAD").unlink()


def somebody_elses(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")


def without_git(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(clone))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (damaged, "not a git repository"),
        (somebody_elses, "dubious ownership"),
        (without_git, "it cannot be started: No such file"),
    ],
)
def test_where_git_does_not_answer_it_is_told_once_and_the_code_has_its_hash(
    fault: Callable[[Path, pytest.MonkeyPatch], None],
    said: str,
    clone: Path,
    theirs: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    code = provenance.code_hash()
    fault(clone, monkeypatch)
    forget()
    assert provenance.commit() == ""
    assert provenance.versions()["sslbench code"] == code
    assert cli.run(["--version"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"sslbench 7.0, commit unknown, code {code}, torch ")
    assert said in told.err
    assert "not for publishing" in told.err
    assert ("git config --global --add safe.directory" in told.err) is (fault is somebody_elses)
    assert told.err.count("\n") == 1


def test_an_installed_copy_says_nothing_about_git(clone: Path, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree(clone / ".git")
    assert (provenance.commit(), provenance.git_complaint()) == ("", "")
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().err == ""


def test_the_hash_is_of_the_code_and_of_nothing_else(clone: Path):
    before = provenance.code_hash()
    shutil.rmtree(clone / ".git")
    (clone / "benchmark/core/some.pyc").touch()
    (clone / "pyproject.toml").unlink()
    forget()
    assert provenance.code_hash() == before
    (clone / "benchmark/core/some.py").write_text("x = 2\n", encoding="utf-8")
    assert provenance.code_hash() == before, "what this process runs by is what it found first"
    forget()
    assert provenance.code_hash() != before
    (clone / "benchmark/core/some.py").rename(clone / "benchmark/core/other.py")
    moved, _ = forget(), provenance.code_hash
    assert provenance.code_hash() not in (before, moved)


def test_a_users_own_recipe_file_is_among_the_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = ModuleType("mine")
    module.__file__ = str(tmp_path / "mine.py")
    monkeypatch.setitem(sys.modules, "mine", module)
    own = type("Own", (), {"__module__": "mine"})
    (tmp_path / "mine.py").write_text("x = 1\n", encoding="utf-8")
    before = provenance.versions(own, UserError)
    assert set(before) - set(provenance.versions()) == {"mine.py"}
    (tmp_path / "mine.py").write_text("x = 2\n", encoding="utf-8")
    assert provenance.versions(own)["mine.py"] != before["mine.py"]


def maker(code: str = "a", **more: str) -> dict[str, object]:
    return {"commit": "c", "versions": {"sslbench code": code, **more}, "device": "cpu", "threads": 1}


def test_parts_under_the_same_code_are_one():
    assert continued([], maker()) == [maker()]
    assert continued([maker()], maker() | {"threads": 8}) == [maker()]
    assert continued([maker()], maker(**{"mine.py": "f"})) == [maker()], "another transfer's own file is no change"
    assert continued([maker()], maker("b")) == [maker(), maker("b")]
    assert change_told([maker(), maker("b") | {"commit": ""}]) == "commit c -> none; sslbench code a -> b"
    assert continued([UNKNOWN], maker()) == [UNKNOWN, maker()]


def test_work_in_a_workspace_is_used_after_a_change_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert kept_by(tmp_path / "new", maker()) == kept_by(tmp_path / "new", maker()) == [maker()]
    assert capsys.readouterr().out == ""
    written = (tmp_path / "new/made_by.json").stat().st_ino
    assert kept_by(tmp_path / "new", maker()) == [maker()]
    assert (tmp_path / "new/made_by.json").stat().st_ino == written, "a nearly full disk has room for what is new alone"
    assert kept_by(tmp_path / "new", maker("b")) == [maker(), maker("b")]
    assert capsys.readouterr().out.endswith("which is used and the record will say: sslbench code a -> b\n")
    assert kept_by(tmp_path / "new", maker("b")) == [maker(), maker("b")]
    assert capsys.readouterr().out == "", "told when it changes"
    (tmp_path / "old").mkdir()
    (tmp_path / "old/linear-0123.pt").touch()
    assert kept_by(tmp_path / "old", maker()) == [UNKNOWN, maker()]
    assert "was not kept then" in capsys.readouterr().out
    for damage in ("{", "[]", json.dumps({"made_by": 3})):
        (tmp_path / "old/made_by.json").write_text(damage, encoding="utf-8")
        with pytest.raises(UserError, match=r"made_by\.json: damaged; delete"):
            kept_by(tmp_path / "old", maker())
