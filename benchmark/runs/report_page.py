"""What one run has shown so far, as a page beside its records: every score, and the pictures that go with it."""

from __future__ import annotations

from pathlib import Path

from benchmark.core.files import write_whole
from benchmark.records.folders import record_files
from benchmark.records.record import Record, read_record

NAME = "report.md"


def write_report(folder: Path, newest: Record) -> Path:
    """Write the page of a run's folder (runs/<scale>/<recipe>/seed<k>) anew from its records and one that is about to
    join them. Raises UserError for one that cannot be read."""
    paths = record_files(folder.glob("*.json"))
    records = {record.transfer: record for record in (*map(read_record, paths), newest)}
    parts = [f"# {newest.recipe}, {newest.scale} scale, seed {newest.seed}\n"]
    for transfer, record in sorted(records.items()):
        scores = "\n".join(f"| {metric} | {value:.1f} |" for metric, value in record.metrics.items())
        parts.append(f"## {transfer}\n\n| metric | value |\n|---|---|\n{scores}\n")
        picture = folder / f"{transfer}.png"
        if picture.is_file():
            parts.append(f"![what was found in some of the test images]({picture.name})\n")
    page = folder / NAME
    write_whole(page, "\n".join(parts).encode())
    return page
