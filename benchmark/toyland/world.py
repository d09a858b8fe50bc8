"""Writes the world: every dataset drawn by worker processes into a temporary folder, then renamed into place.

So a dataset that exists is complete. Each of its folders has a small stamp file, which tells later runs that Toyland
drew it, and `toyland.json` at the root says what was built. A folder without a stamp is the user's own data and is
never touched.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Executor, Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError, remedy
from benchmark.core.files import write_whole
from benchmark.core.processes import process_pool
from benchmark.toyland.layouts import LAYOUTS
from benchmark.toyland.layouts.base import LayoutWriter, Picture, ScaleName
from benchmark.toyland.progress import Progress

WORLD_DATASETS = tuple(LAYOUTS)
VERSION = 5  # raise it whenever a drawing or a number of pictures changes: worlds of other versions are drawn again
MANIFEST = "toyland.json"
STAMP = ".toyland.json"
_TEMPORARY = ".toyland-"
_CHUNK = 50  # pictures a worker draws before it reports
_WORTH_WORKERS = 400  # fewer pictures than this are drawn before workers have started


def build_world(
    root: Path,
    scale: ScaleName,
    seed: int = 0,
    datasets: Sequence[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Make sure that `root` holds the world of this scale and seed, or those of its datasets that are named; returns
    `root`.

    Every file depends on (seed, dataset, split, index) alone, byte for byte, whatever the number of workers (by default
    one per core). What exists already is left alone; an interrupted run leaves nothing half-written; two runs at once
    take turns. Progress goes to stderr.
    Raises UserError if a dataset's folder exists and was not made here.
    """
    root = Path(root)
    wanted = _known(datasets)
    stamps = {name: {"scale": scale, "seed": seed, "version": VERSION, "dataset": name} for name in wanted}
    if all(_is_built(root, name, stamps[name]) for name in wanted):
        return root
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root):
            missing = [name for name in wanted if not _is_built(root, name, stamps[name])]
            for name in missing:
                _refuse_foreign(root, LAYOUTS[name])
            _draw_all(root, scale, seed, {name: stamps[name] for name in missing}, workers, progress)
    except OSError as error:
        what = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        raise UserError(f"{root}: the world could not be written ({what}); {remedy(error)}, then run again.") from error
    except BrokenProcessPool as error:
        raise UserError(f"{root}: a process drawing the world was killed; run again with fewer workers.") from error
    return root


def drawn_for(asked: Collection[str]) -> list[str]:
    """The datasets of a world for those who ask for these by name: they may be others than Toyland's."""
    return [name for name, layout in LAYOUTS.items() if name in asked or not layout.on_request]


def _known(datasets: Sequence[str] | None) -> tuple[str, ...]:
    wanted = WORLD_DATASETS if datasets is None else tuple(datasets)
    if unknown := [name for name in wanted if name not in LAYOUTS]:
        raise UserError(f"Toyland has no dataset {unknown[0]!r}; it has {', '.join(WORLD_DATASETS)}.")
    return wanted


def _is_built(root: Path, name: str, stamp: dict[str, Any]) -> bool:
    """Whether the manifest lists the dataset as asked for and its folders are there."""
    entry = read_manifest(root).get(name, {})
    return stamp.items() <= entry.items() and all((root / folder / STAMP).is_file() for folder in LAYOUTS[name].folders)


def read_manifest(root: Path) -> dict[str, dict[str, Any]]:
    """dataset → scale, seed, version, images, fingerprint; empty if nothing was built below `root`."""
    try:
        return json.loads((root / MANIFEST).read_text(encoding="utf-8"))["datasets"]
    except (FileNotFoundError, NotADirectoryError):  # what stands in the way is told when something is written
        return {}
    except OSError as error:
        raise UserError(f"{root / MANIFEST}: cannot be read ({error.strerror}); {remedy(error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{root / MANIFEST} is damaged ({error}); delete it, and the world is drawn again.") from error


def _refuse_foreign(root: Path, layout: LayoutWriter) -> None:
    for folder in layout.folders:
        if (root / folder).exists() and not (root / folder / STAMP).is_file():
            raise UserError(
                f"{root / folder} exists and was not drawn by Toyland, so it is left alone. "
                f"Choose another folder for the world, or move that one away."
            )


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One builder at a time. The lock ends with its process, so temporary folders found here were left by a killed
    one."""
    with open(root / f"{_TEMPORARY}lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in root.glob(f"{_TEMPORARY}*"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
        yield


def _draw_all(
    root: Path, scale: ScaleName, seed: int, stamps: dict[str, dict[str, Any]], workers: int | None, progress: bool
) -> None:
    pictures = {name: LAYOUTS[name].pictures(scale, seed) for name in stamps}
    total = sum(map(len, pictures.values()))
    workers = min(os.cpu_count() or 1, 8) if workers is None else workers
    with _executor(workers if total >= _WORTH_WORKERS else 1) as executor, Progress(total, progress) as bar:
        for name, stamp in stamps.items():
            with _temporary(root) as folder:
                notes = _draw(executor, folder, name, pictures[name], seed, bar)
                LAYOUTS[name].finish(folder, scale, seed, pictures[name], notes)
                entry = {**stamp, "images": len(pictures[name]), "fingerprint": fingerprint(folder)}
                _put_in_place(root, folder, LAYOUTS[name], entry)


@contextmanager
def _executor(workers: int) -> Iterator[Executor | None]:
    """Worker processes, or None for a single worker, which is this process."""
    if workers <= 1:
        yield None
        return
    executor = process_pool(workers, _obey_parent)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _obey_parent() -> None:
    """Ctrl-C reaches every process of a terminal. Workers ignore it: the process that started them deals with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _temporary(root: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _draw(
    executor: Executor | None, folder: Path, name: str, pictures: list[Picture], seed: int, bar: Progress
) -> list[Any]:
    """Draw all pictures; returns their notes in order."""
    chunks = [pictures[start : start + _CHUNK] for start in range(0, len(pictures), _CHUNK)]
    notes: list[list[Any]] = [[] for _ in chunks]
    if executor is None:
        for number, chunk in enumerate(chunks):
            notes[number] = _draw_chunk(folder, name, chunk, seed)
            bar.advance(name, len(chunk))
    else:
        futures: dict[Future[list[Any]], int] = {
            executor.submit(_draw_chunk, folder, name, chunk, seed): number for number, chunk in enumerate(chunks)
        }
        for future in as_completed(futures):
            number = futures[future]
            notes[number] = future.result()
            bar.advance(name, len(chunks[number]))
    return [note for chunk in notes for note in chunk]


def _draw_chunk(folder: Path, name: str, pictures: list[Picture], seed: int) -> list[Any]:
    """What a worker does."""
    return [LAYOUTS[name].draw(folder, picture, seed) for picture in pictures]


def fingerprint(folder: Path) -> str:
    """Twelve hex digits over the names and bytes of every file below `folder`."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _put_in_place(root: Path, folder: Path, layout: LayoutWriter, entry: dict[str, Any]) -> None:
    """Stamp the finished folders, move away what they replace, rename them into place, and only then update the
    manifest."""
    for owned in layout.folders:
        (folder / owned / STAMP).write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
    for owned in layout.folders:
        target = root / owned
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            os.replace(target, folder / f"replaced-{Path(owned).name}")  # goes with the temporary folder
        os.replace(folder / owned, target)
    manifest = {"about": "Drawn by Toyland; delete a dataset's folder to have it drawn again.", "datasets": {}}
    manifest["datasets"] = {**read_manifest(root), entry["dataset"]: entry}
    write_whole(root / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
