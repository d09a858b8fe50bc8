"""`sslbench show METHOD`: what papers report of one method, what was measured, when, and by which commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmark.core.errors import UserError, nearest
from benchmark.core.provenance import commit_date
from benchmark.recipe.catalogue import find_recipes
from benchmark.records.frames import frame_of
from benchmark.records.record import Record
from benchmark.tables.layout import TableLayout, read_layouts, transfers_of
from benchmark.tables.ledger import LEADERBOARDS, Name, by_any_name, read_ledger, read_names, read_sources
from benchmark.tables.measured import mean_std

REPORTED = ("where", "table", "network", "transfer", "setting", "metric", "value", "measured by")
MEASURED = ("scale", "recipe", "protocol", "metric", "mean ± std (n)", "commits", "")


def method_page(
    method: str, records: Sequence[Record], flags: Mapping[Path, str], leaderboards: Path = LEADERBOARDS
) -> str:
    """What papers report of one method, and what was measured. records: the published ones. flags: published path ->
    what must be said of a record. Raises UserError for a method that is neither in the ledger nor a recipe, with the
    nearest names."""
    from tabulate import tabulate

    names = read_names(leaderboards / "names.csv")["method"]
    name = _canonical(method, names, {record.recipe for record in records})
    layouts = read_layouts(leaderboards / "tables.toml")
    recipes = _recipes(name, layouts)
    reported = list(_reported(name, leaderboards))
    measured = list(_measured([record for record in records if record.recipe in recipes], flags))
    parts = [_title(name, names)]
    if reported:
        parts.append("Reported\n\n" + tabulate(reported, REPORTED, tablefmt="simple", disable_numparse=True))
    else:
        parts.append("Reported: nothing in the ledger." if name in names else "Reported: by no paper in the ledger.")
    if measured:
        parts.append("Measured\n\n" + tabulate(measured, MEASURED, tablefmt="simple", disable_numparse=True))
    else:
        parts.append("Measured: nothing published.")
    with_transfers = [layout for layout in layouts if transfers_of([layout])]
    if shown := [one.key for one in with_transfers if any(recipes.intersection(row.all_recipes) for row in one.rows)]:
        files = ", ".join(f"leaderboards/{key}.md" for key in shown)
        parts.append(f"Its measured numbers {'have' if measured else 'will have'} a row in {files}.")
    return "\n\n".join(parts)


def _canonical(word: str, names: dict[str, Name], recipes: set[str]) -> str:
    by_word = by_any_name(names)
    known = by_word | {recipe: recipe for recipe in recipes if recipe not in by_word}
    if word.lower() not in known:  # asked last, since finding recipes imports torch
        known |= {recipe: recipe for recipe in find_recipes() if recipe not in known}
    if word.lower() not in known:
        raise UserError(f"no method {word!r}{nearest(word, known)}; leaderboards/names.csv has all {len(names)}")
    return known[word.lower()]


def _title(name: str, names: dict[str, Name]) -> str:
    if name not in names:
        return name
    one = names[name]
    extra = [
        one.year,
        f"a variant of {one.of}" if one.of else "",
        f"also {one.aliases.replace(';', ', ')}" if one.aliases else "",
    ]
    return f"{one.title} ({'; '.join(filter(None, [name, *extra]))})"


def _recipes(method: str, layouts: Sequence[TableLayout]) -> set[str]:
    rows = (row for layout in layouts for row in layout.rows if row.method == method)
    return {method} | {recipe for row in rows for recipe in row.all_recipes}


def _reported(method: str, leaderboards: Path) -> Iterator[tuple[str, ...]]:
    sources = read_sources(leaderboards / "sources.csv")
    for source, lines in read_ledger(leaderboards).items():
        for line in lines:
            if line.method == method:
                value = f"{line.value} {line.unit}" + ("" if line.verified else " (unverified)")
                who = (
                    "own" if line.measured_by == source else line.measured_by.replace(f"adopted by {source}", "adopted")
                )
                place = f"{sources[source].authors} {sources[source].year}".strip()
                yield place, line.table, line.backbone, line.transfer, line.setting, line.metric, value, who


def _measured(records: Sequence[Record], flags: Mapping[Path, str]) -> Iterator[tuple[str, ...]]:
    scores = frame_of(records)
    same = ["scale", "recipe", "transfer", "transfer_version", "metric", "recipe_hash", "transfer_fingerprints"]
    for (scale, recipe, transfer, version, metric, *_), seeds in scores[scores["stage"] == ""].groupby(same):
        commits = ", ".join(f"{one[:12]} ({commit_date(one)})" for one in sorted(seeds["commit"].unique()))
        paths = [records[place].published_path for place in seeds.index]
        why = sorted({flags[path] for path in paths if path in flags})
        yield scale, recipe, f"{transfer} v{version}", metric, mean_std(tuple(seeds["value"])), commits, "; ".join(why)
