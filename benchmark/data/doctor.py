"""What is wrong with the datasets below a folder, and what to do about it: `sslbench doctor --data DIR [--deep]`.

The plain run reads every split as a training run would, looks for empty files, and runs each layout's own checks.
`--deep` decodes every image on all cores, and writes the names of those that cannot be decoded into unreadable.txt
beside the images. `open_dataset` leaves these out from then on, so that no run has to check all images by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from benchmark.core.errors import UserError
from benchmark.core.files import write_whole
from benchmark.core.processes import process_pool
from benchmark.data.datasets import DATASETS, UNREADABLE, Layout, read_split, read_unreadable
from benchmark.data.findings import Finding, denied, from_error, some
from benchmark.data.image_set import ImageSet
from benchmark.data.images import UnreadableImage, file_size, open_rgb, split_zip
from benchmark.data.names import find

MAX_STATS = 5_000_000  # with more files than this, only an evenly spaced sample is checked for being empty
FEW = 200  # so few images are decoded before worker processes have started
COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def examine(data_root: Path, deep: bool, progress: bool) -> list[Finding]:
    """Everything found about every layout below `data_root`. With `deep`, unreadable.txt is rewritten.

    UserError if there is no layout at all.
    """
    found = [layout for layout in DATASETS.values() if (data_root / layout.HOME).is_dir()]
    if not found:
        places = "\n".join(f"  {layout.NAME:14s} {data_root / layout.HOME}/" for layout in DATASETS.values())
        raise UserError(
            f"{data_root}: no dataset was found there. --data must name the folder that holds the datasets' folders. "
            f"Looked for:\n{places}\n`sslbench world` draws a small stand-in for all of them."
        )
    findings: list[Finding] = []
    with _bars(progress) as bars:
        for layout in found:
            findings += _examine_layout(layout, data_root, deep, bars)
    return list(dict.fromkeys(findings))  # two splits can report the same error


def _examine_layout(layout: Layout, data_root: Path, deep: bool, bars: Progress) -> list[Finding]:
    findings: list[Finding] = []
    splits: list[ImageSet] = []
    for split in layout.SPLITS:
        try:
            splits.append(read_split(layout, data_root, split))
        except UserError as error:
            findings.append(from_error(error, f"{layout.NAME}/{split}"))
        else:
            findings.append(_size_note(splits[-1], *layout.SPLITS[split]))
    findings += _check(layout, data_root, {(finding.path, finding.message) for finding in findings})
    findings += _class_order(layout.NAME, splits)
    return findings + (_decode_all(splits, bars) if deep else _empty_files(splits, bars))


def _check(layout: Layout, data_root: Path, known: set[tuple[str, str]]) -> list[Finding]:
    """The layout's own checks. An error that stops them is left out if it is `known`: reading a split reported it."""
    try:
        return layout.check(data_root)
    except UserError as error:
        finding = from_error(error, layout.NAME)
    except OSError as error:
        finding = from_error(denied(error.filename or data_root / layout.HOME, error), layout.NAME)
    return [] if (finding.path, finding.message) in known else [finding]


def _size_note(images: ImageSet, count: int, classes: int) -> Finding:
    """The numbers of images and classes, beside the real dataset's. A subset is only a note: it may be intended."""
    have = f"{len(images):,} images" + (f", {len(images.classes):,} classes" if classes else "")
    real = f"{count:,} images" + (f", {classes:,} classes" if classes else "")
    complete = len(images) == count and (not classes or len(images.classes) == classes)
    message = f"{have}: complete" if complete else f"{have}; the complete dataset has {real}. A subset or stand-in?"
    return Finding("note", images.name, str(images.root), message)


def _class_order(name: str, splits: list[ImageSet]) -> list[Finding]:
    """A class index must mean the same class in every split."""
    orders = {images.classes: images for images in splits}
    if len(orders) <= 1:
        return []
    first, second = list(orders.values())[:2]
    counts = f"{len(first.classes):,} classes and {second.name} {len(second.classes):,}"
    what = f"{first.name} has {counts}; the classes or their order differ"
    fix = "Give both splits the same classes in the same order. Otherwise every accuracy is wrong."
    return [Finding("error", name, str(first.root), what, fix)]


def _empty_files(splits: list[ImageSet], bars: Progress) -> list[Finding]:
    findings = []
    for images in splits:
        step = -(-len(images) // MAX_STATS)
        listed = frozenset(read_unreadable(images.root))
        positions = range(0, len(images), step)
        sizes = ((i, images.files[i]) for i in bars.track(positions, description=f"{images.name}: sizes"))
        bad = [(file, size) for _, file in sizes if (size := _own_size(images, file)) <= 0 and file not in listed]
        if step > 1:
            message = f"only one in {step} of {len(images):,} files was checked for being empty"
            findings.append(Finding("note", images.name, str(images.root), message, "--deep checks all of them."))
        fix = "Fetch them again, or run with --deep, which lists them so that runs leave them out."
        for what, names in (
            ("empty (0 bytes)", [file for file, size in bad if size == 0]),
            ("missing", [file for file, size in bad if size < 0]),
        ):
            if names:
                message = f"{len(names):,} file(s) {what}: {some(names)}"
                findings.append(Finding("error", images.name, str(images.root), message, fix))
    return findings


def _own_size(images: ImageSet, file: str) -> int:
    """Bytes of a plain file. Members of zips are not checked here: the layout checks its zips."""
    return 1 if split_zip(file)[1] else file_size(images.root, file)


def _decode_all(splits: list[ImageSet], bars: Progress) -> list[Finding]:
    """Decodes every image once, even if several splits share it, and writes one unreadable.txt for each root."""
    findings = []
    broken_below: dict[Path, dict[str, str]] = {}
    done_below: dict[Path, set[str]] = {}
    for images in splits:
        done = done_below.setdefault(images.root, set())
        broken = broken_below.setdefault(images.root, {})
        todo = np.arange(len(images))
        if done:
            todo = np.array([i for i, file in enumerate(images.files) if file not in done], dtype=np.int64)
        broken |= dict(_decode(images, todo, bars))
        if len(splits) > 1:
            done.update(images.files)
        names = [images.files[i] for i in find(images.files, broken).tolist()] if broken else []
        if names:
            message = f"{len(names):,} of {len(images):,} images cannot be decoded: {some(names)}"
            fix = (
                f"{images.root / UNREADABLE} lists them, so runs leave them out. "
                "Better: fetch them again, then run --deep again."
            )
            findings.append(Finding("warning", images.name, str(images.root), message, fix))
    for root, broken in broken_below.items():
        findings += _write_unreadable(root, broken)
    return findings


def _decode(images: ImageSet, positions: np.ndarray, bars: Progress) -> Iterator[tuple[str, str]]:
    """(file, reason) of each image at `positions` that cannot be decoded."""
    if len(positions) <= FEW:
        yield from _broken(images, positions)
        return
    chunks = np.array_split(positions, max(1, len(positions) // min(4096, max(16, len(positions) // 1000))))
    task = bars.add_task(f"{images.name}: decoding", total=len(positions))
    workers = max(1, min(len(os.sched_getaffinity(0)), len(chunks)))
    with process_pool(workers, _take, images.without_labels()) as pool:
        try:
            for chunk, broken in zip(chunks, pool.map(_decode_chunk, chunks), strict=True):
                bars.advance(task, len(chunk))
                yield from broken
        except BrokenProcessPool as error:
            raise UserError(
                f"{images.name}: a process that decoded images was killed, perhaps for lack of memory; run again"
            ) from error


_images: ImageSet  # sent to each worker process only once, because the names alone can be 100 MB


def _take(images: ImageSet) -> None:
    global _images
    _images = images


def _decode_chunk(positions: np.ndarray) -> list[tuple[str, str]]:
    return _broken(_images, positions)


def _broken(images: ImageSet, positions: np.ndarray) -> list[tuple[str, str]]:
    broken = []
    for i in positions.tolist():
        file = images.files[i]
        try:
            open_rgb(images.root, file)
        except UnreadableImage as error:
            broken.append((file, error.reason))
    return broken


def _write_unreadable(root: Path, broken: dict[str, str]) -> list[Finding]:
    """Replaces the list, so that a repaired file is used again, and removes it if nothing is broken."""
    path = root / UNREADABLE
    header = "# Images that cannot be decoded, which runs leave out. Written by `sslbench doctor --deep`.\n"
    lines = "".join(f"{file}\t{' '.join(reason.split())}\n" for file, reason in sorted(broken.items()))
    try:
        if broken:
            write_whole(path, (header + lines).encode(errors="surrogateescape"))
        else:
            path.unlink(missing_ok=True)
    except (OSError, UserError) as error:
        fix = "Make the folder writable, or write the list yourself: one name per line, relative to the folder."
        return [Finding("error", root.name, str(path), f"cannot be written ({error})", fix)]
    return []


@contextmanager
def _bars(progress: bool) -> Iterator[Progress]:
    """Bars with counts and times on stderr, so that the report on stdout can be piped; none without `progress`."""
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), disable=not progress
    ) as bars:
        yield bars


def print_report(findings: list[Finding], console: Console | None = None) -> int:
    """Prints the findings, the most serious last, where you look first. Returns the exit code: 1 if there is an error,
    else 0."""
    console = console or Console(soft_wrap=True)
    for level in ("note", "warning", "error"):
        for finding in findings:
            if finding.level == level:
                console.print(_line(finding))
    counts = [sum(finding.level == level for finding in findings) for level in ("error", "warning", "note")]
    console.print(Text(f"{counts[0]} errors, {counts[1]} warnings, {counts[2]} notes", style="bold"))
    return 1 if counts[0] else 0


def _line(finding: Finding) -> Text:
    """As Text, because rich would take [brackets] in a file name for its own markup."""
    text = Text.assemble((f"{finding.level:7s} ", COLOURS[finding.level]), (finding.dataset, "bold"), "  ")
    text.append(f"{finding.path}: {finding.message}" if finding.path else finding.message)
    if finding.fix:
        text.append(f"\n        → {finding.fix}", style="green")
    return text
