"""Deep InfoMax's protocol on Tiny ImageNet: its numbers against its definition, its values, a stop in the middle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.backbones.alex64 import Alex64
from benchmark.backbones.contract import Backbone
from benchmark.core.optimisation import Adam
from benchmark.data.datasets import open_dataset
from benchmark.data.labels import Classes
from benchmark.engine.method_file import TrainedMethod
from benchmark.engine.train import build_method
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.inputs import InputSpec
from benchmark.recipe.pools import Given
from benchmark.recipe.scales import at_scale
from benchmark.records.per_image import KEY, per_image
from benchmark.toyland import build_world
from benchmark.transfers import find_transfers, training
from benchmark.transfers.contract import Context, Scores
from benchmark.transfers.linear import probe_course
from benchmark.transfers.metrics import topk_accuracy
from benchmark.transfers.nonlinear_dim import (
    ChosenEpoch,
    Classifiers,
    LabelledFeatures,
    LastEpochs,
    MLPProbeTransfer,
)

AVERAGED = find_transfers()["tiny_imagenet_dim"]
CHOSEN = find_transfers()["tiny_imagenet_dim_held_out"]
TAPS = ["conv", "fc", "y"]
EPOCHS = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"), "smoke", datasets=("imagenet",), progress=False)


def backbone() -> Backbone:
    torch.manual_seed(0)
    return Alex64(width=0.0625).build(InputSpec(64)).eval()


def longer(transfer: MLPProbeTransfer) -> MLPProbeTransfer:
    """Six epochs at a rate that changes something."""
    smoke = transfer.values["smoke"]
    course = probe_course(EPOCHS, 16, 1 / 2, 3 / 4)
    averaged = smoke.averaged and EPOCHS // 2
    return MLPProbeTransfer(
        transfer.card, {"smoke": replace(smoke, course=course, optimizer=Adam(lr=0.02), averaged=averaged)}
    )


def scored(transfer: MLPProbeTransfer, world: Path, workspace: Path) -> Scores:
    return transfer.run(backbone(), Context(world, "smoke", 0, workspace, torch.device("cpu"), 0, lambda *_: None))


@pytest.fixture
def after_each_epoch(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Tensor]]:
    """What each image set's images come to after each epoch, noted while a transfer runs: (taps, images) bool."""
    seen: dict[str, list[Tensor]] = {"test": [], "choosing": []}
    for kind in (LastEpochs, ChosenEpoch):
        monkeypatch.setattr(kind, "note", _noted(kind.note, seen))
    return seen


def _noted(note, seen):
    def noted(kept, epoch, right):
        for name in seen:
            if name == "test" or isinstance(kept, ChosenEpoch):
                seen[name].append(right(name))
        note(kept, epoch, right)

    return noted


def test_the_number_is_the_mean_accuracy_of_the_last_epochs(world, tmp_path, after_each_epoch):
    found = scored(longer(AVERAGED), world, tmp_path)
    accuracy = 100 * torch.stack(after_each_epoch["test"]).double().mean(dim=2)  # (epochs, taps)
    assert accuracy.shape == (EPOCHS, 3)
    wanted = accuracy[EPOCHS // 2 :].mean(dim=0).tolist()
    assert list(found.detail["per_stage"]) == TAPS
    assert list(found.detail["per_stage"].values()) == pytest.approx(wanted)
    assert found.metrics == {"top1": found.detail["per_stage"]["fc"]}
    assert found.detail["selected"] == {"stage": "fc"}
    assert len(set(accuracy[:, 0].tolist())) > 1, "epochs differ, or an average would prove nothing"


def test_held_out_images_choose_each_stages_epoch(world, tmp_path, after_each_epoch):
    found = scored(longer(CHOSEN), world, tmp_path)
    counts = torch.stack(after_each_epoch["choosing"]).sum(dim=2)  # (epochs, taps)
    for place, tap in enumerate(TAPS):
        best = int(counts[:, place].argmax())  # the first of equals
        assert found.detail["selected"]["epoch"][tap] == best + 1
        own = after_each_epoch["test"][best][place].double().mean().item()
        assert found.detail["per_stage"][tap] == pytest.approx(100 * own)
    assert found.detail["selected"]["on"].startswith("imagenet/train[held out 20%")
    assert after_each_epoch["choosing"][0].shape == (3, 8)  # 2 of the 12 images of each of 4 classes
    assert set(found.detail["selected"]["epoch"].values()) != {EPOCHS}


def test_the_images_that_train_do_not_choose(world, tmp_path, monkeypatch):
    trained, judged = [], []
    monkeypatch.setattr(Classifiers, "loss", _remembered(Classifiers.loss, trained))
    right = LabelledFeatures.right
    monkeypatch.setattr(
        LabelledFeatures,
        "right",
        lambda self, model: judged.append(self.at(torch.arange(len(self.rows)))) or right(self, model),
    )
    for transfer, images in ((CHOSEN, 40), (AVERAGED, 48)):
        scored(longer(transfer), world, tmp_path)
        used, unused = ({tuple(row) for x, _ in seen for row in x["y"].tolist()} for seen in (trained, judged))
        assert used.isdisjoint(unused)
        assert len(used) == images
        trained.clear()
        judged.clear()


def test_features_are_the_stages_of_the_whole_images(world, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Classifiers, "loss", _remembered(Classifiers.loss, seen))
    scored(AVERAGED, world, tmp_path)
    images = open_dataset(world, "imagenet", "train")
    network, labels = backbone(), images.labelled(Classes).values
    with torch.inference_mode():
        pixels = torch.stack([_middle(images.open(number)) for number in range(len(images))])
        stages = network.forward_stages(network.input.prepare(pixels))
    features, truth = seen[0]
    assert {name: x.shape[1] for name, x in features.items()} == {"conv": 12 * 49, "fc": 256, "y": 64}
    for row in range(len(truth)):
        number = int((stages["y"] - features["y"][row]).abs().sum(dim=1).argmin())
        assert labels[number] == truth[row]
        for name in TAPS:
            torch.testing.assert_close(features[name][row], stages[name][number].flatten(), rtol=1e-4, atol=1e-5)


def _remembered(loss, seen):
    return lambda self, x, labels: seen.append((x, labels)) or loss(self, x, labels)


def _middle(image) -> Tensor:
    """Of a drawn picture of 96 pixels, or wider: squared and resized as Pillow does."""
    short = min(image.size)
    width, height = (round(side * 64 / short) for side in image.size)
    small = image.resize((width, height), 2)
    left, top = round((width - 64) / 2), round((height - 64) / 2)
    return torch.from_numpy(np.asarray(small.crop((left, top, left + 64, top + 64))).copy()).permute(2, 0, 1)


@pytest.mark.parametrize(("transfer", "stops"), [(AVERAGED, (5, 16)), (CHOSEN, (5, 10))], ids=("averaged", "chosen"))
def test_stopped_after_any_step_it_ends_the_same(transfer, stops, world, tmp_path, monkeypatch):
    """What was counted before is counted on."""
    whole = scored(longer(transfer), world, tmp_path / "whole")
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    write = training.write_state
    for at in stops:  # in the middle of an epoch, and before the end

        def write_and_stop(path, content, at=at):
            write(path, content)
            if content["done"] == at:
                raise KeyboardInterrupt

        monkeypatch.setattr(training, "write_state", write_and_stop)
        with pytest.raises(KeyboardInterrupt):
            scored(longer(transfer), world, tmp_path / "stopped")
    monkeypatch.setattr(training, "write_state", write)
    assert scored(longer(transfer), world, tmp_path / "stopped") == whole


def test_what_each_image_contributes_is_a_share_of_the_epochs(world, tmp_path):
    from test_results import a_record

    found = scored(longer(AVERAGED), world, tmp_path)
    record = a_record(metrics=found.metrics, detail=found.detail)
    assert KEY in found.detail
    for name in TAPS:
        shares = per_image(record, name)
        assert shares is not None
        assert set(np.round(shares * 3 / 100, 4)) <= {0, 1, 2, 3}
        assert shares.mean() == pytest.approx(found.detail["per_stage"][name])
    assert np.array_equal(per_image(record, "top1"), per_image(record, "fc"))


def test_paper_scale_is_the_released_codes():
    for transfer, averaged in ((AVERAGED, 100), (CHOSEN, None)):
        paper = transfer.values["paper"]
        assert (paper.units, paper.dropout, paper.optimizer, paper.averaged) == (200, 0.1, Adam(lr=1e-4), averaged)
        assert (paper.epochs, paper.course.batch_size) == (1000, 64)
        epoch = paper.course.steps_per_epoch(100_000)
        rates = [
            paper.optimizer.lr * paper.course.factor(at * epoch + off, 100_000) for at in (50, 100) for off in (-1, 0)
        ]
        assert rates == pytest.approx([1e-4, 1e-5, 1e-5, 1e-6])
        for scale in ("photos", "desk", "smoke"):
            other = transfer.values[scale]
            assert other.averaged == (None if averaged is None else other.epochs // 2)


def test_the_supervised_rows_number_is_its_own_classifiers_on_whole_images(world, tmp_path):
    recipe = at_scale(find_recipes()["supervised_tiny_imagenet"], "smoke")
    torch.manual_seed(0)
    method = build_method(recipe, Given(48, 4)).eval()
    images = open_dataset(world, "imagenet", "val")
    trained = TrainedMethod(method, images.classes, recipe.method)
    context = Context(world, "smoke", 0, tmp_path, torch.device("cpu"), 0, lambda *_: None, trained=trained)
    found = find_transfers()["own_classifier_tiny_imagenet"].run(method.backbone, context)
    with torch.inference_mode():
        scores = method.classify(torch.stack([_middle(images.open(number)) for number in range(len(images))]))
    assert found.metrics["top1"] == topk_accuracy(scores, torch.as_tensor(images.labelled(Classes).values), 1)
    assert found.data.keys() == {"imagenet/val"}
