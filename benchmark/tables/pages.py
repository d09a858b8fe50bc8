"""leaderboards/*.md and the written pages of docs/: all that is made from the ledger, the records and the code."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from benchmark.core.provenance import REPOSITORY
from benchmark.recipe.catalogue import recipes_by_file
from benchmark.records.folders import read_published
from benchmark.records.frames import frame_of
from benchmark.records.record import Record
from benchmark.tables.board import Board, Legend, board
from benchmark.tables.departures import departures_page
from benchmark.tables.layout import TableLayout, read_chapters, read_discrepancies, read_layouts, with_rows_of
from benchmark.tables.ledger import LEADERBOARDS, read_ledger, read_names, read_sources
from benchmark.tables.markdown import markdown
from benchmark.tables.measured import VARIANT, mean_std, measured_scores
from benchmark.tables.methods import methods_page
from benchmark.tables.photos_page import photos_page

DOCS = REPOSITORY / "docs"
WRITTEN = "<!-- Written by `sslbench tables --write`; change tables.toml or the records, not this file. -->\n\n"
WRITTEN_DOCS = "<!-- Written by `sslbench tables --write` from code and ledger; change those, not this file. -->\n\n"


def boards(
    records: Sequence[Record],
    leaderboards: Path = LEADERBOARDS,
    stale: Mapping[Path, str] | None = None,
    also_unmeasured: bool = True,
    current: Collection[str] = (),
    beside: Collection[str] = (),
) -> dict[str, Board]:
    """Every table by key; only those with a measured number if asked so. current: hashes of the recipes as they would
    run now. beside: what gets a row besides, such as imported backbones."""
    measured = {(record.recipe, record.transfer) for record in records}
    layouts = [
        layout
        for layout in _layouts(leaderboards, beside)
        if also_unmeasured or not measured.isdisjoint(_scored_in(layout))
    ]
    ledger = read_ledger(leaderboards)
    context = Legend(
        names=read_names(leaderboards / "names.csv"),
        citations={key: source.citation() for key, source in read_sources(leaderboards / "sources.csv").items()},
        discrepancies=read_discrepancies(leaderboards / "discrepancies.toml"),
        stale=stale or {},
    )
    scores = measured_scores(records, current)
    return {layout.key: board(layout, ledger[layout.source], scores, context) for layout in layouts}


def _layouts(leaderboards: Path, beside: Collection[str]) -> list[TableLayout]:
    return [with_rows_of(one, beside) for one in read_layouts(leaderboards / "tables.toml")]


def _scored_in(layout: TableLayout) -> set[tuple[str, str]]:
    """(recipe, transfer) of every cell."""
    return {(row.recipe_in(column.title), row.scored_by(column)[0]) for row in layout.rows for column in layout.columns}


def shown_records(leaderboards: Path = LEADERBOARDS) -> list[Record]:
    """The published records but those at smoke scale: a handful of steps says nothing of a method, and what they come
    to is published for the regression gate alone."""
    return [record for record in read_published(leaderboards / "measured") if record.scale != "smoke"]


def in_no_table(records: Sequence[Record], leaderboards: Path = LEADERBOARDS, beside: Collection[str] = ()) -> str:
    """What was measured and no table shows, such as a user's own recipe, as markdown; empty if there is nothing."""
    layouts = _layouts(leaderboards, beside)
    shown = {pair for one in layouts for pair in _scored_in(one)}
    scores = frame_of(record for record in records if (record.recipe, record.transfer) not in shown)
    own = scores[scores["stage"] == ""]
    same = ["recipe", "transfer", "recipe_hash", *VARIANT, "metric"]
    lines = [
        (recipe, settings, f"{transfer} v{version}", metric, mean_std(tuple(seeds)))
        for (recipe, transfer, settings, _, version, _, metric), seeds in own.groupby(same)["value"]
    ]
    if not lines:
        return ""
    headers = ("recipe", "settings", "transfer", "metric", "measured")
    return "## Results that no paper's table shows\n\n" + tabulate(
        lines, headers=headers, tablefmt="github", disable_numparse=True
    )


def leaderboard_files(found: Mapping[str, Board], leaderboards: Path = LEADERBOARDS) -> dict[Path, str]:
    """leaderboards/*.md as they should be, but photos.md."""
    files = {leaderboards / f"{key}.md": WRITTEN + markdown(one) for key, one in found.items()}
    files[leaderboards / "discrepancies.md"] = WRITTEN + _discrepancies(leaderboards, found.values())
    files[leaderboards / "README.md"] = WRITTEN + _index(leaderboards, found)
    return files


def photos_files(current: Collection[str], leaderboards: Path = LEADERBOARDS) -> dict[Path, str]:
    """leaderboards/photos.md as it should be, where something was measured. current: hashes of the recipes as they
    would run now."""
    there = _has_photos(leaderboards)  # reading every record takes seconds
    records = [record for record in shown_records(leaderboards) if record.scale == "photos"] if there else []
    if not records:
        return {}
    what = read_layouts(leaderboards / "tables.toml")[0].scales["photos"]
    return {leaderboards / "photos.md": WRITTEN + photos_page(records, what, current)}


def _has_photos(leaderboards: Path) -> bool:
    return (leaderboards / "measured" / "photos").is_dir()


def _index(leaderboards: Path, found: Mapping[str, Board]) -> str:
    about = "Numbers reported in papers, next to those measured here. Where sources contradict each other:"
    lines = ["# Leaderboards", "", f"{about} [discrepancies](discrepancies.md).", ""]
    if _has_photos(leaderboards):
        lines += ["What was measured on photographs, on one page: [photos](photos.md).", ""]
    for number, chapter in enumerate(read_chapters(leaderboards / "tables.toml"), 1):
        lines += [f"{number}. {chapter.title}"]
        for key in chapter.tables:
            one = found[key]
            lines.append(f"   - [{one.layout.title}]({key}.md), {one.layout.printed} of {one.citation}")
    return "\n".join(lines) + "\n"


def _discrepancies(leaderboards: Path, found: Iterable[Board]) -> str:
    """Two lines each: what differs; what is shown and where."""
    layouts = [one.layout for one in found]
    lines = [
        "# Discrepancies",
        "",
        "What differs between the survey documents, the papers and their citations, and what is shown here.",
        "",
    ]
    for key, one in read_discrepancies(leaderboards / "discrepancies.toml").items():
        where = ", ".join(f"[{layout.title}]({layout.key}.md)" for layout in layouts if _is_about(layout, key))
        lines += [f'## <a id="{key.lower()}"></a>{key}', "", f"{one.differs}\\", f"Shown: {one.shown} In: {where}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _is_about(layout: TableLayout, discrepancy: str) -> bool:
    return any(note.discrepancy == discrepancy for note in layout.notes)


def documentation_files(
    found: Mapping[str, Board], cards: Mapping[str, Sequence[str]], by_processes: Mapping[str, Sequence[str]]
) -> dict[Path, str]:
    """The generated pages of docs/ as they should be. cards: transfer -> the departures on its card. by_processes:
    recipe -> what makes it another run on several processes."""
    recipes = recipes_by_file()
    return {
        DOCS / "methods.md": WRITTEN_DOCS + methods_page(recipes, found, by_processes),
        DOCS / "departures.md": WRITTEN_DOCS + departures_page(recipes, cards),
    }
