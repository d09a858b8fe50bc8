"""Runs of random rescaled: the same weights on one process and on two, from as many images as asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_runs import RECIPES, Processes, drawn_images, on_cpu, run
from torch import Tensor

from benchmark.backbones.weights import load_backbone
from benchmark.data.image_set import ImageSet
from benchmark.recipe.contract import Recipe
from recipes.random_rescaled import DataDependent

NAMES = ["random_rescaled", "random_rescaled_pca", "random_rescaled_gaussian"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return drawn_images(tmp_path_factory.mktemp("images"))


def _weights(recipe: Recipe, images: ImageSet, folder: Path) -> dict[str, np.ndarray]:
    backbone, _ = load_backbone(_file(recipe, images, folder))
    return {key: one.numpy() for key, one in backbone.state_dict().items()}


def _file(recipe: Recipe, images: ImageSet, folder: Path) -> Path:
    run(recipe, images, folder, on_cpu())
    return folder / "backbone.safetensors"


@pytest.mark.parametrize("name", NAMES)
def test_one_process_and_two_come_to_the_same_bits(
    name: str, alone: Processes, pair: Processes, images: ImageSet, tmp_path: Path
):
    """A run that is stopped begins again: it has no steps."""
    made = RECIPES[name]
    [first] = alone.run(_weights, made, images, tmp_path / "one")
    [again] = alone.run(_weights, made, images, tmp_path / "again")
    [other] = alone.run(_weights, replace(made, seed=1), images, tmp_path / "other")
    both = pair.run(_weights, made, images, tmp_path / "two")
    assert [one.error for one in (first, again, other, *both)] == [None] * 5
    for key, wanted in first.value.items():
        assert not np.array_equal(other.value[key], wanted), key
        assert all(np.array_equal(one.value[key], wanted) for one in (again, *both)), key


def test_only_as_many_images_are_opened_as_asked_for(alone: Processes, images: ImageSet, tmp_path: Path):
    few = replace(RECIPES["random_rescaled_gaussian"], method=DataDependent(filters="gaussian", images=20))
    [outcome] = alone.run(_opened, few, images, tmp_path)
    assert outcome.error is None
    assert outcome.value == 32  # two batches of 16


def _opened(recipe: Recipe, images: ImageSet, folder: Path) -> int:
    opened = 0
    views = DataDependent.views

    def counted(settings: DataDependent, *given) -> dict[str, Tensor]:
        nonlocal opened
        opened += 1
        return views(settings, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DataDependent, "views", counted)
        run(recipe, images, folder, on_cpu())
    return opened
