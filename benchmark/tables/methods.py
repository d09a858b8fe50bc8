"""docs/methods.md: which of the field's methods can be run here, and where their numbers are. Imports no torch."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.recipe.contract import Recipe
from benchmark.tables.board import Board
from benchmark.tables.ledger import LEADERBOARDS, Name, NamesByKind, Source, read_ledger, read_names, read_sources
from benchmark.tables.markdown import plain_table

# authors, venue and year, number; papers before arXiv was usual have none
CITATION = re.compile(r'([^"]+?), "[^"]+", ([^".;]+? \d{4})(?:, (?:\w+ )?arXiv:(\d{4}\.\d{4,5}))?')
MOST_BACKBONES = 3
INTRODUCTION = """\
# Methods

Can you run method X here? A method with a **recipe here** runs, on a laptop or on a cluster. A method that is
**reported only** does not run yet: the tables show what papers report for it.

```sh
sslbench reproduce pirl    # run a recipe, and the reference rows with it
sslbench show moco         # all that is reported and measured of a method, by any of its names
```

[Adding a method](adding-a-method.md) takes one file. How the recipes differ from their papers:
[departures](departures.md).

The last column says what makes a run on several processes another than on one. Where that is nothing, the two differ by
the order of sums alone: BatchNorm sees groups of as many images as lay on one of the paper's GPUs, or the images of all
processes, and MoCo's keys are shuffled over the groups.
"""


def methods_page(
    recipes: Mapping[Path, Mapping[str, Recipe]],
    boards: Mapping[str, Board],
    by_processes: Mapping[str, Sequence[str]],
    leaderboards: Path = LEADERBOARDS,
) -> str:
    """The whole page. recipes: file -> name -> recipe. boards: every table, by key. by_processes: recipe -> what makes
    it another run on several processes. Raises UserError for a recipe file whose docstring cites no paper."""
    names, sources = read_names(leaderboards / "names.csv"), read_sources(leaderboards / "sources.csv")
    here = [
        (*row, "; ".join(by_processes[name]) or "nothing")
        for path, of_file in recipes.items()
        for name, row in zip(of_file, _recipe_rows(path, of_file, boards, names), strict=True)
    ]
    with_recipe = {name for of_file in recipes.values() for name in of_file}
    others = sorted(
        (one for one in names["method"].values() if one.name not in with_recipe), key=lambda one: one.title.lower()
    )
    backbones = _backbones(leaderboards, names)
    known = [one for one in others if one.paper or one.year]
    rows = [(_title(one.title, one), _paper(one, sources), backbones[one.name], _rows_in(one, boards)) for one in known]
    undated = ", ".join(f"{one.title} (`{one.name}`)" for one in others if one not in known)
    parts = [
        INTRODUCTION,
        f"## Recipe here\n\n{len(here)} recipes.",
        plain_table(("method", "recipe", "paper", "backbone", "measured in", "differs by processes"), here),
        f"## Reported only\n\n{len(rows)} methods and variants, by title.",
        plain_table(("method", "paper", "backbone", "reported in"), rows),
        f"The ledger also has numbers under these names, for which it knows neither a paper nor a year: {undated}.",
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _recipe_rows(
    path: Path, recipes: Mapping[str, Recipe], boards: Mapping[str, Board], names: NamesByKind
) -> Iterator[tuple[str, ...]]:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    cited = CITATION.search(" ".join(docstring.partition("\n\n")[2].split()))
    for name, recipe in recipes.items():
        if not cited:
            raise UserError(f'{path}: its docstring must cite the paper as Authors, "Title", venue year, arXiv:number')
        authors, venue, number = cited.groups()
        yield (
            _title(recipe.title, names["method"].get(name)),
            f"[`{name}`](../recipes/{path.name})",
            ", ".join([authors, venue, *([_arxiv(number)] if number else [])]),
            recipe.backbone.title,
            _measured_in(name, boards),
        )


def _measured_in(recipe: str, boards: Mapping[str, Board]) -> str:
    """Scale by scale, the tables that show a measured number of the recipe."""
    tables: dict[str, list[str]] = defaultdict(list)
    for key, board in boards.items():
        lines = [line for index, line in enumerate(board.lines) if index not in board.differences]
        for row, line in zip(board.layout.rows, lines, strict=True):
            cells = zip(board.heads, line, strict=True)
            own = [(head, cell) for head, cell in cells if row.recipe_in(head.column) == recipe]
            for scale in {head.scale for head, cell in own if head.kind == "measured" and cell.number is not None}:
                tables[scale].append(_table_link(key))
    return "; ".join(f"{scale}: {', '.join(dict.fromkeys(found))}" for scale, found in sorted(tables.items())) or "–"


def _rows_in(name: Name, boards: Mapping[str, Board]) -> str:
    keys = [key for key, board in boards.items() if any(row.method == name.name for row in board.layout.rows)]
    return ", ".join(map(_table_link, keys)) or f"no table, see `sslbench show {name.name}`"


def _table_link(key: str) -> str:
    return f"[{key}](../leaderboards/{key}.md)"


def _title(title: str, name: Name | None) -> str:
    aliases = [f"`{alias}`" for alias in name.aliases.split(";")] if name and name.aliases else []
    return f"{title}, also {', '.join(aliases)}" if aliases else title


def _paper(name: Name, sources: Mapping[str, Source]) -> str:
    if not name.paper:
        return name.year
    source = sources[name.paper]
    where = f"{source.authors}, {source.venue} {source.year}"
    return f"{where}, {_arxiv(source.arxiv_id)}" if source.arxiv_id else where


def _arxiv(number: str) -> str:
    return f"[arXiv:{number}](https://arxiv.org/abs/{number})"


def _backbones(leaderboards: Path, names: NamesByKind) -> Mapping[str, str]:
    """Method -> the networks that its numbers are reported for, those of most numbers first, and only a few of them."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for line in (line for lines in read_ledger(leaderboards).values() for line in lines):
        if line.backbone:
            counts[line.method][names["backbone"][line.backbone].title] += 1
    told: dict[str, str] = defaultdict(lambda: "–")
    for method, of_method in counts.items():
        titles = sorted(of_method, key=lambda title: (-of_method[title], title))
        rest = len(titles) - MOST_BACKBONES
        told[method] = "; ".join(titles[:MOST_BACKBONES]) + (f" and {rest} more" if rest > 0 else "")
    return told
