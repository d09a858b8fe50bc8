"""Scales: the same code path for a laptop and a cluster.

paper:  the recipe as its paper states it, on the real datasets.
photos: desk's small networks on real photographs: Tiny ImageNet stands in for ImageNet; an hour on 2 cores.
desk:   the recipe with its own `desk` changes, on Toyland, whose ImageNet stands in for Tiny ImageNet too; minutes on 2
        cores.
smoke:  desk with a handful of steps; what the tests run over every recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, get_args

from benchmark.core.errors import UserError
from benchmark.core.optimisation import Adam, Epochs, Span, Steps
from benchmark.core.own_images import OWN_IMAGES
from benchmark.core.plain import all_misfits, on_one_line
from benchmark.recipe.contract import Change, Recipe, recipe_hash, value_at, with_change
from benchmark.recipe.pools import Pool

Scale = Literal["paper", "photos", "desk", "smoke"]
SCALES: tuple[Scale, ...] = get_args(Scale)
Drawn = Literal["desk", "smoke"]  # those with a drawn world; the others read real datasets
DRAWN: tuple[Scale, ...] = get_args(Drawn)

# scale -> the datasets that others stand in for there
STAND_INS: Mapping[Scale, Mapping[str, str]] = {
    "photos": {"imagenet": "tiny_imagenet"},
    # drawn alike, but ImageNet is five times as many pictures, of which ten times as many can be scored
    "desk": {"tiny_imagenet": "imagenet"},
    "smoke": {"tiny_imagenet": "imagenet"},
}

# What every desk recipe changes. What is a recipe's own it adds behind, and what comes later counts.
DESK_SIZE = Change("input.size", 64, "the image size of every desk recipe")
DESK_NETWORK = (Change("backbone.width", 0.25, "a quarter of the width, as in every desk recipe"), DESK_SIZE)
DESK = (
    *DESK_NETWORK,
    Change("batch_size", 32, "62 steps an epoch on 2,000 images"),
    Change("precision", "bf16", "trains nearly twice as fast on CPUs with AMX"),
    Change("length", Epochs(40), "trains in minutes"),
    Change(
        "optimizers.main",
        Adam(lr=1e-3, weight_decay=1e-4, decoupled=True),
        "needs far fewer steps",
    ),
)
# For networks without BatchNorm. Chosen by the loss in training, on supervised AlexNets and on Jigsaw's: at 1e-3 it
# never falls for some recipes and seeds, and at 1e-4 it ends twice as high as at 3e-4.
# NOTE: tried on no other recipe. Jigsaw++ and CPC have no BatchNorm either, and keep DESK's rate.
UNNORMALISED = Change(
    "optimizers.main",
    Adam(lr=3e-4, weight_decay=1e-4, decoupled=True),
    "at 1e-3 a network without BatchNorm may never begin to learn",
)
DESK_RESNET = (
    *DESK,
    Change("backbone.zero_init_residual", True, "without it, 50 layers learn nothing in 2,000 steps"),
)

# For every recipe that crops at random: where small crops lose a part of a figure, they lose what tells its class.
DRAWN_CROPS = Change(
    "method.crop_area", (0.5, 1.0), "smaller crops of a drawn picture lose parts of its figure", drawn=True
)
# For recipes that train on a part of YFCC100M. Its stand-in has half as many pictures as ImageNet's.
DRAWN_YFCC = (
    Change("data", Pool("yfcc100m"), "all 1,000 drawn pictures", drawn=True),
    Change("length", Epochs(80), "as many pictures as 40 epochs of ImageNet's stand-in", drawn=True),
)


def without(changes: Iterable[Change], *keys: str) -> tuple[Change, ...]:
    """All of them but those of these keys: for a recipe that takes another's changes, and there keeps the paper's value
    or has one of its own. Raises UserError for a key that none of them has: it was renamed, or has gone."""
    changes = tuple(changes)
    known = {change.key for change in changes}
    if unknown := [key for key in keys if key not in known]:
        raise UserError(f"no change of {unknown[0]!r} to leave out; there are changes of: {', '.join(sorted(known))}")
    return tuple(change for change in changes if change.key not in keys)


# At photos scale, as factors of what a recipe trains at desk scale. There are 50 times as many images: 5 epochs are the
# most that PIRL, the slowest of this width, does in an hour on two cores. Batches twice as large halve what a step
# costs besides its images, and are still 7,810 steps: three times as many as at desk scale, whose rates are kept,
# but for those that suit drawn pictures.
PHOTOS_LENGTH = 1 / 8
PHOTOS_BATCH = 2

SMOKE = (
    Change("length", Steps(4), "enough steps to cross an epoch of the smoke world"),
    Change("batch_size", 16, "three steps an epoch"),
    Change("backbone.width", 0.0625, "seconds, not minutes"),
    Change("backbone.depth", 14, "one residual block a stage"),
    Change("method.units", 32, "as narrow as the network"),
)
# of each pool that is a part of its dataset
SMOKE_PART = Change("batch_size", 4, "a few per cent of the smoke world are one image of each class")


def against_paper(recipe: Recipe, scale: Scale) -> list[tuple[str, str, str, str]]:
    """(key, the paper's value, that scale's, why) of everything that the scale changes, the values on one line each."""
    told: dict[str, tuple[str, str, str]] = {}
    for change in changes_at(recipe, scale):
        old = told[change.key][0] if change.key in told else on_one_line(value_at(recipe, change.key))
        recipe = with_change(recipe, change.key, change.value)
        told[change.key] = (old, on_one_line(change.value), change.why)
    return [(key, *rest) for key, rest in told.items()]


def photos_against_desk(recipe: Recipe) -> list[tuple[str, str, str, str]]:
    """The same of desk and photos: (key, desk's value, that of photos, why)."""
    desk, photos = _changed(recipe, changes_at(recipe, "desk")), _changed(recipe, _for_photos(recipe))
    whys = {
        key: ("the paper's: " if value_at(photos, key) == value_at(recipe, key) else "")
        + "the other suits drawn pictures"
        for key in (change.key for change in changes_at(recipe, "desk"))
    }
    whys |= {change.key: change.why for change in _for_photos(recipe)}
    values = {key: (on_one_line(value_at(desk, key)), on_one_line(value_at(photos, key))) for key in whys}

    def is_told(key: str) -> bool:
        """Whether lines of settings inside it tell its whole difference."""
        inside = [Change(one, value_at(photos, one), "") for one in whys if one.startswith(f"{key}.")]
        return on_one_line(value_at(_changed(desk, inside), key)) == values[key][1]

    return [(key, *values[key], why) for key, why in whys.items() if not is_told(key)]


def at_scale(recipe: Recipe, scale: Scale) -> Recipe:
    """The recipe as it runs at `scale`. Raises UserError if one of its desk changes names no setting, or a value is of
    another type than its field."""
    _check(recipe)
    recipe = _changed(recipe, (*changes_at(recipe, scale), *recipe.overrides))
    _check(recipe)
    return recipe


def changes_at(recipe: Recipe, scale: Scale) -> tuple[Change, ...]:
    """What the scale does otherwise than the paper, in the order in which it is done."""
    if scale == "paper":
        return ()
    if scale == "photos":
        return _for_photos(recipe)
    drawn = (*recipe.desk, *_stand_ins(recipe, scale))
    return drawn if scale == "desk" else (*drawn, *_smoke(recipe))


def _changed(recipe: Recipe, changes: Iterable[Change]) -> Recipe:
    for change in changes:
        if change.key == "length" and recipe.length == Steps(0):
            continue  # what is never trained is not trained at smoke scale either
        recipe = with_change(recipe, change.key, change.value)
    return recipe


def stand_in(dataset: str, scale: Scale) -> str:
    """The dataset that is read in its place at that scale; itself, where none is."""
    return STAND_INS.get(scale, {}).get(dataset, dataset)


def is_read_at(scale: Scale, dataset: str) -> bool:
    """Whether transfers read it there, or its stand-in: a drawn world has everything, and another scale with stand-ins
    scores on these alone, and on the user's own images."""
    stand_ins = {} if scale in DRAWN else STAND_INS.get(scale, {})
    return not stand_ins or dataset in (OWN_IMAGES, *stand_ins, *stand_ins.values())


def _for_photos(recipe: Recipe) -> tuple[Change, ...]:
    """The recipe's small changes, the data, and a part of desk's length with the rates falling at the same fractions of
    it."""
    small = tuple(change for change in recipe.desk if not change.drawn)
    changes = (*small, *_stand_ins(recipe, "photos"))
    desk, here = _changed(recipe, recipe.desk), _changed(recipe, changes)
    if here.length == Steps(0):
        return changes
    length = _stretched(here.length, PHOTOS_LENGTH)
    schedule = _stretched(desk.schedule, _ratio(recipe, length, desk.length))
    return (
        *changes,
        Change("length", length, "an eighth of desk's, for every row"),
        *([Change("schedule", schedule, "falls where desk's does")] if schedule != here.schedule else []),
        *_photos_batches(here),
    )


def _photos_batches(here: Recipe) -> Iterator[Change]:
    """Of the recipe, and of each pool that has one of its own."""
    sizes = {"batch_size": here.batch_size}
    sizes |= {
        f"{pool_key(here, name)}.batch_size": pool.batch_size for name, pool in here.pools.items() if pool.batch_size
    }
    for key, size in sizes.items():
        yield Change(key, PHOTOS_BATCH * size, "twice desk's, for every row")


def _ratio(recipe: Recipe, length: Span, desk: Span) -> float:
    if isinstance(length, Epochs) and isinstance(desk, Epochs):
        return length.epochs / desk.epochs
    if isinstance(length, Steps) and isinstance(desk, Steps):
        return length.steps_total / desk.steps_total
    raise UserError(f"{recipe.title}: photos needs both lengths in epochs or both in steps, not {length} and {desk}")


def _stand_ins(recipe: Recipe, scale: Scale) -> Iterator[Change]:
    for name, pool in recipe.pools.items():
        if (other := stand_in(pool.dataset, scale)) != pool.dataset:
            yield Change(f"{pool_key(recipe, name)}.dataset", other, f"stands in for {pool.dataset}")


def pool_key(recipe: Recipe, name: str) -> str:
    """The dotted key of one of its pools."""
    return "data" if isinstance(recipe.data, Pool) else f"data.{name}"


def _stretched(value: Any, factor: float) -> Any:
    """The value with every span in it that is counted in epochs or steps so many times as long."""
    if isinstance(value, Epochs):
        return Epochs(value.epochs * factor)
    if isinstance(value, Steps):
        return Steps(round(value.steps_total * factor))
    if isinstance(value, tuple):
        return tuple(_stretched(one, factor) for one in value)
    if isinstance(value, Mapping):
        return {name: _stretched(one, factor) for name, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _stretched(getattr(value, f.name), factor) for f in fields(value) if f.init})
    return value


def _check(recipe: Recipe) -> None:
    if faults := list(all_misfits(recipe)):
        raise UserError(f"{recipe.title}: {'; '.join(faults)}")


def _smoke(recipe: Recipe) -> Iterator[Change]:
    for change in SMOKE:
        part, _, setting = change.key.partition(".")
        if not setting or hasattr(getattr(recipe, part), setting):  # what has no width is no narrower
            yield change
    for name, pool in recipe.pools.items():
        if pool.percent < 100:
            yield replace(SMOKE_PART, key=f"{pool_key(recipe, name)}.{SMOKE_PART.key}")


def hashes_at(recipes: Mapping[str, Recipe], scales: Sequence[Scale]) -> dict[tuple[str, str], str]:
    """(recipe, scale) -> hash of the recipe as it would run now."""
    return {(name, scale): recipe_hash(at_scale(recipe, scale)) for name, recipe in recipes.items() for scale in scales}
