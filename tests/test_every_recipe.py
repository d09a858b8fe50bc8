"""What must hold of every recipe there is: one pair of processes serves them all. What the engine itself promises is
tested with methods of a few lines, in test_engine_processes.py and test_engine_resume.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from shares import one_against_two, rounding
from small_runs import TRAINED, Processes, drawn_images, on_cpu, run, run_and_stop_in_step
from tiny_methods import with_bank_sharded

from benchmark.data.image_set import ImageSet
from benchmark.recipe.contract import Recipe


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return drawn_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("name", TRAINED)
def test_two_processes_train_as_one(name: str, alone: Processes, pair: Processes, images: ImageSet, tmp_path: Path):
    recipe = TRAINED[name]
    found = one_against_two(alone, pair, recipe, images, tmp_path, with_bank_sharded(recipe))
    assert found.faults(most=rounding(recipe)) == []
    assert [len(each.states) for each in found.two] == [4, 4]


@pytest.mark.parametrize("name", TRAINED)
def test_stopped_in_an_epoch_it_ends_with_the_same_bits(name: str, alone: Processes, images: ImageSet, tmp_path: Path):
    [outcome] = alone.run(_whole_and_resumed, TRAINED[name], images, tmp_path)
    assert outcome.error is None
    whole, resumed = outcome.value
    assert resumed == whole


def _whole_and_resumed(recipe: Recipe, images: ImageSet, folder: Path) -> tuple[bytes, bytes]:
    whole = run(recipe, images, folder / "whole", on_cpu(checkpoint_seconds=60))
    run_and_stop_in_step(recipe, images, folder / "stopped", on_cpu(), 2)
    assert torch.load(folder / "stopped/checkpoint.pt", weights_only=True)["step"] == 2
    return whole, run(recipe, images, folder / "stopped", on_cpu(checkpoint_seconds=60))
