"""Records of runs become published ones."""

from __future__ import annotations

from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.files import write_whole
from benchmark.core.own_images import OWN_IMAGES
from benchmark.records.folders import CLOCK, PRETRAINING, record_files
from benchmark.records.record import Record, read_record


def publish_run(run: Path, measured: Path, allow_dirty: bool = False) -> list[Path]:
    """Copy the records of one run folder (runs/<scale>/<recipe>/seed<k>), each with its seconds, date and machine, and
    those of the pretraining, to where published ones lie.

    Raises UserError for a folder without records, for one pretrained or scored on data that was not complete, and,
    unless allowed, for one of code that is in no commit.
    """
    files = record_files(run.glob("*.json"))
    if not files:
        raise UserError(f"{run}: no records there; give a folder like runs/desk/<recipe>/seed0")
    records = [read_record(path) for path in files]
    if parts := [record.transfer for record in records if "incomplete" in {**record.origin, **record.detail}]:
        raise UserError(
            f"{run}: {', '.join(parts)} came from data that was not complete (--incomplete), and published numbers are "
            "of whole datasets; delete these records and run again on all of the data"
        )
    if own := [record.transfer for record in records if OWN_IMAGES in _datasets(record)]:
        raise UserError(
            f"{run}: {', '.join(own)} came from your own images, which nobody else has, so nobody could repeat it; "
            "publish runs on the benchmark's datasets"
        )
    loose = [record.transfer for record in records if not all(map(_in_a_commit, _commits(record)))]
    if loose and not allow_dirty:
        raise UserError(
            f"{run}: {', '.join(loose)} came from code that is in no commit, so nobody could repeat it; commit, run "
            "again and then publish, or add --allow-dirty"
        )
    of_recipe = measured / records[0].published_path.parent.parent
    _copy_clock(run, PRETRAINING, of_recipe / PRETRAINING / f"seed{records[0].seed}{CLOCK}")
    for record in records:
        path = measured / record.published_path
        _copy_clock(run, record.transfer, path.with_suffix(CLOCK))
        write_whole(path, record.to_bytes())
    return [measured / record.published_path for record in records]


def _copy_clock(run: Path, of_what: str, to: Path) -> None:
    """Where there is one: runs that were stopped have none."""
    clock = run / f"{of_what}{CLOCK}"
    if clock.is_file():
        write_whole(to, clock.read_bytes())


def _datasets(record: Record) -> set[str]:
    """Of all data that had a part in it, also in the weights that its backbone started from, and those before them."""
    names, origin = [*record.transfer_data], record.origin
    while origin:
        names += str(origin.get("data", "")).split(" + ")
        origin = origin.get("init_from", {})
    return {name.partition("/")[0] for name in names}


def _commits(record: Record) -> list[str]:
    """Of all code that had a part in it."""
    made_by = record.origin.get("made_by", {})
    parts = [made_by, *made_by.get("stretches", ()), *record.detail.get("kept_by", ())]
    return [record.commit, *(part.get("commit", "") for part in parts)]


def _in_a_commit(commit: str) -> bool:
    return bool(commit) and not commit.endswith("+dirty")
