"""A terminal of few letters costs no command its end, and files are always UTF-8."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import COMMANDS

ROOT = Path(__file__).parents[1]
ENCODINGS = {
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
# What prints more than a line or two and takes no run. `reproduce` ends with tables too: see test_wheel.py.
PRINTING = [
    *("list", "show pirl", "tables --scale smoke --runs r", "export e", "doctor --data nowhere"),
    *("plan pirl --scale smoke --num-images 64 --processes 1", "plan no\udce9one", "show \u2191"),
    *("transfer r\u2191 x", "--version", "frobnicate \u2191"),
]
# every command as a user's shell starts it, one after the other: to start python each time would take minutes
DOOR = """
import json, sys
from benchmark import cli
statuses = []
for line in json.loads(sys.argv[1]):
    sys.argv = ["sslbench", *line.split()]
    try:
        cli.main()
    except SystemExit as end:
        statuses.append(end.code)
sys.stderr.write("\\n" + json.dumps(statuses))
"""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_command_ends_well_on_any_terminal(encoding: str, tmp_path: Path):
    lines = ["--help", *(f"{name} --help" for name in COMMANDS), *PRINTING]
    around = {**os.environ, "PYTHONPATH": str(ROOT), **ENCODINGS[encoding]}
    command = [sys.executable, "-c", DOOR, json.dumps(lines)]
    done = subprocess.run(command, cwd=tmp_path, env=around, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    statuses = dict(zip(lines, json.loads(done.stderr.splitlines()[-1]), strict=True))
    bad_input = {"doctor --data nowhere", "plan no\udce9one", "show \u2191", "transfer r\u2191 x", "frobnicate \u2191"}
    assert {line for line, status in statuses.items() if status == 2} == bad_input
    assert {status for line, status in statuses.items() if line not in bad_input} <= {0, 1}
    written = [path for path in tmp_path.rglob("*") if path.suffix in (".md", ".csv", ".json", ".tex", ".html")]
    assert "±" in "".join(path.read_text(encoding="utf-8") for path in written)
    assert b"\\u2191" in done.stderr, "what the terminal cannot show is not left out"


def opened_as_text(path: Path) -> list[int]:
    """Lines that read or write text in whatever encoding the locale has."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        is_method, name = isinstance(node.func, ast.Attribute), ast.unparse(node.func).rpartition(".")[2]
        modes = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        is_text_file = name == "open" and any(set(mode) <= set("rwax+t") for mode in modes)
        if (is_method and name in ("read_text", "write_text")) or is_text_file:
            found.append(node.lineno)
    return found


def test_every_file_says_its_encoding():
    sources = [*(ROOT / "benchmark").rglob("*.py"), *(ROOT / "recipes").rglob("*.py")]
    found = [f"{path}:{line}" for path in sources for line in opened_as_text(path)]
    assert found == []


def test_a_file_without_one_would_be_found(tmp_path: Path):
    lines = ["p.read_text()", "open(p, 'w')", "p.open('a')", "p.open('rb')", "p.write_text(x, encoding='utf-8')"]
    (tmp_path / "some.py").write_text("\n".join(lines), encoding="utf-8")
    assert opened_as_text(tmp_path / "some.py") == [1, 2, 3]
