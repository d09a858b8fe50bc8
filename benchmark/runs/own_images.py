"""What `--images` means: the user's own images in the place of the datasets that recipes and protocols name.

They are a dataset like any other (benchmark/data/layouts/own_images.py), and a recipe or a protocol on them is another
one: its name says on which images, so that no run, record or table mixes them with the benchmark's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.core.bounds import of_images, queues
from benchmark.core.errors import UserError
from benchmark.core.files import write_whole
from benchmark.core.own_images import OWN_IMAGES
from benchmark.data.datasets import DATASETS, open_dataset
from benchmark.data.image_set import ImageSet
from benchmark.recipe.contract import Change, Recipe
from benchmark.recipe.pools import Pool
from benchmark.recipe.scales import pool_key

WHY = "--images"
LEAST_CLUSTERS = 2


@dataclass(frozen=True)
class OwnImages:
    """path: what `--images` was given. label: what runs and protocols on it are called after."""

    path: Path
    label: str

    @property
    def are_labelled(self) -> bool:
        return open_dataset(self.path, OWN_IMAGES, "train", lambda _: None).labels is not None

    def opened(self, split: str = "train") -> ImageSet:
        return open_dataset(self.path, OWN_IMAGES, split)


def own_images(path: Path, runs: Path) -> OwnImages:
    """The images at a path. Below `runs` it is kept where they lie, so that tables can tell whether records of them
    still hold. Raises UserError if they are not there, or others of this name are known."""
    if not path.exists():
        raise UserError(f"--images {path}: there is no such folder or file")
    place = Path(os.path.abspath(path))
    label = re.sub(r"[^A-Za-z0-9._-]+", "-", place.name) or "images"
    known = place_of(label, runs)
    if known and known != place and known.exists():
        raise UserError(
            f"--images {path}: {known} is called {label} too, and has runs in {runs}; give one of them another name, "
            "or another --runs folder"
        )
    own = OwnImages(path, label)
    if known != place:
        open_dataset(path, OWN_IMAGES, "all", lambda _: None)  # what cannot be read takes the name from nothing else
        write_whole(_note(label, runs), os.fsencode(place) + b"\n")
    return own


def place_of(label: str, runs: Path) -> Path | None:
    """Where the images of that name lie, by the last command that read them."""
    note = _note(label, runs)
    return Path(os.fsdecode(note.read_bytes().rstrip(b"\n"))) if note.is_file() else None


def _note(label: str, runs: Path) -> Path:
    return runs / OWN_IMAGES / f"{label}.txt"


def called(name: str, key: str, value: str) -> str:
    """A run's name with one more thing that makes it another: pirl@batch_size=64,images=photos."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", value)
    return f"{name}{',' if '@' in name else '@'}{key}={plain}"


def images_called_in(name: str) -> str:
    """The label of the images that a run or a protocol is called after; empty where it is after none."""
    found = re.search(r"[@,]images=([^,]+)", name)
    return found[1] if found else ""


def recipe_on(recipe: Recipe, own: OwnImages) -> Recipe:
    """The recipe with these images in every pool. What the command line sets comes later and holds.

    Raises UserError for a recipe that needs more of a dataset than images and classes.
    """
    return replace(recipe, overrides=(*_changes(recipe, own), *recipe.overrides))


def _changes(recipe: Recipe, own: OwnImages) -> Iterator[Change]:
    for name, pool in recipe.pools.items():
        _check_replaceable(recipe, pool)
        key = pool_key(recipe, name)
        yield Change(f"{key}.dataset", OWN_IMAGES, WHY)
        yield Change(f"{key}.split", "train", WHY)
        if not pool.labels:
            yield Change(f"{key}.percent", 100.0, "a part of a large dataset is taken because it is large")
    if recipe.after:
        after = {key: called(name, "images", own.label) for key, name in recipe.after.items()}
        yield Change("after", after, "that one saw these images, too")
    counted = of_images(type(recipe.method))
    part = len(own.opened()) / _meant_for(recipe) if counted else 1.0
    for name in counted:
        value = _share(getattr(recipe.method, name), part)
        yield Change(f"method.{name}", value, "as many images each as in the paper")


def require_enough(recipe: Recipe, images: Mapping[str, ImageSet]) -> None:
    """Raises UserError for a queue of more images than the user has: most of it would be the same ones again, and an
    image among the negatives of itself. recipe: as it runs. images: of each pool."""
    name, found = next(iter(images.items()))
    if recipe.pools[name].dataset != OWN_IMAGES:
        return
    for key in queues(type(recipe.method)):
        if (length := getattr(recipe.method, key)) > len(found):
            raise UserError(
                f"{recipe.title} has a queue of the last {length:,} images ({key}), and {found.name} has only "
                f"{len(found):,}: each would be among the negatives of itself. Set --recipe.method.{key} to less than "
                f"that, such as {max(len(found) // 2, 1)}"
            )


def _check_replaceable(recipe: Recipe, pool: Pool) -> None:
    more = f"maps of {', '.join(pool.maps)}" if pool.maps else ""
    if getattr(DATASETS.get(pool.dataset), "TOGETHER", 1) > 1:
        more = "files that belong together"
    if more:
        raise UserError(f"{recipe.title} learns from {more} of {pool.dataset}, which images alone do not have")


def _meant_for(recipe: Recipe) -> float:
    """How many images the recipe's first pool has in the paper."""
    pool = next(iter(recipe.pools.values()))
    return DATASETS[pool.dataset].SPLITS[pool.split][0] * pool.percent / 100


def _share(value: Any, part: float) -> Any:
    if isinstance(value, tuple):
        return tuple(_share(one, part) for one in value)
    return max(LEAST_CLUSTERS, round(value * part))
