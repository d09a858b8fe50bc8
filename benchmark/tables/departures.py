"""docs/departures.md: where a number here could differ from a paper's for a reason other than chance. Imports no torch.

Each departure is stated once, where it is made. This module only collects the statements: lists under "Departures:" in
module docstrings, NOTEs in comments and docstrings, lines on protocol cards, and the reasons for what the desk scale
changes.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.plain import on_one_line
from benchmark.core.provenance import REPOSITORY
from benchmark.recipe.catalogue import assigned_names
from benchmark.recipe.contract import Recipe
from benchmark.recipe.scales import SMOKE, SMOKE_PART, against_paper, photos_against_desk
from benchmark.tables.markdown import plain_table

HEADING = "Departures:"
NOTE = re.compile(r"(# )?NOTE: ")
HARNESS = REPOSITORY / "benchmark"
SCALES = re.compile(r"every scale|(paper|photos|desk|smoke)(, (desk|smoke))*")
INTRODUCTION = """\
# Departures from the papers

Where could a number of this benchmark differ from the paper's for a reason other than chance? Sometimes the recipe
follows the authors' released code where that differs from the paper's text, sometimes the text where that differs from
the code, and sometimes it does neither.

Each departure is stated once, in the source, right where it is made. This page collects the statements and links to
the files. To see one recipe's desk values beside the paper's, run `sslbench plan pirl`. Where papers contradict each
other or themselves, see [discrepancies](../leaderboards/discrepancies.md); the tables repeat those as footnotes.

*VISSL* is facebookresearch/vissl, by the authors of PIRL and of Goyal et al. (ICCV 2019).
"""


def departures_page(
    recipes: Mapping[Path, Mapping[str, Recipe]], cards: Mapping[str, Sequence[str]], harness: Path = HARNESS
) -> str:
    """The whole page. recipes: file -> name -> recipe. cards: transfer -> the departures on its card. harness: the
    folder of the benchmark's own code. Raises UserError for a recipe file without a list of departures, a card's line
    without its scale, or a transfer that is not in the harness."""
    by_name = {name: recipe for of_file in recipes.values() for name, recipe in of_file.items()}
    parts = [
        INTRODUCTION,
        "## Recipes, at paper scale",
        *chain.from_iterable(_of_recipe_file(path, names) for path, names in recipes.items()),
        "## The harness, at every scale",
        *chain.from_iterable(_of_harness_file(path) for path in sorted(harness.rglob("*.py"))),
        "## Protocols",
        *_of_cards(cards, harness),
        "## Recipes, at desk scale",
        _changes({name: against_paper(recipe, "desk") for name, recipe in by_name.items()}, "paper", "desk"),
        "## Recipes, at photos scale",
        "As at desk scale, but without the changes that suit drawn pictures alone:",
        _changes({name: photos_against_desk(recipe) for name, recipe in by_name.items()}, "desk", "photos"),
        "## Recipes, at smoke scale",
        "As at desk scale, and in addition:",
        _list(
            [
                *(f"`{change.key}` is {on_one_line(change.value)}: {change.why}" for change in SMOKE),
                f"`{SMOKE_PART.key}` of a pool that is a part of its dataset is {SMOKE_PART.value}: {SMOKE_PART.why}",
            ]
        ),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def departures_in(docstring: str) -> list[str]:
    """The items of the list under "Departures:", each on one line; none where there is no such list."""
    lines = inspect.cleandoc(docstring).splitlines()
    if HEADING not in lines:
        return []
    items: list[str] = []
    for line in lines[lines.index(HEADING) + 1 :]:
        if line.startswith("- "):
            items.append(line.removeprefix("- "))
        elif line.startswith("  ") and items:
            items[-1] += f" {line.strip()}"
        else:
            break
    return items


def notes_in(source: str) -> list[str]:
    """Every note of a file, each on one line: in a docstring to the end of its paragraph, else to the end of its block
    of comments."""
    nodes = [one for one in ast.walk(ast.parse(source)) if isinstance(one, ast.Module | ast.ClassDef | ast.FunctionDef)]
    paragraphs = [text for node in nodes for text in (ast.get_docstring(node) or "").split("\n\n")]
    notes = []
    for block in (*paragraphs, *_comment_blocks(source)):
        lines = [line.strip() for line in block.splitlines()]
        for at in (at for at, line in enumerate(lines) if NOTE.match(line)):
            notes.append(NOTE.sub("", " ".join([lines[at], *(line.removeprefix("# ") for line in lines[at + 1 :])])))
    return notes


def _comment_blocks(source: str) -> Iterator[str]:
    """Comments in one column on lines that follow each other, as one text."""
    block: list[str] = []
    last = (-1, -1)  # line and column
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start != (last[0] + 1, last[1]):
                yield "\n".join(block)
                block = []
            block.append(token.string)
            last = token.start
    yield "\n".join(block)


def _stated_in(path: Path) -> list[str]:
    source = path.read_text(encoding="utf-8")
    if HEADING not in source and "NOTE: " not in source:  # most files; parsing them all would take a second
        return []
    return [*departures_in(ast.get_docstring(ast.parse(source)) or ""), *notes_in(source)]


def _of_recipe_file(path: Path, recipes: Mapping[str, Recipe]) -> Iterator[str]:
    items = _stated_in(path)
    if recipes and not items:
        raise UserError(f'{path}: list under "{HEADING}" in its docstring how it differs from the paper and its code')
    if items:
        yield f"### {', '.join(recipes)}"
        yield f"From {_link(path)}:"
        yield _list(items)


def _of_harness_file(path: Path) -> Iterator[str]:
    if items := _stated_in(path):
        yield f"From {_link(path)}:"
        yield _list(items)


def _of_cards(cards: Mapping[str, Sequence[str]], harness: Path) -> Iterator[str]:
    """File by file; within it, what the same protocols share at the same scale is one list."""
    names = {path: assigned_names(path) for path in sorted((harness / "transfers").rglob("*.py"))}
    if strangers := cards.keys() - set(chain.from_iterable(names.values())):
        raise UserError(f"{harness / 'transfers'}: no variable is called {min(strangers)!r}, as a card's id there is")
    for path, of_file in names.items():
        protocols: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name in (name for name in of_file if name in cards):
            for line in cards[name]:
                protocols[_scale_and_text(line)].append(f"[`{name}`](protocols.md#{name})")
        items: dict[tuple[str, str], list[str]] = defaultdict(list)
        for (scale, text), found in protocols.items():
            items[scale, ", ".join(found)].append(text)
        if items:
            yield f"From {_link(path)}:"
        for (scale, which), texts in sorted(items.items(), key=lambda one: _paper_first(one[0][0])):
            yield f"**{scale.replace(', ', ' and ').capitalize().removesuffix(' scale')} scale**: {which}"
            yield _list(texts)


def _scale_and_text(line: str) -> tuple[str, str]:
    scale, colon, text = line.partition(": ")
    if not colon or not SCALES.fullmatch(scale):
        raise UserError(f'a card says {line!r} under departures; begin with the scale, as in "desk: batches of 64"')
    return scale, text


def _paper_first(scale: str) -> int:
    return 0 if scale == "paper" else 1 if scale == "every scale" else 2


def _link(path: Path) -> str:
    below = path.relative_to(REPOSITORY).as_posix()
    return f"[{below}](../{below})"


def _list(items: Sequence[str]) -> str:
    """As sentences, wrapped."""
    sentences = [f"- {item[0].upper()}{item[1:]}{'' if item.endswith('.') else '.'}" for item in items]
    wrapped = [textwrap.wrap(one, 120, subsequent_indent="  ", break_on_hyphens=False) for one in sentences]
    return "\n".join(chain.from_iterable(wrapped))


def _changes(of: Mapping[str, Sequence[tuple[str, str, str, str]]], before: str, after: str) -> str:
    """of: recipe -> its changes. A line per change, with the recipes that make it."""
    changes: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for name, own in of.items():
        for change in own:
            changes[change].append(f"`{name}`")
    keys = list(dict.fromkeys(key for key, *_ in changes))
    lines = sorted(changes.items(), key=lambda one: keys.index(one[0][0]))
    rows = [(f"`{key}`", old, new, why, ", ".join(names)) for (key, old, new, why), names in lines]
    return plain_table(("setting", before, after, "why", "recipes"), rows)
