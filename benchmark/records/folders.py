"""Where records lie, and reading all of them.

    runs/<scale>/<recipe>/seed<k>/<transfer>.json                   where a run leaves it
    leaderboards/measured/<scale>/<recipe>/<transfer>/seed<k>.json  where it goes when published

Seconds, memory, date and machine lie beside it in <transfer>.time.json, and beside the published one in
seed<k>.time.json. Those of the pretraining, which has no record, lie in pretraining.time.json, and when published in
<recipe>/pretraining/seed<k>.time.json.
"""

from __future__ import annotations

import json
import platform
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.files import write_whole
from benchmark.core.memory import peak_gb
from benchmark.records.record import Record, read_record

CLOCK = ".time.json"
PRETRAINING = "pretraining"


def write_record(record: Record, runs: Path, seconds: float, processes: int = 1) -> Path:
    """Write the record below `runs`, and beside it its seconds, date and machine, how many processes shared the work,
    and the most memory that this one held."""
    path = runs / record.path
    write_clock(path.with_suffix(CLOCK), seconds, processes)
    write_whole(path, record.to_bytes())
    return path


def write_clock(path: Path, seconds: float, processes: int = 1) -> None:
    clock = {
        "seconds": round(seconds, 1),
        "processes": processes,
        "peak_memory_gb": round(peak_gb(), 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "processor": platform.processor() or platform.machine(),
    }
    write_whole(path, (json.dumps(clock, indent=1) + "\n").encode())


def published_seconds(measured: Path, scale: str) -> dict[tuple[str, str], float]:
    """(recipe, transfer or PRETRAINING) -> what it took, the mean over its published seeds; files that are not such
    clocks are passed over."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for path in (measured / scale).glob(f"*/*/seed*{CLOCK}"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            found[path.parts[-3], path.parts[-2]].append(float(json.loads(path.read_bytes())["seconds"]))
    return {key: statistics.fmean(seconds) for key, seconds in found.items()}


def read_runs(runs: Path) -> Iterator[Record]:
    """Every record below a folder of runs, in path order. Raises UserError if one lies where another belongs."""
    for path in _run_files(runs):
        yield run_record(path, runs)


def run_record(path: Path, runs: Path) -> Record:
    """The record at `path` below a folder of runs. Raises UserError if it is not a record, or belongs elsewhere."""
    return _in_place(read_record(path), path, runs, published=False)


def read_published(measured: Path) -> Iterator[Record]:
    """Every record below leaderboards/measured, in path order. Raises UserError for a JSON file that is not a record,
    or lies where another belongs."""
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
    """All but those that hold a record's seconds, date and machine, in order."""
    return sorted((path for path in files if not path.name.endswith(CLOCK)), key=lambda path: path.parts)


def _in_place(record: Record, path: Path, root: Path, published: bool) -> Record:
    belongs = record.published_path if published else record.path
    if path.relative_to(root) != belongs:
        raise UserError(f"{path}: holds a record that belongs at {root / belongs}; move it there or delete it")
    return record
