"""docs/methods.md and docs/departures.md: written from the code and the ledger, never stale, and nothing left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from benchmark.core.plain import as_plain
from benchmark.gate.check import current_boards
from benchmark.gate.pages import by_processes
from benchmark.recipe.catalogue import find_recipes, recipes_by_file
from benchmark.recipe.scales import Scale, at_scale
from benchmark.records.folders import read_published
from benchmark.tables.departures import HARNESS, departures_in, departures_page, notes_in
from benchmark.tables.ledger import LEADERBOARDS, read_names
from benchmark.tables.methods import methods_page
from benchmark.tables.pages import documentation_files
from benchmark.transfers import find_transfers

CARDS = {name: transfer.card.departures for name, transfer in find_transfers().items()}
BOARDS = current_boards()
BY_PROCESSES = by_processes()
METHODS, DEPARTURES = (page.partition("-->\n")[2] for page in documentation_files(BOARDS, CARDS, BY_PROCESSES).values())
FLAT = " ".join(DEPARTURES.split())  # no matter where lines are wrapped


def cells(page: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines() if line[:1] == "|"]


def test_the_written_pages_are_not_stale():
    for path, text in documentation_files(BOARDS, CARDS, BY_PROCESSES).items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is stale: run `sslbench tables --write`"
    assert {path.name for path in documentation_files(BOARDS, CARDS, BY_PROCESSES)} == {"methods.md", "departures.md"}


def test_every_recipe_and_every_name_of_the_ledger_is_a_method_once():
    recipes = [row[1].split("`")[1] for row in cells(METHODS) if "../recipes/" in row[1]]
    assert sorted(recipes) == sorted(find_recipes())
    names = read_names()["method"]
    titles = [row[0].partition(", also")[0] for row in cells(METHODS.partition("## Reported only")[2])[2:]]
    undated = METHODS.rstrip().split("\n")[-1]
    others = [name.title for name in names.values() if name.name not in recipes]
    assert sorted([*titles, *(title for title in others if f"{title} (`" in undated)]) == sorted(others)


def test_a_recipe_is_measured_where_a_table_shows_a_published_record_of_it():
    records = list(read_published(LEADERBOARDS / "measured"))
    for row in cells(METHODS.partition("## Reported only")[0])[2:]:
        recipe = row[1].split("`")[1]
        shown = dict(part.split(": ") for part in row[4].split("; ")) if row[4] != "–" else {}
        found = {}
        for scale in ("paper", "photos", "desk"):
            scored = {one.transfer for one in records if (one.recipe, one.scale) == (recipe, scale)}
            tables = {
                key
                for key, board in BOARDS.items()
                for one in board.layout.rows
                for column in board.layout.columns
                if one.recipe_in(column.title) == recipe and one.scored_by(column)[0] in scored
            }
            found |= {scale: tables} if tables else {}
        assert {scale: set(re.findall(r"\[(\w+)\]", part)) for scale, part in shown.items()} == found, recipe


def test_a_method_without_a_recipe_says_where_it_is_reported():
    (aet,) = [row for row in cells(METHODS) if row[0] == "AET, also `aet_project`"]
    assert aet[1] == "Zhang L. et al., CVPR 2019, [arXiv:1901.04596](https://arxiv.org/abs/1901.04596)"
    assert aet[2] == "AlexNet"
    assert aet[3] == "[pirl_linear_other_setups](../leaderboards/pirl_linear_other_setups.md)"
    (byol,) = [row for row in cells(METHODS) if row[0] == "BYOL"]
    assert byol[3] == "no table, see `sslbench show byol`"


def test_a_recipe_says_what_makes_it_another_run_on_several_processes():
    told = {row[1].split("`")[1]: row[5] for row in cells(METHODS.partition("## Reported only")[0])[2:]}
    assert told["moco"] == told["simclr"] == "nothing"
    assert told["npid"] == "BatchNorm: statistics of each process's own images"
    assert told["jigsaw_pp"] == "dropout: each process draws for itself"


def test_every_departure_is_collected():
    """Counted in another way than the collector's: by lines of the sources."""
    files = [*recipes_by_file(), *HARNESS.rglob("*.py")]
    notes = sum(len(re.findall(r"(?:^[^\"`\n]*# |^ +)NOTE: ", file.read_text(), re.MULTILINE)) for file in files)
    listed = sum(
        len(re.findall(r"^- ", part, re.MULTILINE))
        for file in files
        for part in re.findall(r'\nDepartures:\n(.*?)"""', file.read_text(), re.DOTALL)
    )
    assert notes >= 2
    told = DEPARTURES.partition("## Recipes, at paper scale")[2].partition("## Protocols")[0]
    assert len(re.findall(r"^- ", told, re.MULTILINE)) == notes + listed
    for name, lines in CARDS.items():
        assert f"[`{name}`](protocols.md#{name})" in DEPARTURES
        for line in lines:
            assert line.partition(": ")[2][1:] in FLAT, f"{name}: {line}"


@pytest.mark.parametrize(("before", "after"), [("paper", "desk"), ("desk", "photos")])
def test_every_setting_that_a_scale_changes_is_listed(before: Scale, after: Scale):
    section = DEPARTURES.partition(f"## Recipes, at {after} scale")[2].partition("\n## ")[0]
    rows = [(row[0].strip("`"), row[4]) for row in cells(section)[2:]]
    for name, recipe in find_recipes().items():
        old, new = (as_plain(at_scale(recipe, scale)) for scale in (before, after))
        listed = {key.split(".")[0] for key, recipes in rows if f"`{name}`" in recipes}
        assert listed == {key for key in old if old[key] != new[key]}, name


def test_what_was_found_from_outside_is_stated():
    for statement in (
        "VISSL also turns before it crops, but inside the old frame",  # rotation
        "VISSL's configuration of NPID spares them",  # BatchNorm's decay
        "Goyal et al. spare them (section 5.1)",  # the same of supervised
        "The warm-up starts at a third of the rate, as in the paper; VISSL's file leaves detectron2's 0.001",
        "The warm-up raises the rate at every step. VISSL's configuration raises it once an epoch",  # jigsaw
    ):
        assert FLAT.count(statement) == 1, statement


def test_a_recipe_that_says_nothing_of_departures_is_named(tmp_path: Path):
    path = tmp_path / "silent.py"
    path.write_text('"""A method.\n\nNobody, "Nothing", CVPR 2020, arXiv:2001.00001.\n"""\n')
    with pytest.raises(UserError, match=r"silent\.py: list under \"Departures:\""):
        departures_page({path: {"silent": find_recipes()["pirl"]}}, {})


def test_a_recipe_that_cites_no_paper_is_named(tmp_path: Path):
    path = tmp_path / "rootless.py"
    path.write_text('"""A method.\n\nDepartures:\n- None known.\n"""\n')
    with pytest.raises(UserError, match=r"rootless\.py: its docstring must cite the paper"):
        methods_page({path: {"rootless": find_recipes()["pirl"]}}, {}, {})


@pytest.mark.parametrize("line", ["batches of 64", "laptop: batches of 64", "desk:batches"])
def test_a_card_must_say_at_which_scale_it_departs(line: str):
    with pytest.raises(UserError, match="begin with the scale"):
        departures_page({}, {"knn_imagenet_wu": (line,)})


def test_a_transfer_whose_variable_has_another_name_than_its_card_is_named():
    with pytest.raises(UserError, match="no variable is called 'knn_imagenet_wong'"):
        departures_page({}, {"knn_imagenet_wong": ("desk: batches of 64",)})


def test_lists_and_notes_are_read_to_their_ends():
    docstring = """A method.

    Departures:
    - The first,
      on two lines.
    - The second.

    - Not one of them.
    """
    assert departures_in(docstring) == ["The first, on two lines.", "The second."]
    assert departures_in("Departures are discussed elsewhere.") == []
    source = '''
def f():
    """What it does.
    NOTE: in a docstring,
    to its end.

    More.
    """
    # NOTE: on two
    # lines.
    x = 1  # NOTE: at a line
    # another comment
    return "NOTE: not this"
'''
    assert notes_in(source) == ["in a docstring, to its end.", "on two lines.", "at a line"]
