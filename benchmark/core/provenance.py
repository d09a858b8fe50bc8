"""By which code, on what, a number came about. Imports no torch."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LEADERBOARDS = REPOSITORY / "leaderboards"
CODE = ("benchmark", "recipes", "pyproject.toml")  # what a "+dirty" commit is dirty in


def commit() -> str:
    """The repository's commit with "+dirty" if its code has uncommitted changes; "" outside of git."""
    try:
        head = _git("rev-parse", "HEAD").strip()
        return head + ("+dirty" if _git("status", "--porcelain", "--", *CODE).strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


@functools.cache
def commit_date(commit: str) -> str:
    """The day of a commit, as 2020-06-14; "unknown" where the commit is not in this repository."""
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
