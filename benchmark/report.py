"""What one run has shown so far, as a page beside its records: every score, and the pictures that go with it."""

from __future__ import annotations

from pathlib import Path

from benchmark.files import write_whole
from benchmark.results import read_record

NAME = "report.md"


def write_report(folder: Path) -> Path:
    """Write the page of a run's folder (runs/<scale>/<recipe>/seed<k>) anew from its records. Raises UserError for one
    that cannot be read."""
    paths = [path for path in sorted(folder.glob("*.json")) if not path.name.endswith(".time.json")]
    parts = [f"# {folder.parent.name}, {folder.parent.parent.name} scale, {folder.name}\n"]
    for path in paths:
        record = read_record(path)
        scores = "\n".join(f"| {metric} | {value:.1f} |" for metric, value in record.metrics.items())
        parts.append(f"## {record.transfer}\n\n| metric | value |\n|---|---|\n{scores}\n")
        picture = path.with_suffix(".png")
        if picture.is_file():
            parts.append(f"![what was found in some of the test images]({picture.name})\n")
    page = folder / NAME
    write_whole(page, "\n".join(parts).encode())
    return page
