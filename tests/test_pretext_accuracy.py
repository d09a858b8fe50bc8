"""How often a method solves its own pretext: counted by hand, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from handmade import image
from small_runs import in_processes, on_cpu, record_in_small_batches
from torch import Tensor

from benchmark.core.draws import mix
from benchmark.core.errors import UserError
from benchmark.core.streams import Stream
from benchmark.data.batch import Batch
from benchmark.data.datasets import open_dataset
from benchmark.engine.method_file import load_method
from benchmark.engine.train import Machine, pretrain
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import with_change
from benchmark.runs.run import Run, pretraining_images
from benchmark.runs.scoring import score
from benchmark.transfers import find_transfers
from recipes.jigsaw_alexnet import JigsawPuzzle, NineColumns

TRANSFER = find_transfers()["pretext_accuracy_imagenet"]
VAL = 40


@pytest.fixture(scope="module")
def puzzles(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Puzzles of three permutations, so that an untrained network too solves some."""
    root = tmp_path_factory.mktemp("world")
    for split, count in (("train", 10), ("val", VAL // 2)):
        for label in range(2):
            for number in range(count):
                colour = (10 * number % 256, 100 * label, 128)
                image(root / f"imagenet/{split}/n0000000{label}/{split}_{label}_{number}.JPEG", colour, (120, 110))
    run = Run("jigsaw_alexnet", "smoke", 0, root, tmp_path_factory.mktemp("runs"))
    recipe = with_change(run.resolved(find_recipes()["jigsaw_alexnet"]), "method.P", 3)
    recipe = replace(recipe, batch_size=8)
    pretrain(recipe, run.name, pretraining_images(recipe, root), run.folder, on_cpu())
    return run


def test_puzzles_are_counted_as_the_method_solves_them_one_by_one(puzzles: Run):
    record = score(TRANSFER, puzzles, on_cpu(), incomplete=True)
    trained = load_method(puzzles.method, JigsawPuzzle)
    assert trained.settings.P == 3
    images, solved = open_dataset(puzzles.data_root, "imagenet", "val"), 0
    per_image = record.detail["per_image"]
    assert per_image["images"] == VAL
    for index in range(VAL):
        torch.manual_seed(mix(0, Stream.VIEWS, 0, index))
        views = trained.settings.views(images.open(index), trained.method.backbone.input)
        with torch.no_grad():
            scores = trained.method.scores(Batch({k: v[None] for k, v in views.items()}, torch.tensor([index]), 0))
        solved += int(scores[0].argmax()) == int(views["S"])
    assert record.metrics["accuracy"] == pytest.approx(100 * solved / VAL)
    assert 0 < solved < VAL, "all or none would prove little"


def test_two_processes_write_the_record_of_one(puzzles: Run):
    alone, pair = (in_processes(count, record_in_small_batches, TRANSFER, puzzles, True) for count in (1, 2))
    assert [outcome.error for outcome in (*alone, *pair)] == [None] * 3
    assert [outcome.value for outcome in pair] == [alone[0].value] * 2


def test_the_number_of_loaders_changes_nothing(puzzles: Run):
    alone = score(TRANSFER, puzzles, on_cpu(), incomplete=True)
    beside = score(TRANSFER, puzzles, Machine(torch.device("cpu"), 1), incomplete=True)
    assert beside.metrics == alone.metrics
    assert beside.detail["per_image"] == alone.detail["per_image"]


def test_a_method_without_a_pretext_is_refused(puzzles: Run, tmp_path: Path):
    run = Run("supervised", "smoke", 0, puzzles.data_root, tmp_path)
    recipe = replace(run.resolved(find_recipes()["supervised"]), batch_size=8)
    pretrain(recipe, run.name, pretraining_images(recipe, puzzles.data_root), run.folder, on_cpu())
    with pytest.raises(UserError, match="asks the trained method for solve; this run's method offers classify"):
        score(TRANSFER, run, on_cpu(), incomplete=True)


def test_answers_of_another_shape_are_refused(puzzles: Run, monkeypatch: pytest.MonkeyPatch):
    def solve(self: NineColumns, batch: Batch) -> Tensor:
        return self.scores(batch).argmax(dim=1)

    monkeypatch.setattr(NineColumns, "solve", solve)
    with pytest.raises(UserError, match=r"NineColumns.solve gave torch.int64 \(40,\), not bool \(40,\)"):
        score(TRANSFER, puzzles, on_cpu(), incomplete=True)
