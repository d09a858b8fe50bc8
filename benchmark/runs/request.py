"""What `sslbench reproduce` was asked for: which rows, under which transfers, and where all of it goes.

Imports no torch, so that a command whose answer is known already answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.recipe.catalogue import OWN
from benchmark.recipe.scales import DRAWN, Scale
from benchmark.runs.last_answer import LastAnswer
from benchmark.tables.layout import read_layouts, recipes_of, select, transfers_of


@dataclass(frozen=True)
class Request:
    """names: of the recipes, in the order in which they begin. transfers: ids of those that score them. tables: keys of
    those to print; all, if there are none.
    recipes_dir, transfers_dir: the user's own folders besides the benchmark's. incomplete: whether data that is not
    complete will do at paper and photos scale."""

    names: tuple[str, ...]
    transfers: tuple[str, ...]
    tables: tuple[str, ...]
    scale: Scale
    seeds: tuple[int, ...]
    data_root: Path
    runs: Path
    recipes_dir: Path | None = None
    transfers_dir: Path | None = None
    incomplete: bool = False

    @property
    def tables_file(self) -> Path:
        return self.runs / self.scale / "tables.md"

    @property
    def answer(self) -> LastAnswer:
        outputs = [self.runs / self.scale / name / f"seed{seed}" for name in self.names for seed in self.seeds]
        sources = [OWN, *(folder for folder in (self.recipes_dir, self.transfers_dir) if folder)]
        files = (self.data_root, *outputs, self.tables_file, *self._texts())
        return LastAnswer((str(self.data_root), *map(str, outputs)), sources, files, self.runs / self.scale)

    def shown(self) -> str:
        """The tables in short as they were written last, and where the whole ones are."""
        tables = [path.read_text(encoding="utf-8") for path in self._texts() if path.is_file()]
        return "\n".join([*tables, all_tables_in(self.tables_file)])

    def _texts(self) -> list[Path]:
        """Some of them may not be there: tables without a number at this scale."""
        folder = self.tables_file.with_suffix("")
        return [folder / f"{key}.txt" for key in self.tables] or [folder.with_suffix(".txt")]

    def is_answered(self) -> bool:
        """Never where the world is not drawn: real datasets have too many files to look at for a moment's answer."""
        return self.scale in DRAWN and self.answer.holds()


def all_tables_in(file: Path) -> str:
    """The last line below tables in short."""
    return f"All tables: {file}"


def selected(recipes: Sequence[str], tables_of: str | None) -> tuple[tuple[str, ...], ...]:
    """(recipes to run, transfers that score them, keys of the tables to print): the recipes that were asked for, or all
    rows of a paper's tables, with the rows that frame their tables. All tables are printed where one of the recipes is
    in none. Raises UserError if nothing was asked for."""
    chosen = select(read_layouts(), recipes, tables_of)
    # what was asked for first: it takes longer than the reference rows, which then go beside it
    references = [name for one in chosen for name in one.references]
    names = dict.fromkeys([*recipes, *(recipes_of(chosen) if tables_of else ()), *references])
    in_tables = set(recipes) <= set(recipes_of(chosen))
    return tuple(names), tuple(transfers_of(chosen)), tuple(one.key for one in chosen if in_tables)
