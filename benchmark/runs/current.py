"""What a run and its records would be now, and whether those that lie there are that."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark.backbones.weights import read_facts
from benchmark.core.errors import UserError
from benchmark.core.files import file_hash
from benchmark.data.datasets import open_dataset
from benchmark.engine.feed import seen_images
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Recipe, recipe_hash
from benchmark.recipe.pools import Pool
from benchmark.recipe.scales import Scale
from benchmark.records.currency import Now, reasons
from benchmark.records.folders import run_record
from benchmark.records.record import Record
from benchmark.runs.own_images import images_called_in, place_of
from benchmark.runs.run import Run, pool_images
from benchmark.transfers.contract import Transfer


@functools.cache
def split_fingerprint(data_root: Path, name: str, split: str) -> str:
    """Computed once per process: data that changes while a benchmark runs is beyond repair."""
    return open_dataset(data_root, name, split).fingerprint()


def is_pretrained(run: Run, recipe: Recipe) -> bool:
    """Whether the run's backbone file is what pretraining `recipe` (as resolved) would make now. Never so of an
    imported one."""
    if not run.backbone.is_file():
        return False
    origin = read_facts(run.backbone)["origin"]
    wanted: dict[str, Any] = {
        "recipe_hash": recipe_hash(recipe),
        "seed": run.seed,
        "data_fingerprint": pretraining_fingerprint(run, recipe),
    }
    after = run.after(recipe)
    if not all(path.is_file() for path in after.values()) or not _earlier_are_current(run, recipe):
        return False
    if run.initial or "init" in origin:
        wanted["init"] = initial_hash(run)
    if after:
        wanted["after"] = {name: _backbone_hash(path, path.stat().st_mtime_ns) for name, path in after.items()}
    return all(origin.get(key) == value for key, value in wanted.items())


def initial_hash(run: Run) -> str | None:
    """Of the backbone file that it starts from; None where it starts from none, or that is gone."""
    path = run.initial
    return _backbone_hash(path, path.stat().st_mtime_ns) if path and path.is_file() else None


def _earlier_are_current(run: Run, recipe: Recipe) -> bool:
    """Whether the benchmark's own recipes that this one comes after would make what they made. Of a user's own only the
    backbone file is compared, since nobody says here where their files lie."""
    own = find_recipes()
    earlier = [(before, own[before.name]) for before in run.before(recipe).values() if before.name in own]
    return all(is_pretrained(before, before.resolved(one)) for before, one in earlier)


def pretraining_fingerprint(run: Run, recipe: Recipe) -> str:
    """Of the images of all pools, as a backbone's origin has it."""
    return ",".join(_pool_fingerprint(run.data_root, one, run.seed) for one in recipe.pools.values())


@functools.cache
def _pool_fingerprint(data_root: Path, pool: Pool, seed: int) -> str:
    return seen_images(pool, pool_images(pool, data_root, seed)).fingerprint()


def transfer_now(transfer: Transfer, run: Run, engine: str | None = None) -> Now:
    """What a record of this transfer on this run's backbone file is held against. Raises UserError for a backbone file
    that does not say what it came from, or an engine that the transfer does not have."""
    origin = known_origin(run)
    return Now(
        recipe=origin["recipe_hash"],
        protocol=transfer.card.version,
        data=transfer_data(transfer, run.data_root, run.scale),
        backbone=_backbone_hash(run.backbone, run.backbone.stat().st_mtime_ns),
        engine=transfer.chosen_engine(engine),
    )


def known_origin(run: Run) -> dict[str, Any]:
    """What the run's backbone file says it came from. Raises UserError where that is not enough for a score."""
    origin = read_facts(run.backbone)["origin"]
    if missing := {"recipe_hash", "resolved"} - origin.keys():
        lacks = " and ".join(sorted(missing))
        raise UserError(
            f"{run.backbone}: its origin lacks {lacks}, and without it a score says nothing; pretrain it here"
        )
    return origin


def transfer_data(transfer: Transfer, data_root: Path, scale: Scale) -> dict[str, str]:
    """Name -> fingerprint of all that a transfer reads below `data_root` at that scale: splits, annotations, lists that
    are there."""
    card = transfer.card.at(scale)
    sets = {f"{name}/{split}": split_fingerprint(data_root, name, split) for name, split in card.datasets}
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
        return not reasons(run_record(path, run.runs), transfer_now(transfer, run, engine))
    except UserError:
        return False


def current_check(
    recipes: Mapping[str, Recipe], transfers: Mapping[str, Transfer], data_root: Path | None, runs: Path
) -> Callable[[Record], bool]:
    """Whether a record below `runs` is what would be run now; one of a transfer that is gone is not, nor of a recipe
    that is gone. A backbone that was imported, or trained on the user's own images, is taken as it is.

    data_root: the folder of the datasets; None where nobody said which it is. Own images lie where they lay when they
    were last read."""

    def is_current(record: Record) -> bool:
        protocol, label = record.transfer.partition("@")[0], images_called_in(record.transfer)
        scored_in = place_of(label, runs) if label else data_root
        transfer = transfers.get(protocol)
        if transfer is None or scored_in is None:
            return False
        run = Run(record.recipe, record.scale, record.seed, scored_in, runs)  # type: ignore[arg-type]
        try:
            there = _is_there(run, recipes, data_root)
            return there and is_scored(transfer.on_own_images(label) if label else transfer, run)
        except UserError:
            return False  # e.g. the data is gone, so nothing could be run now

    return is_current


def _is_there(run: Run, recipes: Mapping[str, Recipe], data_root: Path | None) -> bool:
    """Whether the run's backbone file is what it would be now."""
    if run.imported.is_file() or images_called_in(run.name):
        return run.backbone.is_file()
    if run.name not in recipes or data_root is None:
        return False
    trained = replace(run, data_root=data_root)
    return is_pretrained(trained, trained.resolved(recipes[run.name]))
