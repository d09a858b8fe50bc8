"""By which code, on what, a number came about. Imports no torch."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmark.core.files import file_hash

REPOSITORY = Path(__file__).resolve().parents[2]
_CARRIED = REPOSITORY / "benchmark" / "leaderboards"  # by the wheel; a clone has none there
IS_INSTALLED = _CARRIED.is_dir()
LEADERBOARDS = _CARRIED if IS_INSTALLED else REPOSITORY / "leaderboards"
CODE_PACKAGES = ("benchmark", "recipes")
CODE = (*CODE_PACKAGES, "pyproject.toml")  # what a "+dirty" commit is dirty in

_OF_ANOTHER_REPOSITORY = {
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"),
    *("GIT_PREFIX", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_IMPLICIT_WORK_TREE", "GIT_LITERAL_PATHSPECS"),
}


def is_clone() -> bool:
    """Whether this code runs from a clone. An installed copy may lie inside somebody else's repository, as a virtual
    environment often does, and git would answer there with that one's commit."""
    return all((REPOSITORY / name).exists() for name in (".git", *CODE))  # .git is a file in a worktree


def commit() -> str:
    """The clone's commit, with "+dirty" if its code has uncommitted changes; "" where there is no clone, or where git
    does not answer (git_complaint)."""
    return _head()[0]


def git_complaint() -> str:
    """Why a clone's commit is not known, and what to do about that; "" where it is, or where there is no clone."""
    return _head()[1]


@functools.cache  # as it was when this process first asked: a pull in the middle of a run is not what runs
def _head() -> tuple[str, str]:
    """(the clone's commit, why it is not known)."""
    if not is_clone():
        return "", ""
    try:
        # untracked code counts, whatever the user's own settings show
        changed = _git("status", "--porcelain", "--untracked-files=all", "--", *CODE)
        return _git("rev-parse", "HEAD").strip() + ("+dirty" if changed.strip() else ""), ""
    except subprocess.CalledProcessError as error:
        said = next(iter(error.stderr.splitlines()), f"it ended with status {error.returncode}")
    except OSError as error:
        said = f"it cannot be started: {error.strerror}"
    mend = f"`git config --global --add safe.directory '{REPOSITORY}'`" if "ownership" in said else "mending that"
    return "", (
        f"git does not tell the commit of {REPOSITORY} ({said}): records will hold the hash of the code and no commit, "
        f"and are not for publishing; {mend} helps"
    )


@functools.cache
def code_hash() -> str:
    """Twelve hex digits over the Python files of the benchmark and its recipes, as they were when this process first
    asked: the same for a clone and for what was installed from it, with git or without."""
    digest = hashlib.sha256()
    for package in CODE_PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(REPOSITORY).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def own_version() -> str:
    """As 0.1.0, commit 3f1c…, code 91ab…, torch 2.9.1: a clone's own version, whatever else is installed. An installed
    copy has no commit."""
    told, at = versions()["sslbench"], ""
    if is_clone():
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        told, at = project["version"], f", commit {commit() or 'unknown'}"
    return f"{told}{at}, code {code_hash()}, torch {versions()['torch']}"


@functools.cache
def commit_date(commit: str) -> str:
    """The day of a commit, as 2020-06-14; "unknown" where the commit is not in this clone, or there is no clone."""
    if not is_clone():
        return "unknown"
    try:
        return _git("show", "-s", "--format=%cs", commit.removesuffix("+dirty"), "--").strip() or "unknown"
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    """What git says of this repository and no other: not of one around it, where this one's .git is damaged, nor of the
    one whose hook started us, which the environment names."""
    around = {name: text for name, text in os.environ.items() if name not in _OF_ANOTHER_REPOSITORY}
    around |= {"GIT_CEILING_DIRECTORIES": str(REPOSITORY.parent), "LC_ALL": "C"}
    done = subprocess.run(
        ("git", *arguments),
        cwd=REPOSITORY,
        check=True,
        env=around,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    return done.stdout


def versions(*classes: type) -> dict[str, str]:
    """Of python, of every package whose version could move a number, and of the benchmark's own code. classes: those
    that a user may have written; the hash of each file that is not the benchmark's is among them."""
    found = {"python": platform.python_version()}
    for package in ("torch", "torchvision", "numpy", "scikit-learn", "pillow", "simplejpeg", "sslbench"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    files = {Path(getattr(sys.modules.get(one.__module__), "__file__", None) or REPOSITORY) for one in classes}
    users = [path for path in files if path.is_file() and not _is_own(path)]
    return found | {"sslbench code": code_hash()} | {path.name: file_hash(path) for path in sorted(users)}


def _is_own(path: Path) -> bool:
    return any(path.resolve().is_relative_to(REPOSITORY / package) for package in CODE_PACKAGES)
