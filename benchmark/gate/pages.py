"""Writing the leaderboards, the generated pages of docs/ and the site, from published records alone."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmark.core.files import write_whole
from benchmark.core.provenance import IS_INSTALLED
from benchmark.gate.check import current_boards
from benchmark.gate.staleness import own_hashes
from benchmark.recipe.catalogue import find_recipes
from benchmark.runs.plan import what_depends_on_processes
from benchmark.tables.board import Board
from benchmark.tables.pages import documentation_files, leaderboard_files, photos_files
from benchmark.tables.site import site_files
from benchmark.tables.site.protocols import Protocol
from benchmark.transfers import find_transfers
from benchmark.transfers.contract import ProtocolCard


def write_pages(site: Path | None = None) -> list[Path]:
    """Write leaderboards/*.md and the generated pages of docs/, and in the folder `site` the site. An installed copy,
    whose own leaderboards stay as they are, writes the site alone. Returns the pages but those of the site."""
    with _uncollected():
        boards = current_boards()
        written = [] if IS_INSTALLED else _write_markdown(boards)
        for name, text in site_files(boards, protocols()).items() if site else ():
            assert site
            write_whole(site / name, text.encode())
    return written


def _write_markdown(boards: dict[str, Board]) -> list[Path]:
    cards = {name: transfer.card.departures for name, transfer in find_transfers().items()}
    files = (
        leaderboard_files(boards)
        | photos_files(frozenset(own_hashes().values()))
        | documentation_files(boards, cards, by_processes())
    )
    for path, text in files.items():
        write_whole(path, text.encode())
    return list(files)


def protocols() -> list[Protocol]:
    """The card of every transfer, for the site."""
    return [_in_words(transfer.card) for transfer in find_transfers().values()]


def _in_words(card: ProtocolCard) -> Protocol:
    facts = {
        "Scores": ", ".join(
            f"{name} ({metric.unit})" if metric.unit else name for name, metric in card.metrics.items()
        ),
        "Reads": ", ".join(f"{name}/{split}" for name, split in card.datasets),
        "Frozen": card.frozen,
        "Selected": card.selected,
        "For": card.for_whom,
    }
    told = tuple((what, text) for what, text in facts.items() if text)
    return Protocol(card.id, card.version, card.title, card.citation, told, card.departures)


def by_processes() -> dict[str, list[str]]:
    """Recipe -> what makes it another run on several processes than on one."""
    return {name: what_depends_on_processes(recipe) for name, recipe in find_recipes().items()}


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector: everything that was read is needed to the end, and looking through thousands of
    records for cycles, over and over, takes a fifth of the time, and once more as the process ends, a tenth."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
