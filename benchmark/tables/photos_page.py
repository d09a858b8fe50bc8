"""leaderboards/photos.md: all that was measured at scale photos, also under protocols that no paper's table shows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from benchmark.records.record import Record
from benchmark.tables.markdown import plain_table
from benchmark.tables.measured import mean_std, measured_scores

INTRODUCTION = """\
# Photographs

Scale photos is {}.

Here is every recipe under every protocol that reads ImageNet, as mean ± standard deviation (number of seeds).
What papers report, and how far the two orders agree, is in the papers' own tables.
"""


def photos_page(records: Sequence[Record], what: str, current: Collection[str]) -> str:
    """A row a recipe, a column a metric of a protocol. records: those of scale photos. what: what that scale is,
    in words. current: hashes of the recipes as they would run now."""
    scores = measured_scores(records, current)
    shown = scores[(scores["stage"] == "") & (scores["instead"] == "")].astype({"transfer_version": str})
    named = shown["transfer"] + " v" + shown["transfer_version"] + ", " + shown["metric"]
    several = shown["transfer_fingerprints"].groupby(named).transform("nunique") > 1
    columns = named + (" on data " + shown["transfer_fingerprints"]).where(several, "")
    cells = shown.groupby(["recipe", columns])["value"].apply(lambda values: mean_std(tuple(values)))
    grid = cells.unstack(fill_value="–")
    rows = [[f"`{recipe}`", *line] for recipe, *line in grid.itertuples()]
    return f"{INTRODUCTION.format(what)}\n{plain_table(['recipe', *map(str, grid.columns)], rows)}\n"
