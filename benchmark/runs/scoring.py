"""From a pretrained backbone to a record: runs one transfer, and says what a current record would be."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmark.backbones.weights import load_backbone, read_facts
from benchmark.core import distributed
from benchmark.core.errors import UserError
from benchmark.core.files import file_hash, write_whole
from benchmark.core.provenance import commit, versions
from benchmark.data.datasets import open_dataset
from benchmark.data.image_set import ImageSet
from benchmark.engine.checkpoint import locked
from benchmark.engine.progress import Display
from benchmark.engine.train import Machine, device_name
from benchmark.recipe.contract import Recipe, recipe_hash
from benchmark.recipe.scales import Scale, at_scale
from benchmark.records.record import Record, Target, read_record, write_record
from benchmark.runs.report_page import write_report
from benchmark.transfers.contract import Context, Transfer


@dataclass(frozen=True)
class Run:
    """One pretraining run: which recipe, at which scale and seed, on whose data, and where its files lie."""

    name: str
    scale: Scale
    seed: int
    data_root: Path
    runs: Path

    @property
    def folder(self) -> Path:
        return self.runs / self.scale / self.name / f"seed{self.seed}"

    @property
    def backbone(self) -> Path:
        return self.folder / "backbone.safetensors"

    @property
    def workspace(self) -> Path:
        """What the transfers of this backbone keep between them, and to go on from."""
        return self.folder / "workspace"

    def resolved(self, recipe: Recipe) -> Recipe:
        """The recipe as this run runs it."""
        return dataclasses.replace(at_scale(recipe, self.scale), seed=self.seed)


def pretraining_images(recipe: Recipe, data_root: Path) -> ImageSet:
    return open_dataset(data_root, recipe.data, "train")


@functools.cache
def fingerprint(data_root: Path, name: str, split: str) -> str:
    """Computed once per process: data that changes while a benchmark runs is beyond repair."""
    return open_dataset(data_root, name, split).fingerprint()


def is_pretrained(run: Run, recipe: Recipe) -> bool:
    """Whether the run's backbone file is what pretraining `recipe` (as resolved) would make now."""
    if not run.backbone.is_file():
        return False
    origin = read_facts(run.backbone)["origin"]
    wanted = {
        "recipe_hash": recipe_hash(recipe),
        "seed": run.seed,
        "data_fingerprint": _pretraining_fingerprint(run.data_root, recipe.data, recipe.labels),
    }
    return all(origin.get(key) == value for key, value in wanted.items())


@functools.cache
def _pretraining_fingerprint(data_root: Path, name: str, labels: bool) -> str:
    images = open_dataset(data_root, name, "train")
    return (images if labels else images.without_labels()).fingerprint()


def target(transfer: Transfer, run: Run) -> Target:
    """What a current record of this transfer on this run's backbone file is."""
    card, origin = transfer.card, read_facts(run.backbone)["origin"]
    missing = {"recipe_hash", "resolved"} - origin.keys()
    if missing:
        lacks = " and ".join(sorted(missing))
        raise UserError(
            f"{run.backbone}: its origin lacks {lacks}, without which a score is no result; pretrain it here"
        )
    return Target(
        recipe_hash=origin["recipe_hash"],
        scale=run.scale,
        seed=run.seed,
        transfer=card.id,
        transfer_version=card.version,
        transfer_data=transfer_data(transfer, run.data_root),
        backbone_hash=_backbone_hash(run.backbone, run.backbone.stat().st_mtime_ns),
    )


def transfer_data(transfer: Transfer, data_root: Path) -> dict[str, str]:
    """Name -> fingerprint of all that a transfer reads below `data_root`: splits, annotations, lists that are there."""
    card = transfer.card
    sets = {f"{name}/{split}": fingerprint(data_root, name, split) for name, split in card.datasets}
    lists = {name: file_hash(data_root / name) for name in card.lists if (data_root / name).is_file()}
    return sets | annotation_fingerprints(transfer, data_root) | lists


@functools.cache
def annotation_fingerprints(transfer: Transfer, data_root: Path) -> dict[str, str]:
    """Computed once per process, as `fingerprint` is: it reads every box or mask."""
    return transfer.annotations(data_root)


@functools.cache
def _backbone_hash(path: Path, changed_ns: int) -> str:
    return file_hash(path)


def is_scored(transfer: Transfer, run: Run, engine: str | None = None) -> bool:
    """Whether the record that lies there is what running the transfer on that engine would give now; an unreadable one
    is not."""
    path = run.folder / f"{transfer.card.id}.json"
    if not path.is_file() or not run.backbone.is_file():
        return False
    try:
        record = read_record(path)
        on_engine = record.detail.get("engine") == transfer.chosen_engine(engine)
        return on_engine and target(transfer, run).is_met_by(record)
    except UserError:
        return False


def score(transfer: Transfer, run: Run, machine: Machine, engine: str | None = None) -> Record:
    """Run the transfer on the run's backbone and write its record, its picture and the run's report.

    Raises UserError for a folder in use, a full disk, a backbone that does not load strictly, data that is missing, or
    a metric that is not on the card or not finite. What was done until then is kept, and the next call goes on there.
    """
    started = time.monotonic()
    card = transfer.card
    if distributed.world_size() > 1:
        raise UserError("transfers run in one process; start them without torchrun")
    with locked(run.folder), _display(f"{run.name} seed {run.seed}  {card.id}") as report:
        backbone, facts = load_backbone(run.backbone)
        wanted = target(transfer, run)
        engine = transfer.chosen_engine(engine)
        context = Context(
            data_root=run.data_root,
            scale=run.scale,
            seed=run.seed,
            workspace=run.workspace,
            device=machine.device,
            workers=machine.workers,
            report=report,
            engine=engine,
        )
        scores = transfer.run(backbone, context)
        if scores.metrics.keys() != card.metrics.keys():
            raise UserError(f"{card.id}: gave {sorted(scores.metrics)}, its card promises {sorted(card.metrics)}")
        origin = facts["origin"]
        record = Record(
            recipe=run.name,
            settings=origin["resolved"],
            metrics=scores.metrics,
            detail={**scores.detail, "data_read": scores.data} | ({"engine": engine} if engine else {}),
            origin={key: value for key, value in origin.items() if key != "resolved"},
            commit=commit(),
            versions=versions(),
            device=device_name(machine.device),
            threads=torch.get_num_threads(),
            **dataclasses.asdict(wanted),
        )
        try:
            record.to_bytes()
        except ValueError as error:
            raise UserError(f"{card.id}: a score of {run.name} is not finite, so there is no result") from error
        if scores.picture:
            write_whole(run.folder / f"{card.id}.png", scores.picture)
        write_report(run.folder, record)
        write_record(record, run.runs, time.monotonic() - started)  # last: once it is there, nothing is done again
        for checkpoint in run.workspace.glob(f"{card.id}-*"):  # only now: a record that cannot be written is not lost
            checkpoint.unlink()
    return record


def clear_workspace(run: Run) -> None:
    """For when every transfer has its record. Where another process is at work, the workspace is left to that."""
    with suppress(UserError), locked(run.folder):
        shutil.rmtree(run.workspace, ignore_errors=True)


@contextmanager
def _display(title: str) -> Iterator[Any]:
    """A Context.report that shows one bar, or one series of log lines, per thing that the transfer reports on."""
    shown: list[tuple[str, int, Display]] = []

    def report(what: str, done: int, total: int, figures: dict[str, float]) -> None:
        if not shown or shown[-1][:2] != (what, total):
            close()
            shown.append((what, total, Display(f"{title}  {what}", total).__enter__()))
        shown[-1][2].update(done, figures)

    def close() -> None:
        if shown:
            shown[-1][2].__exit__(None, None, None)

    try:
        yield report
    finally:
        close()
