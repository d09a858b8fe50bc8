"""Labels and sizes at the edges of what can be run: each is told in one line that says what to change."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from handmade import image
from small_runs import RECIPES, TRAINED, drawn_images, on_cpu, pools_of, untrained_before

from benchmark import cli
from benchmark.backbones.resnet import ResNet
from benchmark.blocks.memory_bank import MemoryBank
from benchmark.core.errors import UserError
from benchmark.core.optimisation import Steps
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes, Factors, Presence
from benchmark.engine.train import build_method, pretrain
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Recipe, with_change
from benchmark.recipe.inputs import InputSpec
from benchmark.recipe.overrides import override
from benchmark.recipe.pools import Given, Pool
from benchmark.runs.speed import speed_text
from benchmark.transfers import find_transfers
from benchmark.transfers.contract import Context

LEARNS_LABELS = [name for name, recipe in RECIPES.items() if any(pool.labels for pool in recipe.pools.values())]
METHODS = list({type(recipe.method): name for name, recipe in TRAINED.items()}.values())  # a recipe of each


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return drawn_images(tmp_path_factory.mktemp("images"))


def first_labels(images: ImageSet, kind: str) -> ImageSet:
    rows = len(images)
    labels = {
        "none": None,
        "presence": Presence(np.ones((rows, 3), dtype=np.int64), tuple("abc")),
        "factors": Factors(np.zeros((rows, 2), dtype=np.float32), tuple("ab")),
        "one class": Classes(np.zeros(rows, dtype=np.int64), ("a",)),
        "24 classes": Classes(np.arange(rows) % 24, tuple(f"class {number}" for number in range(24))),
    }[kind]
    return replace(images, labels=labels)


@pytest.mark.parametrize("name", LEARNS_LABELS)
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("none", "gives no labels, and the method learns from them"),
        ("presence", "has 3 labels an image, and the method learns one class an image"),
        ("factors", "has 2 labels an image"),
        ("one class", "has only one class"),
    ],
)
def test_labels_of_another_kind_are_told(name: str, kind: str, said: str, images: ImageSet, tmp_path: Path):
    recipe, given = RECIPES[name], first_labels(images, kind)
    labelled = next(key for key, pool in recipe.pools.items() if pool.labels)
    with pytest.raises(UserError, match=rf"pool '{labelled}' .*{said}"):
        pretrain(recipe, name, pools_of(recipe, given), tmp_path, on_cpu(), untrained_before(recipe, images))


@pytest.mark.parametrize("name", LEARNS_LABELS)
def test_a_pool_whose_labels_were_turned_off_is_told(name: str, images: ImageSet, tmp_path: Path):
    recipe = RECIPES[name]
    data = {key: replace(pool, labels=False) for key, pool in recipe.pools.items()}
    after = untrained_before(recipe, images)
    with pytest.raises(UserError, match="needs labels=True"):
        pretrain(replace(recipe, data=data), name, pools_of(recipe, images), tmp_path, on_cpu(), after)


@pytest.mark.parametrize("name", LEARNS_LABELS)
def test_any_number_of_classes_is_learned(name: str, images: ImageSet, tmp_path: Path):
    recipe = RECIPES[name]
    given = first_labels(images, "24 classes")
    pools, after = pools_of(recipe, given), untrained_before(recipe, given)
    assert pretrain(replace(recipe, length=Steps(1)), name, pools, tmp_path, on_cpu(), after).is_file()


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (Classes, [0, 2], "Classes: values from 0 to 2 mean nothing for 2 names"),
        (Classes, [-1, 0], "-1 to 0 mean nothing"),
        (Presence, [[1, 2], [0, 0]], "0 to 2 mean nothing"),
    ],
)
def test_labels_that_mean_nothing_are_no_labels(kind: type, values: list, said: str):
    with pytest.raises(UserError, match=said):
        kind(np.array(values, dtype=np.int64), ("cat", "dog"))


def with_batch(recipe: Recipe, size: int) -> Recipe:
    data = {name: replace(pool, batch_size=None) for name, pool in recipe.pools.items()}
    return replace(recipe, batch_size=size, data=data if len(data) > 1 else next(iter(data.values())))


def settings() -> list[tuple[str, str]]:
    """(recipe, field) of every number, or tuple of numbers, that is a recipe's own."""
    return [
        (name, field.name)
        for name, recipe in find_recipes().items()
        for field in fields(recipe.method)
        if not isinstance(getattr(recipe.method, field.name), bool | str)
    ]


@pytest.mark.parametrize(("name", "field"), settings())
def test_every_setting_says_which_numbers_it_can_be(name: str, field: str):
    """By a hint from benchmark.core.bounds; none can be less than 0."""
    recipe = find_recipes()[name]
    given = getattr(recipe.method, field)
    text = str(tuple(type(one)(-1) for one in given)) if isinstance(given, tuple) else "-1"
    with pytest.raises(UserError, match=rf"--recipe.method.{field} .*: {field} must be (more than 0|.* or more)"):
        override(recipe, [(f"method.{field}", text)], "smoke")


@pytest.mark.parametrize(
    ("name", "setting", "said"),
    [
        ("supervised", "crop_area=(0.5, 2.0)", "crop_area must be more than 0, at most 1"),
        ("supervised", "crop_area=(1.0, 0.5)", "the smaller one first"),
        ("supervised", "crop_area=(0, 0.5)", "crop_area must be more than 0"),
        ("npid", "m=0", "m must be 1 or more, not 0"),
        ("npid", "dim=0", "dim must be 1 or more"),
        ("pirl", "tau=0", "tau must be more than 0"),
        ("pirl", "grey=1.5", "grey must be 0 or more, at most 1"),
        ("simclr", "blur=(0.0, 0.0)", "blur must be more than 0"),
        ("jigsaw", "P=0", "P must be 1 or more"),
        ("deepcluster", "k=0", "k must be 1 or more"),
    ],
)
def test_settings_out_of_range_are_told(name: str, setting: str, said: str):
    key, _, text = setting.partition("=")
    with pytest.raises(UserError, match=said):
        override(find_recipes()[name], [(f"method.{key}", text)], "smoke")


def test_a_bank_of_one_image_has_no_negatives():
    with pytest.raises(UserError, match="one image alone"):
        MemoryBank(1, 8).negatives(torch.zeros(1, dtype=torch.int64), 4, seed=0)


@pytest.mark.parametrize("name", LEARNS_LABELS)
def test_the_flag_that_sets_a_pools_batch_is_named(name: str, images: ImageSet, tmp_path: Path):
    """A pool may have a size of its own, and then the recipe's changes nothing."""
    recipe = RECIPES[name]
    pool, own = next(iter(recipe.pools.items()))
    where = "data" if isinstance(recipe.data, Pool) else f"data.{pool}"
    flag = "batch-size" if own.batch_size is None else f"{where}.batch-size"
    few = images.subset(range(3), "few")
    after = untrained_before(recipe, images)
    with pytest.raises(UserError, match=rf"is more than the 3 images there are; set --recipe.{flag} lower"):
        pretrain(recipe, name, dict.fromkeys(recipe.pools, few), tmp_path, on_cpu(), after)


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_one_trains_or_is_told(name: str, images: ImageSet, tmp_path: Path):
    recipe = replace(with_batch(RECIPES[name], 1), length=Steps(2))
    few, after = images.subset(range(6), "few"), untrained_before(recipe, images)
    clusters = next((key for key in ("k", "clusters") if hasattr(recipe.method, key)), "")
    recipe = with_change(recipe, f"method.{clusters}", 3) if clusters else recipe
    try:
        assert pretrain(recipe, name, dict.fromkeys(recipe.pools, few), tmp_path, on_cpu(), after).is_file()
    except UserError as error:
        assert "--recipe.batch-size" in str(error)  # noqa: PT017  either will do; a traceback will not


def test_what_cannot_learn_from_one_image_says_so(images: ImageSet, tmp_path: Path):
    for name, said in (("pirl", "too few for BatchNorm"), ("simclr", "two images or more"), ("supcon", "two images")):
        recipe = with_batch(RECIPES[name], 1)
        with pytest.raises(UserError, match=rf"{said}.*--recipe.batch-size"):
            pretrain(recipe, name, images, tmp_path / name, on_cpu())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("count", [1, 2])
def test_the_speed_on_one_or_two_images_is_measured_or_told(name: str, count: int, images: ImageSet):
    recipe = RECIPES[name]
    few = images.subset(range(count), f"{count} images")
    for size in (recipe.batch_size, count):
        try:  # what comes after others is told before anything is done
            speed_text(with_batch(recipe, size), dict.fromkeys(recipe.pools, few), on_cpu(), rounds=1)
        except UserError as error:
            assert re.search("image|batch|comes after", str(error))  # noqa: PT017


def test_of_a_user_who_gives_another_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    line = ["plan", "supervised", "--recipe.data.dataset", "voc2007", "--recipe.data.split", "trainval"]
    assert cli.run(line) == 2
    assert "20 labels an image" in capsys.readouterr().err
    assert cli.run(["plan", "supervised", "--recipe.data.dataset", "yfcc100m"]) == 2
    assert "gives no labels" in capsys.readouterr().err


def test_a_method_built_without_pools_still_learns_its_classes():
    assert Given(8, 5).classes() == 5
    assert build_method(RECIPES["supervised"], Given(8, 5)) is not None
    assert Pool("imagenet").labels is False


def test_a_list_of_one_image_is_too_few_to_fine_tune_on(tmp_path: Path):
    for number in range(6):
        for split in ("train", "val"):
            image(tmp_path / f"imagenet/{split}/n0000000{number % 2}/{split}_{number}.JPEG", (40 * number, 9, 9))
    (tmp_path / "imagenet/1percent.txt").write_text("train_0.JPEG\n")
    backbone = ResNet(width=0.0625).build(InputSpec(32)).eval()
    context = Context(tmp_path, "smoke", 0, tmp_path / "work", torch.device("cpu"), 0, lambda *_: None)
    with pytest.raises(UserError, match=r"too few for BatchNorm. imagenet/train\[1percent\] has 1 to train on"):
        find_transfers()["semi_supervised_1pct_pirl"].run(backbone, context)
