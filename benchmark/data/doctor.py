"""What is wrong with the datasets below a folder, and what to do about it: `sslbench doctor --data DIR [--deep]`.

The plain run reads every split as a training run would, looks for empty files, and runs each layout's own checks. An
error is what stops runs or makes a number wrong; what changes no number, or may be meant so, is a warning or a note.
`--deep` decodes every image on all cores, and lists those that cannot be decoded (`unreadable.py`). `open_dataset`
leaves these out from then on, so that no run has to check all images by itself.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from benchmark.core.errors import UserError
from benchmark.core.own_images import OWN_IMAGES
from benchmark.core.processes import process_pool
from benchmark.data.datasets import DATASETS, LAYOUTS, Layout, read_split
from benchmark.data.findings import BadData, Finding, denied, from_error, printable, some
from benchmark.data.folders import HIDDEN, NO_IMAGES
from benchmark.data.image_set import ImageSet
from benchmark.data.images import UnreadableImage, decode_rgb, file_size, is_in_archive, read_bytes
from benchmark.data.lookalikes import advice, lookalike
from benchmark.data.names import Names, find
from benchmark.data.own_classes import own_classes
from benchmark.data.pairs import check_apart, check_classes, check_folders
from benchmark.data.unreadable import listed_besides, read_unreadable, unknown_names, write_unreadable

MAX_STATS = 5_000_000  # with more files than this, only an evenly spaced sample is checked for being empty
FEW = 200  # so few images are decoded before worker processes have started
HARMLESS = (HIDDEN, NO_IMAGES)
COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def examine(data_root: Path, deep: bool, progress: bool) -> list[Finding]:
    """Everything found about every layout below `data_root`. With `deep`, lists of unreadable images are rewritten.

    UserError if there is no layout at all, nor anything that looks like one.
    """
    found = [layout for layout in DATASETS.values() if (data_root / layout.HOME).is_dir()]
    findings = [one for layout in DATASETS.values() if layout not in found for one in _misplaced(layout, data_root)]
    if not found and not findings:
        places = "\n".join(f"  {layout.NAME:14s} {data_root / layout.HOME}/" for layout in DATASETS.values())
        raise UserError(
            f"{data_root}: no dataset was found there. --data must name the folder that holds the datasets' folders. "
            f"Looked for:\n{places}\n`sslbench world` draws a small stand-in for all of them."
        )
    with _bars(progress) as bars:
        for layout in found:
            findings += _examine_layout(layout, data_root, deep, bars)
    told = {(one.path, one.message) if one.level == "error" else one: one for one in reversed(findings)}
    return [*reversed(told.values())]  # two splits, and then the layout's check, can report the same error


def examine_own(source: Path, deep: bool, progress: bool) -> list[Finding]:
    """The same of a user's own images, which may be of any number. UserError where they cannot be read at all."""
    images = read_split(LAYOUTS[OWN_IMAGES], source, "all")
    count = Finding("note", images.name, str(images.root), f"{len(images):,} images")
    # an archive or a list lies beside others, which share its list of unreadable images
    others = {} if source.is_dir() else listed_besides(images.root, frozenset(images.files))
    with _bars(progress) as bars:
        found = _decode_all([images], bars, others) if deep else _empty_files([images], bars)
    return [count, *_skipped(images), *own_classes(source), *found, *(_unknown([images]) if source.is_dir() else ())]


def _misplaced(layout: Layout, data_root: Path) -> list[Finding]:
    """A dataset whose folder has another name or place than its layout's, so that nothing would read it."""
    place = lookalike(data_root, layout.HOME, layout.ALSO_CALLED)
    if place is None:
        return []
    what = f"looks like {layout.NAME}, which is only read as a folder {layout.HOME}/ in {data_root}"
    return [Finding("error", layout.NAME, str(place), what, advice(place, data_root, layout.HOME))]


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
            findings += [*_skipped(splits[-1]), *_without_an_image(splits[-1])]
    findings += _check(layout, data_root, {(finding.path, finding.message) for finding in findings})
    findings += _disagreements(splits)
    try:
        findings += _decode_all(splits, bars) if deep else _empty_files(splits, bars)
        findings += _unknown(splits)
    except UserError as error:  # a folder or disk that may not be read, or a zip that holds something else
        findings.append(from_error(error, layout.NAME))
    return findings


def _skipped(images: ImageSet) -> list[Finding]:
    """Hidden files and those that are no images are no part of the dataset; anything else may be."""
    fix = "Runs do the same. Remove it, or put it where it belongs."
    return [
        Finding("note" if any(kind in text for kind in HARMLESS) else "warning", images.name, str(images.root),
                f"skipped {text}", fix)
        for text in images.skipped
    ]  # fmt: skip


def _unknown(splits: list[ImageSet]) -> list[Finding]:
    roots = dict.fromkeys(images.root for images in splits if not isinstance(images.files, Names))
    known = {root: frozenset(file for one in splits if one.root == root for file in one.files) for root in roots}
    return [finding for root in roots for finding in unknown_names(root, known[root])]


def _train_and_test(splits: list[ImageSet]) -> Iterator[tuple[ImageSet, ImageSet]]:
    """Pairs of splits that must not share images. VOC's trainval holds val by design."""
    by_name = {images.name.rpartition("/")[2]: images for images in splits}
    for train, test in (("train", "val"), ("trainval", "test")):
        if train in by_name and test in by_name:
            yield by_name[train], by_name[test]


def _disagreements(splits: list[ImageSet]) -> Iterator[Finding]:
    """What every run that is scored on these splits would refuse."""
    pairs = [*_train_and_test(splits)]
    checks = [(check_classes, splits[0], other) for other in splits[1:]]
    checks += [(check, *pair) for pair in pairs for check in (check_apart, check_folders)]
    for check, train, test in checks:
        try:
            check(train, test)
        except BadData as error:
            yield from_error(error, test.name)


def _without_an_image(images: ImageSet) -> Iterator[Finding]:
    if images.labels is not None and (absent := images.labels.absent()):
        what = f"no image is of {some([*absent])}: {len(absent):,} of {len(images.classes):,} classes"
        fix = "A mean over fewer classes is another number, and paper and photos scale refuse it. Is this a subset?"
        yield Finding("note", images.name, str(images.root), what, fix)


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
    have, real = (
        f"{number:,} images" + (f", {of_classes:,} classes" if classes else "")
        for number, of_classes in ((len(images), len(images.classes)), (count, classes))
    )
    complete = have == real
    message = f"{have}: complete" if complete else f"{have}; the complete dataset has {real}. A subset or stand-in?"
    return Finding("note", images.name, str(images.root), message)


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
    """Bytes of a plain file. Members of archives are not checked here: the layout checks these."""
    return 1 if is_in_archive(images.root, file) else file_size(images.root, file)


def _decode_all(splits: list[ImageSet], bars: Progress, others: Mapping[str, str] | None = None) -> list[Finding]:
    """Decodes every image once, even if several splits share it, and writes one list for each root, with `others`:
    what it tells of images that are not looked at here."""
    findings = []
    broken_below: dict[Path, dict[str, str]] = {}
    prints_below: dict[Path, dict[str, int]] = {}  # file -> hash of its bytes; only kept where splits are compared
    for images in splits:
        prints = prints_below.setdefault(images.root, {})
        broken = broken_below.setdefault(images.root, {})
        todo = np.arange(len(images))
        if prints:
            todo = np.array([i for i, file in enumerate(images.files) if file not in prints], dtype=np.int64)
        for i, seen, reason in _decode(images, todo, bars):
            if reason:
                broken[images.files[i]] = reason
            if len(splits) > 1:
                prints[images.files[i]] = seen
        names = [images.files[i] for i in find(images.files, broken).tolist()] if broken else []
        if names:
            message = f"{len(names):,} of {len(images):,} images cannot be decoded: {some(names)}"
            fix = "Runs leave out those that are listed. Better: fetch them again, then run --deep again."
            findings.append(Finding("warning", images.name, str(images.root), message, fix))
    for root, broken in broken_below.items():
        findings += write_unreadable(root, {**(others or {}), **broken})
    for train, test in _train_and_test(splits):
        findings += _equal_bytes(train, test, prints_below[train.root], prints_below[test.root])
    return findings


def _equal_bytes(train: ImageSet, test: ImageSet, first: dict[str, int], second: dict[str, int]) -> list[Finding]:
    """Test images that are also trained on, under another name. The real datasets have some, so it is no error."""
    file_of = {first[file]: file for file in train.files if first[file]}
    pairs = [(file, file_of[second[file]]) for file in test.files if second[file] in file_of]
    named = [f"{file} = {other}" for file, other in pairs if (test.root, file) != (train.root, other)]
    if not named:
        return []
    what = f"{len(named):,} of {len(test):,} test images have the same bytes as one of {train.name}: {some(named)}"
    return [
        Finding(
            "warning",
            test.name,
            str(test.root),
            what,
            "Scores are a little too high; check how many images this concerns.",
        )
    ]


def _decode(images: ImageSet, positions: np.ndarray, bars: Progress) -> Iterator[tuple[int, int, str]]:
    """Of each image at `positions`: its position, a hash of its bytes, 0 if it has none, and why it cannot be decoded,
    empty if it can."""
    if len(positions) <= FEW:
        yield from _decoded(images, positions)
        return
    chunks = np.array_split(positions, max(1, len(positions) // min(4096, max(16, len(positions) // 1000))))
    task = bars.add_task(f"{images.name}: decoding", total=len(positions))
    workers = max(1, min(len(os.sched_getaffinity(0)), len(chunks)))
    with process_pool(workers, _take, images.without_labels()) as pool:
        try:
            for chunk, decoded in zip(chunks, pool.map(_decode_chunk, chunks), strict=True):
                bars.advance(task, len(chunk))
                yield from decoded
        except BrokenProcessPool as error:
            raise UserError(
                f"{images.name}: a process that decoded images was killed, perhaps for lack of memory; run again"
            ) from error


_images: ImageSet  # sent to each worker process only once, because the names alone can be 100 MB


def _take(images: ImageSet) -> None:
    global _images
    _images = images


def _decode_chunk(positions: np.ndarray) -> list[tuple[int, int, str]]:
    return _decoded(_images, positions)


def _decoded(images: ImageSet, positions: np.ndarray) -> list[tuple[int, int, str]]:
    results = []
    for i in positions.tolist():
        seen, reason = 0, ""
        try:
            data = read_bytes(images.root, images.files[i])
            seen = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()) if data else 0
            decode_rgb(data, images.root, images.files[i])
            reason = _broken_map(images, i)
        except UnreadableImage as error:
            reason = error.reason
        results.append((i, seen, reason))
    return results


def _broken_map(images: ImageSet, index: int) -> str:
    """Why the first of an image's maps that cannot be decoded cannot; empty if all can. Runs then leave out the image:
    without the map it cannot be trained on."""
    for kind in images.maps:
        try:
            images.open_map(kind, index)
        except UnreadableImage as error:
            return f"its map of {kind}: {error.reason}"
    return ""


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
    text.append(printable(f"{finding.path}: {finding.message}" if finding.path else finding.message))
    if finding.fix:
        text.append(printable(f"\n        → {finding.fix}"), style="green")
    return text
