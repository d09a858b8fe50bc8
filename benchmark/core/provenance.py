"""By which code, on what, a number came about. Imports no torch."""

from __future__ import annotations

import functools
import platform
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_CARRIED = REPOSITORY / "benchmark" / "leaderboards"  # by the wheel; a clone has none there
IS_INSTALLED = _CARRIED.is_dir()
LEADERBOARDS = _CARRIED if IS_INSTALLED else REPOSITORY / "leaderboards"
CODE = ("benchmark", "recipes", "pyproject.toml")  # what a "+dirty" commit is dirty in


def is_clone() -> bool:
    """Whether this code runs from a clone. An installed copy may lie inside somebody else's repository, as a virtual
    environment often does, and git would answer there with that one's commit."""
    return all((REPOSITORY / name).exists() for name in (".git", *CODE))  # .git is a file in a worktree


def commit() -> str:
    """The clone's commit, with "+dirty" if its code has uncommitted changes; "" where there is no clone."""
    if not is_clone():
        return ""
    try:
        head = _git("rev-parse", "HEAD").strip()
        return head + ("+dirty" if _git("status", "--porcelain", "--", *CODE).strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def own_version() -> str:
    """Of a clone with its commit, as 0.1.0, commit 3f1c…, whatever else is installed; of an installed copy alone."""
    if not is_clone():
        return versions()["sslbench"]
    told = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    return f"{told}, commit {commit() or 'unknown'}"


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
    return subprocess.run(("git", *arguments), cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout


def versions() -> dict[str, str]:
    """Of python and of every package whose version could move a number."""
    found = {"python": platform.python_version()}
    for package in ("torch", "torchvision", "numpy", "scikit-learn", "pillow", "sslbench"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
