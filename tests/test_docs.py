"""The pages in docs/ are held to the code: their examples run, their links and commands exist, nothing is left out."""

from __future__ import annotations

import ast
import functools
import math
import re
import runpy
import shlex
import statistics
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from tyro.extras import SubcommandApp

from benchmark import cli
from benchmark.cli import run
from benchmark.recipe.catalogue import find_recipes
from benchmark.records import frame
from benchmark.records.folders import read_published
from benchmark.records.record import Record, read_record
from benchmark.tables import ledger_frame
from benchmark.tables.layout import LEADERBOARDS, read_layouts
from benchmark.toyland import build_world
from benchmark.transfers import find_transfers

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), *(page for page in [ROOT / "README.md"] if page.is_file())]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUNNABLE = re.compile(r"<!-- runnable: (\S+) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"), "smoke", datasets=["imagenet"], workers=1, progress=False)


def runnable(page: str, folder: Path) -> Path:
    """Write the page's one runnable block below `folder`, as the file that the page says it is."""
    ((path, code),) = RUNNABLE.findall((DOCS / page).read_text())
    target = folder / path
    target.parent.mkdir()
    target.write_text(code)
    return target.parent


def test_the_method_of_the_page_is_pretrained(tmp_path: Path, world: Path) -> None:
    recipes = runnable("adding-a-method.md", tmp_path)
    assert list(find_recipes(recipes)) == ["simsiam"]
    flags = ["--scale", "smoke", "--data", str(world), "--runs", str(tmp_path / "runs"), "--workers", "0"]
    assert run(["pretrain", "simsiam", "--recipes-dir", str(recipes), "--device", "cpu", *flags]) == 0
    assert (tmp_path / "runs/smoke/simsiam/seed0/backbone.safetensors").is_file()


def test_the_transfer_of_the_page_scores(tmp_path: Path, world: Path) -> None:
    transfers = runnable("adding-a-transfer.md", tmp_path)
    runs, name = tmp_path / "runs", "nearest_mean_imagenet_mensink"
    assert name in find_transfers(transfers)
    flags = ["--scale", "smoke", "--data", str(world), "--runs", str(runs), "--workers", "0", "--device", "cpu"]
    assert run(["pretrain", "random_init", *flags]) == 0
    assert run(["transfer", "random_init", name, "--transfers-dir", str(transfers), *flags]) == 0
    metrics = read_record(runs / "smoke/random_init/seed0" / f"{name}.json").metrics
    assert 0 <= metrics["top1"] <= metrics["top5"] == 100  # the smoke world has four classes


def test_the_analysis_of_the_page_finds_the_means_of_the_records(tmp_path: Path) -> None:
    script = runnable("frames.md", tmp_path) / "beside_pirl.py"
    found = runpy.run_path(str(script))
    records = [record for record in read_published(LEADERBOARDS / "measured") if record.scale == "desk"]
    pirl = [one for one in records if (one.recipe, one.transfer) == ("pirl", "linear_imagenet_pirl")]
    row = found["beside"].set_index("recipe").loc["pirl"]
    assert row["mean"] == pytest.approx(statistics.mean(one.metrics["top1"] for one in pirl))
    assert row["std"] == pytest.approx(statistics.stdev(one.metrics["top1"] for one in pirl))
    assert (row["count"], row["reported"]) == (len(pirl), 63.6)
    by_stage = found["stages"].loc["pirl"].iloc[0]
    assert by_stage["res4"] == pytest.approx(statistics.mean(one.detail["per_stage"]["res4"] for one in pirl))


def test_the_interval_of_the_page_is_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(runnable("reading-a-table.md", tmp_path) / "one_pair.py"))
    printed = capsys.readouterr().out.strip()
    assert printed.startswith(("+", "-"))
    assert f"PIRL less Supervised {printed}" in (LEADERBOARDS / "pirl_detection_voc07.md").read_text()


@pytest.mark.parametrize(("heading", "made"), [("the scores", frame), ("the ledger", ledger_frame)])
def test_the_columns_of_the_page_are_those_of_the_frames(heading: str, made: Callable[[], Any]) -> None:
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", sections("frames.md")[f"Columns of {heading}"], re.MULTILINE)
    told: dict[str, str] = {}
    for names, types in rows:
        columns = re.findall(r"`(\w+)`", names)
        told |= dict(zip(columns, types.split(", ") * (1 if ", " in types else len(columns)), strict=True))
    assert told == {name: str(dtype) for name, dtype in made().dtypes.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(CODE.sub("", page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in set(anchors(file)), f"{page.name} links to {target}"


def anchors(page: Path) -> Iterator[str]:
    """As GitHub makes them of headings."""
    for heading in re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text()), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+)%?:", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(page.read_text(), "make"):
        target = next((word for word in words if "=" not in word), "help")
        known = {
            *find_recipes(),
            "<recipe>",
            *(f"{name}-tables" for one in read_layouts() for name in (one.of, one.key)),
        }
        is_run = target.startswith("reproduce-") and target.removeprefix("reproduce-") in known
        assert target in targets or is_run, f"{page.name}: make {words}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path, parser: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for words in (*commands(page.read_text(), "sslbench"), *commands(page.read_text(), "-m benchmark")):
        if len(words) == 1 and words[0] in COMMANDS:
            continue  # the name of a command, in a sentence
        assert parses(words), f"{page.name}: sslbench {' '.join(words)}\n{''.join(capsys.readouterr())}"
        assert parser.pop() == words[0]


def test_the_parser_is_the_real_one(parser: list[str]) -> None:
    right = [["plan", "pirl", "--recipe.method.tau", "0.1"], ["doctor", "--data", "DIR"], ["tables"]]
    wrong = [["plan"], ["plan", "pirl", "rotation"], ["doctor", "--dat", "DIR"], ["plan", "pirl", "--processes", "n"]]
    assert [parses(words) for words in right + wrong] == [True] * len(right) + [False] * len(wrong)
    assert parser == ["plan", "doctor", "tables"]


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that were parsed; none of them is run."""
    parsed: list[str] = []
    app = SubcommandApp()

    def noted(name: str, function: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(function)
        def note(*_: object, **__: object) -> int:
            parsed.append(name)
            return 0

        return note

    for name, function in COMMANDS.items():
        app.command(noted(name, function), name=name)
    monkeypatch.setattr(cli, "app", app)
    return parsed


def parses(words: list[str]) -> bool:
    try:
        return run(words) == 0
    except SystemExit:  # how the parser says no
        return False


def commands(text: str, start: str) -> Iterator[list[str]]:
    """What follows `start` in each command in fenced shell code and in inline code, without comments."""
    fenced = [line for language, code in CODE.findall(text) if language in ("sh", "bash") for line in code.split("\n")]
    for line in [*fenced, *re.findall(r"`([^`\n]+)`", CODE.sub("", text))]:
        words = re.search(rf"(?:^|\s){start} (.+)", line)
        if words:
            yield shlex.split(words[1], comments=True)


def subcommands() -> Iterator[tuple[str, Callable[..., int]]]:
    """(command, its function), read from the source of the command line."""
    for node in ast.parse((ROOT / "benchmark/cli.py").read_text()).body:
        if isinstance(node, ast.FunctionDef) and any("app.command" in ast.unparse(d) for d in node.decorator_list):
            yield node.name.rstrip("_").replace("_", "-"), getattr(cli, node.name)


COMMANDS = dict(subcommands())
PLACEHOLDER = re.compile(r"\b(todo|tbd|tba|fixme|xxx+|lorem ipsum)\b|\?\?\?", re.IGNORECASE)


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "leaderboards").glob("*.md"))], ids=lambda page: page.name)
def test_no_placeholder_is_left(page: Path) -> None:
    text = page.read_text()
    assert not PLACEHOLDER.search(text)
    # in code, angle brackets are a part of a path or a command that varies; in prose, they would be left to be filled
    prose = re.sub(r"""`[^`\n]+`|<!--.*?-->|</?(sup|br|u|a)( id="\w+")?>""", "", CODE.sub("", text), flags=re.DOTALL)
    assert not re.findall(r"<[^<>\n]+>", prose)


def test_the_excerpts_of_a_recipe_are_its_own() -> None:
    lines = {line.strip() for line in (ROOT / "recipes/pirl.py").read_text().split("\n")}
    for language, code in CODE.findall((DOCS / "reading-a-recipe.md").read_text()):
        if language == "python":
            assert {line.strip() for line in code.strip().split("\n")} <= lines


def test_the_change_that_the_gate_catches_can_be_made() -> None:
    page = (DOCS / "regression-gate.md").read_text()
    ((old, new, file),) = re.findall(r"^sed -i 's/(.+)/(.+)/' (\S+)$", page, re.MULTILINE)
    assert (ROOT / file).read_text().count(old) == 1
    assert old != new


def sections(page: str) -> dict[str, str]:
    """Heading, without its marks -> what stands below it, for headings of levels 2 and 3."""
    parts = re.split(r"^###? (.+)$", (DOCS / page).read_text(), flags=re.MULTILINE)
    return dict(zip((heading.strip("`") for heading in parts[1::2]), parts[2::2], strict=True))


def test_every_transfer_is_described_as_it_is() -> None:
    described = sections("protocols.md")
    for name, transfer in find_transfers().items():
        assert name in described, f"docs/protocols.md has no section {name!r}"
        assert f"Version {transfer.card.version}." in described[name], f"docs/protocols.md: {name} has another version"
    assert {name for name in described if "_" in name} == set(find_transfers())


def linear_records() -> dict[str, dict[str, dict[int, Record]]]:
    """scale -> recipe -> seed -> its published record of the linear classifiers."""
    found: dict[str, dict[str, dict[int, Record]]] = {}
    for record in read_published(LEADERBOARDS / "measured"):
        if record.transfer == "linear_imagenet_pirl":
            found.setdefault(record.scale, {}).setdefault(record.recipe, {})[record.seed] = record
    return found


def as_in_results(records: Collection[Record]) -> str:
    """A row of docs/results.md: mean of each stage, of the chosen one with its deviation, number of seeds."""
    scores = [[*record.detail["per_stage"].values(), record.metrics["top1"]] for record in records]
    means = [f"{statistics.mean(of_stage):.1f}" for of_stage in zip(*scores, strict=True)]
    if len(records) > 1:
        means[-1] += f" ± {statistics.stdev(score[-1] for score in scores):.1f}"
    return " | ".join([*means, str(len(records))])


def test_results_are_those_of_the_records() -> None:
    page, found = (DOCS / "results.md").read_text(), linear_records()
    rows = {
        section: re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE)
        for section, text in sections("results.md").items()
    }
    for section, its_rows in rows.items():
        per_method = found["photos" if section == "On photographs" else "desk"]
        for method, cells in its_rows:
            assert cells == as_in_results(per_method[method].values()), (section, method)
    assert set(found["photos"]) - {"descriptors"} == {method for method, _ in rows["On photographs"]}
    assert len(rows["Linear classifiers on ImageNet"]) == 7
    descriptors = found["photos"]["descriptors"][0]
    assert f"Descriptors that learn nothing reach {descriptors.metrics['top1']:.1f}**" in page
    per_method = found["desk"]
    pairs = [
        per_method["pirl"][seed].metrics["top1"] - per_method["npid_pp"][seed].metrics["top1"] for seed in range(3)
    ]
    mean, half = statistics.mean(pairs), float(stats.t.ppf(0.975, 2)) * statistics.stdev(pairs) / math.sqrt(3)
    assert f"{mean:+.1f}, 95 % interval {mean - half:+.1f} to {mean + half:+.1f}" in " ".join(page.split())


def test_the_table_of_the_readme_is_that_of_the_leaderboards() -> None:
    ours, whole = (markdown_table(page.read_text()) for page in (ROOT / "README.md", LEADERBOARDS / "pirl_linear.md"))
    assert len(ours) == len(whole) > 5
    for method, cells in ours.items():
        assert cells.items() <= whole[method].items(), method
    assert any("desk" in column for column in ours["PIRL"])


def markdown_table(text: str) -> dict[str, dict[str, str]]:
    """The page's first table with a Method column: method -> column -> cell, without footnote marks."""
    lines = text[text.index("| Method") :].split("\n\n")[0].splitlines()
    rows = [[re.sub(r"<sup>.*?</sup>", "", cell).strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}
