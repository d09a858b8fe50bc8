"""What the data must be before a number may come of it, for every transfer and every pretraining alike: the same
classes in all splits, no image both trained and scored on, nothing scored over fewer classes than the card's, and
where real datasets are read, the complete ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.own_images import OWN_IMAGES
from benchmark.data.completeness import shortfall
from benchmark.data.datasets import open_dataset
from benchmark.data.findings import some
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes
from benchmark.data.pairs import check_apart, check_classes, check_folders
from benchmark.data.splits import percent_of
from benchmark.recipe.contract import Recipe, Settings
from benchmark.recipe.scales import DRAWN
from benchmark.runs.own_images import images_called_in, place_of
from benchmark.runs.run import Run
from benchmark.transfers.contract import Transfer


def checked_data(transfer: Transfer, run: Run, origin: Mapping[str, Any], incomplete: bool) -> dict[str, Any]:
    """What the detail of a record says of its data besides: nothing of complete data. origin: the backbone's.
    incomplete: whether data that is not complete may be scored where real datasets are read.

    Raises UserError for data that gives a wrong number, or none."""
    if not transfer.card.datasets:
        return {}
    *train, test = sets = [_opened(run, *dataset) for dataset in transfer.card.at(run.scale).datasets]
    for images in train:
        check_classes(images, test)
    for images in (*([] if transfer.card.shared else train), *_seen_with_labels(run, origin, test)):
        check_apart(images, test)
    for images in train:
        check_folders(images, test)
    absent = transfer.absent(run.data_root, test)
    _check_scorable(transfer, test, absent)
    if run.scale not in DRAWN and not isinstance(test.labels, Classes):
        _check_all_classes(transfer, train, test, absent)
    missing = _missing(sets)
    if run.scale not in DRAWN:
        missing |= transfer.shortfalls(run.data_root)
    if absent and isinstance(test.labels, Classes):
        missing[f"{test.name}, classes without an image"] = some([*absent])
    return _told(missing, sets, run, incomplete)


def checked_pools(recipe: Recipe, run: Run, incomplete: bool) -> dict[str, Any]:
    """The same of what a recipe looks at, for the backbone file. Which part of a pool is drawn does not matter: it is
    the whole that is complete or not."""
    if not recipe.optimizers and type(recipe.method).views is Settings.views:
        return {}
    splits = {(pool.dataset, pool.split) for pool in recipe.pools.values()}
    sets = [_opened(run, *split) for split in sorted(splits)]
    return _told(_missing(sets), sets, run, incomplete)


def _opened(run: Run, name: str, split: str) -> ImageSet:
    """In silence: what is left out is told when it is read for the work itself."""
    return open_dataset(run.data_root, name, split, lambda _: None)


def _seen_with_labels(run: Run, origin: Mapping[str, Any], test: ImageSet) -> Iterator[ImageSet]:
    """The pools of the test set's own dataset that the backbone was trained on with labels. Other datasets need not
    even be there."""
    if "init_from" in origin:
        yield from _seen_with_labels(run, origin["init_from"], test)
    data = origin.get("resolved", {}).get("data", {})
    for pool in [data] if "dataset" in data else data.values():
        if not pool["labels"] or pool["dataset"] != test.name.partition("/")[0]:
            continue
        if pool["dataset"] == OWN_IMAGES:
            yield _own_seen(run, origin, pool)
        else:
            yield _opened(run, pool["dataset"], pool["split"])


def _own_seen(run: Run, origin: Mapping[str, Any], pool: Mapping[str, Any]) -> ImageSet:
    """A pool of the user's own images as the backbone saw it. They may be others than those that are scored now, and
    what cannot be looked at any more cannot be compared."""
    name = origin.get("recipe", "")
    place = place_of(images_called_in(name), run.runs)
    again = "so nobody can tell whether scored images were among them; pretrain it again"
    if place is None or not place.exists():
        gone = place or "the images that it was called after"
        raise UserError(f"{name or 'the backbone'} was trained with labels on {gone}, which is gone, {again}")
    images = open_dataset(place, OWN_IMAGES, pool["split"], lambda _: None)
    drawn = percent_of(images, pool.get("percent", 100), origin.get("seed", 0))
    if drawn.fingerprint() not in str(origin.get("data_fingerprint", "")).split(","):
        raise UserError(f"{name} was trained with labels on {place}, and images there have changed since, {again}")
    return images


def _check_scorable(transfer: Transfer, test: ImageSet, absent: Sequence[str]) -> None:
    names = test.classes
    if isinstance(test.labels, Classes) and len(names) < 2:
        raise UserError(f"{test.name} has only one class, {names[0]}, so every answer would be right; add classes")
    if absent and len(absent) >= len(names):
        raise UserError(
            f"{test.name}: no image shows anything that {transfer.card.id} could score: of none of the {len(names)} "
            "classes is there one that counts (difficult objects, crowds and void do not). Unpack the dataset again"
        )


def _check_all_classes(transfer: Transfer, train: Sequence[ImageSet], test: ImageSet, absent: Sequence[str]) -> None:
    """A mean over the classes must be over all of them."""
    untrained = [one.labels.absent() for one in train if one.labels is not None]
    never = [name for name in test.classes if untrained and all(name in names for names in untrained)]
    where = ((absent, test.name), (never, " and ".join(one.name for one in train)))
    if what := [f"no image of {name} shows {some([*names])}" for names, name in where if names]:
        raise UserError(
            f"{'; '.join(what)}. {', '.join(transfer.card.metrics)} of {transfer.card.id} are means over "
            f"{len(test.classes)} classes, and a mean over fewer is a different number. Unpack the dataset again"
        )


def _missing(sets: Sequence[ImageSet]) -> dict[str, str]:
    return {images.name: what for images in sets if (what := shortfall(images))}


def _told(missing: Mapping[str, str], sets: Sequence[ImageSet], run: Run, incomplete: bool) -> dict[str, Any]:
    skipped = {images.name: [*images.skipped] for images in sets if images.skipped}
    said: dict[str, Any] = {"skipped": skipped} if skipped else {}
    if run.scale in DRAWN or not missing:
        return said
    if not incomplete:
        named = "; ".join(f"{name}: {what}" for name, what in missing.items())
        raise UserError(
            f"{run.data_root}: the data is incomplete, and {run.scale} scale needs all of it. {named}. Fetch the rest "
            "(`sslbench doctor` helps), or give --incomplete, and the result will say what was missing"
        )
    return said | {"incomplete": dict(missing)}
