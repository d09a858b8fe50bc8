"""Records: one file per (scale, recipe, seed, transfer) with its scores and everything that says what they are.

    runs/<scale>/<recipe>/seed<k>/<transfer>.json                   where a run writes it
    leaderboards/measured/<scale>/<recipe>/<transfer>/seed<k>.json  where it goes when it is published

A record holds nothing that differs between two runs of the same thing, so the same run gives the same bytes. Duration,
date and machine are in a file beside it: <transfer>.time.json, or seed<k>.time.json beside a published record.
Imports no torch.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

from benchmark.core.errors import UserError
from benchmark.core.files import write_whole
from benchmark.core.plain import fits, in_words

FORMAT = "sslbench-record-1"
CLOCK = ".time.json"


@dataclass(frozen=True)
class Record:
    """One measured result.

    settings:      the recipe as it ran, every value (benchmark.core.plain.as_plain).
    metrics:       metric -> value, in the units of the protocol's card.
    detail:        whatever else the transfer reports, for example scores per stage.
    transfer_data: what the protocol read: "dataset/split" -> fingerprint, the same for "… boxes" and "… masks", and
                   list file -> hash if there was one.
    origin:        what the backbone file says about its pretraining: data fingerprint, last losses, world size ...
    backbone_hash: of the backbone file's bytes.
    commit:        of this repository, "+dirty" when the code had uncommitted changes.
    device, threads: of the transfer; those of the pretraining are in origin["made_by"], with its commit and versions.
    """

    recipe: str
    recipe_hash: str
    settings: dict[str, Any]
    scale: str
    seed: int
    transfer: str
    transfer_version: int
    metrics: dict[str, float]
    detail: dict[str, Any]
    transfer_data: dict[str, str]
    origin: dict[str, Any]
    backbone_hash: str
    commit: str
    versions: dict[str, str]
    device: str
    threads: int

    @property
    def path(self) -> Path:
        """Below the folder of runs."""
        return Path(self.scale, self.recipe, f"seed{self.seed}", f"{self.transfer}.json")

    @functools.cached_property
    def published_path(self) -> Path:
        """Below leaderboards/measured."""
        return Path(self.scale, self.recipe, self.transfer, f"seed{self.seed}.json")

    @property
    def hash(self) -> str:
        """Twelve hex digits of its content, however it is laid out on disk."""
        content = {name: getattr(self, name) for name in HINTS}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def to_bytes(self) -> bytes:
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


HINTS = get_type_hints(Record)


@dataclass(frozen=True)
class Target:
    """What would be run now: a record is current if it is this, whatever the commit."""

    recipe_hash: str
    scale: str
    seed: int
    transfer: str
    transfer_version: int
    transfer_data: dict[str, str]
    backbone_hash: str

    def is_met_by(self, record: Record) -> bool:
        return all(getattr(record, f.name) == getattr(self, f.name) for f in dataclasses.fields(self))


def read_record(path: Path) -> Record:
    """Read strictly: an unknown or missing key, a number that is not finite, or a value of another type is a UserError
    naming file and key."""
    try:
        content = json.loads(
            path.read_bytes(), parse_constant=_refuse_number, parse_float=_finite, object_pairs_hook=_once
        )
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or NaN
        raise UserError(f"{path}: not a record ({error}); delete it and run again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: not a record of format {FORMAT}; delete it and run again")
    del content["format"]
    faults = [f"{key!r} is missing" for key in HINTS.keys() - content.keys()]
    faults += [f"{key!r} is unknown" for key in content.keys() - HINTS.keys()]
    faults += [
        f"{key!r} is not {in_words(hint)}"
        for key, hint in HINTS.items()
        if key in content and not fits(content[key], hint)
    ]
    if faults:
        raise UserError(f"{path}: {'; '.join(sorted(faults))}")
    return Record(**content)


def _refuse_number(text: str) -> float:
    raise ValueError(f"{text} is no score")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands there twice")
    return content


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)


def write_record(record: Record, runs: Path, seconds: float) -> Path:
    """Write the record below `runs`, and its seconds, date and machine beside it."""
    path = runs / record.path
    clock = {
        "seconds": round(seconds, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "processor": platform.processor() or platform.machine(),
    }
    write_whole(path.with_suffix(CLOCK), (json.dumps(clock, indent=1) + "\n").encode())
    write_whole(path, record.to_bytes())
    return path


def read_runs(runs: Path) -> Iterator[Record]:
    """Every record below a folder of runs, in path order. Raises UserError if one lies where another belongs."""
    for path in _run_files(runs):
        yield _in_place(read_record(path), path, runs, published=False)


def read_published(measured: Path) -> Iterator[Record]:
    """Every record below leaderboards/measured, in path order. Raises UserError for a JSON file that is none, or lies
    where another belongs."""
    for path in _published_files(measured):
        yield _in_place(read_record(path), path, measured, published=True)


def scan(files: Iterable[Path], root: Path, published: bool) -> tuple[list[Record], list[str]]:
    """(the records that can be read, what is wrong with the others)."""
    records, faults = [], []
    for path in files:
        try:
            records.append(_in_place(read_record(path), path, root, published))
        except UserError as error:
            faults.append(str(error))
    return records, faults


def scan_published(measured: Path) -> tuple[list[Record], list[str]]:
    return scan(_published_files(measured), measured, published=True)


def scan_runs(runs: Path) -> tuple[list[Record], list[str]]:
    return scan(_run_files(runs), runs, published=False)


def _run_files(runs: Path) -> list[Path]:
    return record_files(runs.glob("*/*/seed*/*.json"))


def _published_files(measured: Path) -> list[Path]:
    return record_files(measured.rglob("*.json"))


def record_files(files: Iterable[Path]) -> list[Path]:
    """Those that are no record's seconds, date and machine, in order."""
    return sorted((path for path in files if not path.name.endswith(CLOCK)), key=lambda path: path.parts)


def _in_place(record: Record, path: Path, root: Path, published: bool) -> Record:
    belongs = record.published_path if published else record.path
    if path.relative_to(root) != belongs:
        raise UserError(f"{path}: holds the record that belongs at {root / belongs}; move it there or delete it")
    return record


def publish(run: Path, measured: Path, allow_dirty: bool = False) -> list[Path]:
    """Copy the records of one run folder (runs/<scale>/<recipe>/seed<k>), each with its seconds, date and machine, to
    where published ones lie.

    Raises UserError for a folder without records and, unless allowed, for one pretrained or scored by code that is in
    no commit.
    """
    files = record_files(run.glob("*.json"))
    if not files:
        raise UserError(f"{run}: no records there; give a folder like runs/desk/<recipe>/seed0")
    records = [read_record(path) for path in files]
    loose = [record.transfer for record in records if not all(map(_in_a_commit, _commits(record)))]
    if loose and not allow_dirty:
        raise UserError(
            f"{run}: {', '.join(loose)} came from code that is in no commit, so nobody could repeat it; commit, run "
            "again and publish then, or add --allow-dirty"
        )
    for record in records:
        path = measured / record.published_path
        clock = run / f"{record.transfer}{CLOCK}"
        if clock.is_file():
            write_whole(path.with_suffix(CLOCK), clock.read_bytes())
        write_whole(path, record.to_bytes())
    return [measured / record.published_path for record in records]


def _commits(record: Record) -> tuple[str, str]:
    return record.commit, record.origin.get("made_by", {}).get("commit", "")


def _in_a_commit(commit: str) -> bool:
    return bool(commit) and not commit.endswith("+dirty")
