"""What `make` installs: for runs, what runs need; for tests, lint and format, the tools as well."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TOOLS = {"playwright", "mypy", "hypothesis", "pytest", "pytest-xdist", "ruff", "import-linter", "hatchling"}
OPTIONAL = {"detectron2", "cv2", "mlflow", "submitit", "wandb"}  # what imports them says how to install them
[PHONY] = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
FOR_DEVELOPERS = {"install-dev", "test", "lint", "format"}
FOR_RUNS = {*PHONY.split(), "reproduce-pirl", "reproduce-pirl-tables"} - FOR_DEVELOPERS - {"help"}


def make(*arguments: str) -> str:
    return subprocess.run(["make", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def installed(target: str, venv: Path) -> list[str]:
    """What a target would have pip install into a virtual environment that is not there yet."""
    return re.findall(r"pip install (.+)", make("--dry-run", f"venv={venv}", target))


@pytest.mark.parametrize("target", sorted(FOR_RUNS))
def test_a_run_installs_no_tools(target: str, tmp_path: Path):
    assert installed(target, tmp_path) == ["-e ."]


@pytest.mark.parametrize("target", sorted(FOR_DEVELOPERS))
def test_development_installs_them(target: str, tmp_path: Path):
    assert installed(target, tmp_path) == ["-e .", "-e '.[dev]'"]


def with_their_own(requirements: list[str]) -> set[str]:
    """The distributions that pip installs for these requirements, as far as they are installed here."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        one = waiting.pop()
        if canonicalize_name(one.name) in found or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        found.add(canonicalize_name(one.name))
        waiting += map(Requirement, requires(one.name) or ())
    return found


def test_what_runs_need_brings_no_tools_along():
    needed = with_their_own(PROJECT["dependencies"])
    assert needed >= {"torch", "werkzeug"}, "those of dependencies are looked at too"
    assert needed & TOOLS == set()
    assert with_their_own(PROJECT["optional-dependencies"]["dev"]) >= TOOLS


def test_what_is_imported_is_among_what_runs_need():
    stated = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    providers = packages_distributions()
    for path in [*(ROOT / "benchmark").rglob("*.py"), *(ROOT / "recipes").rglob("*.py")]:
        for name in imported(path) - sys.stdlib_module_names - {"benchmark", "recipes"} - OPTIONAL:
            by = {canonicalize_name(one) for one in providers.get(name, ())}
            assert by & stated, f"{path} imports {name}, which pyproject.toml does not have among its dependencies"


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in plain | named}


def test_a_path_arrives_whole(tmp_path: Path):
    (tmp_path / ".installed").touch()
    told = ["--silent", f"venv={tmp_path}", "sslbench=printf '%s\\n'", "reproduce-pirl"]
    assert make(*told).split("\n")[:-1] == ["reproduce", "pirl", "--scale", "desk", "--seeds", "0"]
    for given in ("/data sets/all", "/two  spaces", "~/data sets", "~"):  # sslbench itself expands the ~
        assert make(*told, f"DATA={given}").split("\n")[-3:-1] == ["--data", given]
    assert make(*told, "WORKERS=3", "JOBS=2").split("\n")[-5:-1] == ["--workers", "3", "--jobs", "2"]
    assert make(*told, "INCOMPLETE=1").split("\n")[-2] == "--incomplete"
