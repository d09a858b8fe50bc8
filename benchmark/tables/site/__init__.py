"""The leaderboards as a static site: sortable, filterable tables, a plot each, downloads; from file://, offline."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

from benchmark.tables.agreement import HEADS, agreement_texts
from benchmark.tables.board import Board
from benchmark.tables.export import export_files
from benchmark.tables.layout import read_chapters, read_discrepancies
from benchmark.tables.ledger import LEADERBOARDS, read_names
from benchmark.tables.site.plots import plots


def site_files(boards: Mapping[str, Board], leaderboards: Path = LEADERBOARDS) -> dict[str, str]:
    """Path below the site's folder -> content."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(loader=PackageLoader("benchmark.tables.site"), autoescape=True, undefined=StrictUndefined)
    pages.trim_blocks = pages.lstrip_blocks = True
    pages.globals |= {"agreement_heads": HEADS, "agreement_texts": agreement_texts}
    chapters = read_chapters(leaderboards / "tables.toml")
    places = {key: chapter.title for chapter in chapters for key in chapter.tables}
    methods = read_names(leaderboards / "names.csv")["method"]
    table = pages.get_template("table.html")
    found = {
        f"{key}.html": table.render(board=board, plots=plots(board, methods), chapter=places.get(key, ""))
        for key, board in boards.items()
    }
    found["index.html"] = pages.get_template("index.html").render(boards=boards, chapters=chapters)
    found["discrepancies.html"] = pages.get_template("discrepancies.html").render(
        boards=boards, discrepancies=read_discrepancies(leaderboards / "discrepancies.toml")
    )
    found |= {f"data/{name}": text for name, text in export_files(boards).items()}
    return found | _assets()


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
