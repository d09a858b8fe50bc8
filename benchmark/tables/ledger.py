"""The ledger: what papers report, one number a line, under one name per method and backbone. Imports no torch.

leaderboards/sources.csv             who reports
leaderboards/names.csv               the canonical names, their titles, and the other names they go by
leaderboards/reported/<source>.csv   the numbers
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.core.errors import UserError
from benchmark.core.provenance import IS_INSTALLED, LEADERBOARDS

if TYPE_CHECKING:
    import pandas as pd

NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
EVIDENCE = {
    "paper or official repository text",
    "image of the paper table",
    "survey document",  # the number stands there, and nobody has seen it elsewhere
    "unverified",
}


@dataclass(frozen=True)
class Reported:
    """One published number: a line of leaderboards/reported/<source>.csv, whose header these fields are."""

    method: str
    backbone: str  # "" where it is not stated
    pretrain_data: str
    transfer: str
    protocol: str  # the id of the transfer here that follows it, where one does
    setting: str
    metric: str
    unit: str
    value: str  # as printed
    table: str  # where in the source
    evidence: str
    measured_by: str  # the source itself, "adopted by" it, "not stated", or "" for what nobody measures
    note: str

    @property
    def verified(self) -> bool:
        return self.evidence != "unverified"


@dataclass(frozen=True)
class Name:
    """A line of names.csv. aliases, units: separated by semicolons. of: the method it is a variant of. paper: where the
    method was proposed, a key of sources.csv; empty where that is not one of them."""

    kind: str  # method, backbone, pretraining, transfer or metric
    name: str
    title: str
    aliases: str
    of: str
    year: str
    paper: str
    units: str  # those a metric comes in


@dataclass(frozen=True)
class Source:
    """A line of sources.csv."""

    key: str
    title: str
    authors: str
    venue: str
    year: str
    arxiv_id: str

    def citation(self) -> str:
        where = f"{self.venue} {self.year}".strip()
        return f"{self.authors}, “{self.title}”, {where}" + (f", arXiv:{self.arxiv_id}" if self.arxiv_id else "")


NamesByKind = dict[str, dict[str, Name]]  # kind -> name -> Name


def leaderboards_to_write() -> Path:
    """A clone's leaderboards. Raises UserError in an installed copy: what is written there is lost with the next
    installation, and nobody could commit it."""
    if IS_INSTALLED:
        raise UserError(
            f"{LEADERBOARDS}: part of an installed copy of sslbench, so nothing is written there; run this command in "
            "a clone, whose leaderboards can be committed"
        )
    return LEADERBOARDS


def read_reported(source: str, folder: Path = LEADERBOARDS / "reported") -> list[Reported]:
    """The ledger of one source. A wrong header or a value that is not a number is a UserError naming file and line."""
    path = folder / f"{source}.csv"
    if not path.is_file():
        raise UserError(f"{path}: no such ledger of reported numbers")
    lines = []
    for number, line in csv_lines(Reported, path):
        if not NUMBER.fullmatch(line.value):  # float() takes more: nan, 1_000, ١
            raise UserError(f"{path}, line {number}: {line.value!r} is not a number")
        lines.append(line)
    return lines


def read_names(path: Path = LEADERBOARDS / "names.csv") -> NamesByKind:
    """Every canonical name by kind. A name or alias that is given twice is a UserError."""
    names: NamesByKind = {}
    taken: set[tuple[str, str]] = set()
    for number, line in csv_lines(Name, path):
        for word in (line.name, *filter(None, line.aliases.split(";"))):
            if (line.kind, word) in taken:
                raise UserError(f"{path}, line {number}: {word!r} already names another {line.kind}")
            taken.add((line.kind, word))
        names.setdefault(line.kind, {})[line.name] = line
    return names


def by_any_name(names: dict[str, Name]) -> dict[str, str]:
    """Canonical name or alias -> canonical name, of one kind of names."""
    return {word: one.name for one in names.values() for word in (one.name, *one.aliases.split(";")) if word}


def read_sources(path: Path = LEADERBOARDS / "sources.csv") -> dict[str, Source]:
    return {line.key: line for _, line in csv_lines(Source, path)}


def citation(source: str, path: Path = LEADERBOARDS / "sources.csv") -> str:
    found = read_sources(path)
    if source not in found:
        raise UserError(f"{path}: no source {source!r}")
    return found[source].citation()


def read_ledger(leaderboards: Path = LEADERBOARDS) -> dict[str, list[Reported]]:
    """Every source's numbers, and nothing but canonical names in them.

    Raises UserError for a name or paper that is not in names.csv or sources.csv, a unit that its metric is not given
    in, evidence of an unknown kind, or a number that is listed twice; each by file and line.
    """
    names, sources = read_names(leaderboards / "names.csv"), read_sources(leaderboards / "sources.csv")
    for name in names["method"].values():
        if name.paper not in (*sources, ""):
            raise UserError(f"{leaderboards / 'names.csv'}: {name.name} has paper {name.paper!r}, not in sources.csv")
    ledger = {}
    for path in sorted((leaderboards / "reported").glob("*.csv")):
        if path.stem not in sources:
            raise UserError(f"{path}: sources.csv has no source {path.stem!r}")
        ledger[path.stem] = read_reported(path.stem, path.parent)
        for number, fault in _faults(ledger[path.stem], names):
            raise UserError(f"{path}, line {number}: {fault}")
    return ledger


def ledger_frame(leaderboards: Path = LEADERBOARDS) -> pd.DataFrame:
    """Every reported number as a tidy table, a row a number; "" where the paper does not say.

    source:         which paper, by its key in sources.csv.
    method, backbone, pretrain_data, transfer, metric: by their canonical names, which names.csv explains.
    protocol:       the transfer here that follows the same protocol, where one does.
    setting, table: which of the paper's settings, and where the number stands.
    value, unit:    the number, and what it is in: %, M (millions), hours, days ...
    printed:        the number as the paper prints it.
    evidence, verified, measured_by, note: who has seen it and where, and who measured it.

    Raises UserError as `read_ledger` does.
    """
    import pandas as pd  # a third of a second

    lines = [
        {"source": source, **asdict(line), "printed": line.value, "verified": line.verified}
        for source, lines in read_ledger(leaderboards).items()
        for line in lines
    ]
    return pd.DataFrame(lines).astype({"value": "float64"})


def _faults(lines: list[Reported], names: NamesByKind) -> Iterator[tuple[int, str]]:
    seen: Counter[tuple[str, ...]] = Counter()
    for number, line in enumerate(lines, 2):
        words = {
            "method": line.method,
            "transfer": line.transfer,
            "metric": line.metric,
            "backbone": line.backbone,
            "pretraining": line.pretrain_data,
        }
        for kind, word in words.items():
            optional = kind in ("backbone", "pretraining")
            if word not in names[kind] and (word or not optional):
                yield number, f"{word!r} is not the canonical name of a {kind}; see names.csv"
        if line.metric in names["metric"] and line.unit not in names["metric"][line.metric].units.split(";"):
            yield number, f"{line.metric} is not given in {line.unit!r}; see names.csv"
        if line.evidence not in EVIDENCE:
            yield number, f"evidence {line.evidence!r} is not one of {sorted(EVIDENCE)}"
        key = (line.table, *words.values(), line.setting)
        seen[key] += 1
        if seen[key] > 1:
            yield number, f"a second number for {', '.join(filter(None, key))}"


def csv_lines(kind: Any, path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, an instance of `kind`) for every line; UserError for another header or number of cells."""
    wanted = [f.name for f in fields(kind)]
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        if next(reader, []) != wanted:
            raise UserError(f"{path}: its header must be {','.join(wanted)}")
        for cells in reader:
            if len(cells) != len(wanted):
                raise UserError(f"{path}, line {reader.line_num}: has {len(cells)} cells, not {len(wanted)}")
            yield reader.line_num, kind(*cells)
