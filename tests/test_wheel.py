"""What `pip install .` leaves behind works from anywhere: the wheel carries its recipes, its ledger and its records."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.core.provenance import code_hash, versions
from benchmark.records import frame
from benchmark.records.folders import read_runs

PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # tables end a run: none may be lost by these
ROOT = Path(__file__).parents[1]
SOURCES = ("benchmark", "recipes", "leaderboards", "pyproject.toml", "README.md", "LICENSE", ".gitignore")
# Runs a command and asserts that no file of ours came from elsewhere: the environment that runs the tests may hold an
# editable install, whose clone must not help out.
DOOR = """
import sys
from pathlib import Path
from benchmark import cli
site, sys.argv = sys.argv[1], ["sslbench", *sys.argv[2:]]
try:
    cli.main()
except SystemExit as end:
    status = end.code
ours = [module for name, module in sys.modules.items() if name.split(".")[0] in ("benchmark", "recipes")]
assert all(Path(module.__file__).is_relative_to(site) for module in ours if module.__file__), ours
sys.exit(status)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources, and installed alone into a folder of somebody else's repository."""
    folder = tmp_path_factory.mktemp("wheel")
    theirs, copy = folder / "theirs", folder / "copy"
    copy.mkdir()
    for name in SOURCES:
        put = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        put(ROOT / name, copy / name)
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(folder), str(copy))
    shutil.rmtree(copy)
    [wheel] = folder.glob("*.whl")
    pip("install", "--target", str(theirs / "site"), str(wheel))
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "Theirs"]):
        git = ["git", "-c", "user.name=They", "-c", "user.email=they@example.org", *command]
        subprocess.run(git, cwd=theirs, check=True)
    return theirs / "site"


def pip(command: str, *arguments: str) -> None:
    offline = ("--no-index", "--no-deps", "--quiet", "--disable-pip-version-check")
    subprocess.run([sys.executable, "-m", "pip", command, *offline, *arguments], check=True)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run."""
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def sslbench(site: Path, empty: Path) -> Callable[..., str]:
    """Runs a command of the installed copy and gives its output; the dependencies are this environment's."""

    def run(*arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-c", DOOR, str(site), *arguments],
            cwd=empty,
            env={**os.environ, "PYTHONPATH": str(site), **PLAIN},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    return run


def test_two_packages_and_no_more_are_installed(site: Path):
    assert {path.name.split("-")[0] for path in site.iterdir()} == {"benchmark", "recipes", "sslbench", "bin"}


def test_the_installed_script_is_a_door_too(site: Path, empty: Path):
    found = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [site / "bin/sslbench", "list"], cwd=empty, env=found, capture_output=True, text=True, check=True
    )
    assert "npid_pp" in done.stdout


def test_list_tables_and_show(sslbench: Callable[..., str]):
    assert "npid_pp" in (shown := sslbench("list"))
    assert "voc07_svm_goyal" in shown
    assert "\nPIRL " in (shown := sslbench("tables"))
    assert shown.rstrip().endswith("All tables: runs/desk/tables.md")
    assert "Misra" in (shown := sslbench("show", "pirl"))
    assert "desk" in shown.partition("Measured\n")[2]


def test_every_published_score_in_two_lines_of_python(site: Path, empty: Path):
    lines = "from benchmark.records import frame\nscores = frame()\nprint(frame.__code__.co_filename, len(scores))"
    done = subprocess.run(
        [sys.executable, "-c", lines],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    code, count = done.stdout.split()
    assert Path(code).is_relative_to(site)
    assert int(count) == len(frame()) > 500


def test_reproduce_from_nothing_to_the_tables(sslbench: Callable[..., str], empty: Path):
    options = ("--scale", "smoke", "--jobs", "1", "--workers", "0", "--device", "cpu")
    assert "All tables: runs/smoke/tables.md" in sslbench("reproduce", "random_init", *options)
    assert "Nothing has changed" in sslbench("reproduce", "random_init", *options)
    records = list(read_runs(empty / "runs"))
    assert {record.recipe for record in records} == {"random_init", "descriptors", "supervised"}
    # git would have answered with the commit of the repository around it
    assert {(record.commit, record.origin["made_by"]["commit"]) for record in records} == {("", "")}
    of_code = {(one.versions["sslbench code"], one.origin["made_by"]["versions"]["sslbench code"]) for one in records}
    assert of_code == {(code_hash(), code_hash())}


def test_an_installed_copy_says_which_it_is(sslbench: Callable[..., str]):
    """The hash of its code is that of the clone it was built from, so their records can be compared."""
    assert sslbench("--version") == f"sslbench 0.1.0, code {code_hash()}, torch {versions()['torch']}\n"


def test_what_is_installed_is_not_written_to(sslbench: Callable[..., str], site: Path, empty: Path):
    before = contents(site)
    for command in ("publish runs/smoke/random_init/seed0 --allow-dirty", "tables --write", "check --accept"):
        assert "in a clone" in sslbench(*command.split(), status=2)
    assert "index.html" in sslbench("leaderboards", "page")
    assert (empty / "page/index.html").is_file()
    assert contents(site) == before


def contents(folder: Path) -> dict[Path, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
