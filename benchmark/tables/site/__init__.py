"""The leaderboards as a static site: sortable, filterable tables, plots, records, papers; from file://, offline."""

from __future__ import annotations

import ast
import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from benchmark.recipe.catalogue import recipes_by_file
from benchmark.tables.agreement import HEADS, agreement_texts
from benchmark.tables.bibtex import bibtex
from benchmark.tables.board import Board
from benchmark.tables.export import export_files
from benchmark.tables.footnotes import VERDICT
from benchmark.tables.layout import TableLayout, read_chapters, read_discrepancies
from benchmark.tables.ledger import LEADERBOARDS, Name, Source, read_names, read_sources
from benchmark.tables.site.display import DisplayedTable, displayed, recipe_page, records_of
from benchmark.tables.site.plots import Plot, headline, plots
from benchmark.tables.site.protocols import Protocol
from benchmark.tables.site.provenance import provenances


def site_files(
    boards: Mapping[str, Board], protocols: Sequence[Protocol], leaderboards: Path = LEADERBOARDS
) -> dict[str, str]:
    """Path below the site's folder -> content. protocols: those that have a card."""
    sources = read_sources(leaderboards / "sources.csv")
    methods = read_names(leaderboards / "names.csv")["method"]
    sources_of_recipes = recipes_by_file()
    stems = {name: path.stem for path, of_file in sources_of_recipes.items() for name in of_file}
    displays = {key: displayed(board, stems, {one.id for one in protocols}) for key, board in boards.items()}
    drawn = {key: plots(board, methods) for key, board in boards.items()}
    pages = _Pages()
    pages.tables(displays, drawn, leaderboards)
    pages.index(displays, boards, leaderboards)
    pages.add(
        "discrepancies.html", boards=boards, discrepancies=read_discrepancies(leaderboards / "discrepancies.toml")
    )
    pages.add("protocols.html", protocols=protocols, displays=displays)
    pages.add("papers.html", sources=sources)
    records = provenances(record for board in boards.values() for record in records_of(board))
    pages.add("records.html", records=records)
    for page, one in records.items():
        where = [each for each in displays.values() if one.first in records_of(each.board)]
        recipe = recipe_page(stems[one.first.recipe]) if one.first.recipe in stems else ""
        cards = {each.id for each in protocols}
        pages.add(page, "record.html", one=one, where=where, recipe=recipe, has_card=one.first.transfer in cards)
        pages.found |= {f"records/{each.published_path.as_posix()}": each.to_bytes().decode() for each in one.records}
    of_recipes = {name: [one for one in records.values() if one.first.recipe == name] for name in stems}
    listed = {path.stem: {name: of_recipes[name] for name in of_file} for path, of_file in sources_of_recipes.items()}
    pages.add("recipes.html", listed={stem: of_file for stem, of_file in listed.items() if of_file})
    for path in sources_of_recipes:
        text = path.read_text(encoding="utf-8")
        about = (ast.get_docstring(ast.parse(text)) or path.stem).partition("\n")[0]
        pages.add(
            recipe_page(path.stem), "recipe.html", file=path.name, text=text, about=about, recipes=listed[path.stem]
        )
    downloads = {f"data/{name}": text for name, text in export_files(boards).items()}
    downloads |= {f"data/{key}.bib": bibtex(_papers(one.layout, methods, sources)) for key, one in boards.items()}
    downloads |= {f"bibtex/{key}.bib": bibtex([source]) for key, source in sources.items()}
    downloads |= {f"plots/{key}-{at}.svg": one.file for key, own in drawn.items() for at, one in enumerate(own, 1)}
    return pages.found | downloads | _assets()


def _papers(layout: TableLayout, methods: Mapping[str, Name], sources: Mapping[str, Source]) -> list[Source]:
    """Whose table it is, and those that proposed its methods."""
    proposed = (methods[row.method].paper for row in layout.rows if row.method in methods)
    return [sources[key] for key in dict.fromkeys([layout.source, *proposed]) if key in sources]


class _Pages:
    """found: path -> page."""

    def __init__(self) -> None:
        from jinja2 import Environment, PackageLoader, StrictUndefined

        self.found: dict[str, str] = {}
        loader = PackageLoader("benchmark.tables.site")
        self._templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
        self._templates.trim_blocks = self._templates.lstrip_blocks = True
        self._templates.globals |= {"agreement_heads": HEADS, "agreement_texts": agreement_texts}

    def add(self, path: str, template: str = "", **values: Any) -> None:
        root = "../" * (len(PurePosixPath(path).parts) - 1)
        self.found[path] = self._templates.get_template(template or path).render(root=root, **values)

    def tables(
        self, displays: Mapping[str, DisplayedTable], drawn: Mapping[str, Sequence[Plot]], leaderboards: Path
    ) -> None:
        chapters = read_chapters(leaderboards / "tables.toml")
        places = {key: chapter.title for chapter in chapters for key in chapter.tables}
        for key, one in displays.items():
            notes = [note for note in one.board.footnotes if note.text != VERDICT]  # marks have a legend of their own
            self.add(f"{key}.html", "table.html", table=one, plots=drawn[key], chapter=places.get(key, ""), notes=notes)

    def index(self, displays: Mapping[str, DisplayedTable], boards: Mapping[str, Board], leaderboards: Path) -> None:
        records = {record.published_path: record for board in boards.values() for record in records_of(board)}
        scales = Counter(record.scale for record in records.values())
        chapters = read_chapters(leaderboards / "tables.toml")
        self.add(
            "index.html",
            displays=displays,
            chapters=[(one, any(displays[key].measured for key in one.tables)) for one in chapters],
            scales={key: dict(_rows_by_scale(board)) for key, board in boards.items()},
            counts=dict(sorted(scales.items())),
            about=next(iter(boards.values())).layout.scales if boards else {},
            measured=sum(bool(one.measured) for one in displays.values()),
            headline=headline(boards),
        )


def _rows_by_scale(board: Board) -> Counter[str]:
    """Scale -> rows with a number measured at it."""
    return Counter(
        scale for line in board.lines for scale in {record.scale for cell in line for record in cell.records}
    )


def _assets() -> dict[str, str]:
    """DataTables as the itables package carries it. It is an ES module, which a browser does not load from a file://
    address; as a data: address within a plain script it does."""
    bundle = Path(
        str(distribution("itables").locate_file("itables/html"))
    )  # not imported, for its code makes tables of its own
    module = base64.b64encode(bundle.joinpath("dt_bundle.js").read_bytes()).decode()
    here = files("benchmark.tables.site").joinpath("templates")
    return {
        "assets/datatables.js": f'window.datatables = import("data:text/javascript;base64,{module}");\n',
        "assets/datatables.css": bundle.joinpath("dt_bundle.css").read_text(encoding="utf-8"),
        "assets/site.css": here.joinpath("site.css").read_text(encoding="utf-8"),
        "assets/site.js": here.joinpath("site.js").read_text(encoding="utf-8"),
    }
