"""The protocols of CPC and CPC v2: normalised cells and their average, the deep classifier, the detector's network."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmark.backbones.contract import Backbone, Stage
from benchmark.backbones.patch_grid import PatchGrid
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.resnet_v2 import PreactivationBlock, ResNetV2
from benchmark.core.errors import UserError
from benchmark.core.optimisation import SGD, Steps
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Architecture
from benchmark.recipe.inputs import InputSpec
from benchmark.toyland import build_world
from benchmark.transfers import find_transfers, training
from benchmark.transfers.contract import Context, Scores
from benchmark.transfers.detection.voc_cpc import with_last_stage
from benchmark.transfers.features import TwoCells, output_tap, state_hash, tapped
from benchmark.transfers.linear import Heads, LinearTransfer
from benchmark.transfers.preprocessing import square_and_centre, square_place_and_flip
from benchmark.transfers.semi_supervised_cpc import DataEfficient, GridClassifier

TRANSFERS = find_transfers()
IMAGENET, PERCENTS = 1_281_167, (1, 2, 5, 10, 20, 50, 100)


def patchwise(**changes: Any) -> Backbone:
    torch.manual_seed(0)
    encoder = replace(ResNetV2(width=0.0625, norm="layer", stages=3), **changes)
    return PatchGrid(encoder, 16, 8).build(InputSpec(32)).eval()


# --- linear


def probe_of(name: str) -> Any:
    transfer = TRANSFERS[name]
    assert isinstance(transfer, LinearTransfer)
    return transfer.values["paper"]


def test_cpcs_rates_are_its_papers():
    """A rate of 0.1 for 50,000 steps, 0.01 for 25,000 and 0.001 for 10,000, on batches of 2,048."""
    probe = probe_of("linear_imagenet_cpc")
    assert probe.optimizers == (SGD(lr=0.1, momentum=0.9),)
    assert probe.course.batch_size == 2048
    assert probe.course.steps_total(IMAGENET) == 85_000
    steps = (0, 49_999, 50_000, 74_999, 75_000, 84_999)
    rates = [0.1 * probe.course.factor(step, IMAGENET) for step in steps]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert (probe.held_out, probe.views, probe.track_every) == (0, None, None)


def test_two_cells_stand_for_all_in_a_batch_norm():
    torch.manual_seed(0)
    maps = torch.randn(5, 3, 6, 6) * 4 + torch.randn(5, 3, 1, 1) + 2
    wanted = nn.BatchNorm2d(3, affine=False)(maps).mean(dim=(2, 3))
    found = nn.BatchNorm2d(3, affine=False)(TwoCells()(maps)).mean(dim=(2, 3))
    torch.testing.assert_close(found, wanted)
    after = nn.BatchNorm1d(3, affine=False)(maps.mean(dim=(2, 3)))
    assert not torch.allclose(found, after, rtol=0.1), "to average first is another thing"


def test_cpc_v2s_heads_are_the_average_score_of_normalised_cells():
    """As printed: BatchNorm without scale, a 1 x 1 convolution, the average over the grid."""
    backbone, probe = patchwise(), probe_of("linear_imagenet_cpc_v2")
    x = torch.randn(6, 3, 32, 32)
    with torch.no_grad():
        grid = backbone.forward_stages(x)["patches"]
        maps = tapped(backbone, (output_tap(backbone, TwoCells()),), x)
        heads = Heads(maps, 7, probe, seed=0, choosing=1)
        (linear,) = heads.linears["patches"]  # type: ignore[misc]
        assert linear.weight.shape == (7, backbone.out_channels)  # type: ignore[union-attr]
        normalised = nn.BatchNorm2d(backbone.out_channels, affine=False)(grid)
        scores = nn.functional.conv2d(normalised, linear.weight[:, :, None, None], linear.bias)  # type: ignore[union-attr, index, arg-type]
        torch.testing.assert_close(heads(maps)[0], scores.mean(dim=(2, 3)))


def test_what_gives_vectors_is_scored_as_a_grid_of_one_cell():
    class Vectors(Backbone):
        def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
            return {"code": x.flatten(1)[:, :4]}

    backbone = Vectors(Architecture(), InputSpec(8))
    backbone.stages = {"code": Stage(4, None)}
    x = torch.randn(6, 3, 8, 8)
    maps = tapped(backbone, (output_tap(backbone, TwoCells()),), x)
    heads = Heads(maps, 7, probe_of("linear_imagenet_cpc_v2"), seed=0, choosing=1)
    assert heads(maps).shape == (1, 6, 7)


@pytest.mark.parametrize(("name", "side"), [("cpc", 256), ("cpc_v2", 260)])
def test_images_are_those_of_pretraining(name: str, side: int):
    """A crop of an image squashed to 300 x 300, or its centre."""
    paper, probe = find_recipes()[name], probe_of(f"linear_imagenet_{name}")
    assert paper.input.size == side
    wide = Image.new("RGB", (400, 200))
    wide.paste((255, 255, 255), (0, 0, 40, 200))  # 30 of 300 columns are white
    seen = probe.test_view(side)(wide)["image"]
    assert seen.shape == (3, side, side)
    assert int((seen[0, 0] > 127).sum()) == pytest.approx(30 - (300 - side) // 2, abs=1)
    torch.manual_seed(0)
    widths, turned = set(), 0
    for _ in range(30):
        crop = probe.augment(side)(wide)["image"]
        widths.add(int((crop[0, 0] > 127).sum()))
        turned += int(crop[0, 0, -1] > 127)
    assert max(widths) > 24
    assert min(widths) < 6
    assert 3 < turned < 27
    names = {made(side, part=part).name for made in (square_and_centre, square_place_and_flip) for part in (0.8, 0.9)}
    assert len(names) == 4  # which features are kept by


# --- fewer labels


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"), "smoke", datasets=("imagenet", "voc2007"), progress=False)


def test_the_papers_classifier_is_a_resnet_33_of_its_widths():
    with torch.device("meta"):
        network = find_recipes()["cpc_v2"]
        encoder = network.backbone.build(network.input)
        model = GridClassifier(encoder, 1000, 11, seed=0)
    blocks = [one for one in model.stack if isinstance(one, PreactivationBlock)]
    assert 3 * len(blocks) == 33
    assert {(one.conv2.in_channels, one.conv3.out_channels) for one in blocks} == {(1024, 4096)}


def test_the_backbone_trains_in_the_second_training_alone(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    transfer = TRANSFERS["semi_supervised_10pct_cpc_v2"]
    assert isinstance(transfer, DataEfficient)
    seen = []
    train = DataEfficient._train

    def watched(self: Any, model: GridClassifier, *rest: Any) -> None:
        before = (state_hash(model.backbone), state_hash(model.stack))
        train(self, model, *rest)
        after = (state_hash(model.backbone), state_hash(model.stack))
        seen.append(tuple(a != b for a, b in zip(before, after, strict=True)))

    monkeypatch.setattr(DataEfficient, "_train", watched)
    context = Context(world, "smoke", 0, tmp_path, torch.device("cpu"), 0, lambda *_: None)
    backbone = patchwise(norm="batch")  # whose running statistics would move too
    found = transfer.run(backbone, context)
    assert seen == [(False, True), (True, True)]
    assert found.metrics.keys() == {"top5", "top1", "fixed_top5", "fixed_top1"}


def test_killed_in_the_second_training_it_ends_the_same(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    saves, write, restored, restore = [], training.write_state, [], training._restore

    def write_and_stop(path: Path, content: dict[str, Any]) -> None:
        write(path, content)
        saves.append(path)
        if len(saves) == 5:  # four steps of the first, one of the second
            raise KeyboardInterrupt

    def run(folder: str) -> Scores:
        context = Context(world, "smoke", 0, tmp_path / folder, torch.device("cpu"), 0, lambda *_: None)
        return TRANSFERS["semi_supervised_10pct_cpc_v2"].run(patchwise(), context)

    with monkeypatch.context() as patch:
        patch.setattr(training, "write_state", write_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run("killed")
    monkeypatch.setattr(training, "_restore", lambda *given: restored.append(restore(*given)) or restored[-1])
    assert run("killed") == run("whole")
    assert restored == [4, 1, 0, 0]


def test_a_new_classifier_says_of_a_cell_what_a_linear_one_would():
    """Its branches start at zero."""
    model = GridClassifier(patchwise(), 7, 2, seed=3).eval()
    x = torch.randn(3, 3, 32, 32)
    grid = model.backbone.forward_stages(x)["patches"]
    last = nn.functional.group_norm(grid, 1).relu().mean(dim=(2, 3))
    torch.testing.assert_close(model(x), model.head(last))
    other = GridClassifier(patchwise(), 7, 2, seed=4)
    assert not torch.equal(other.head.weight, model.head.weight)
    again = GridClassifier(patchwise(), 7, 2, seed=3)
    assert state_hash(again) == state_hash(model)


@pytest.mark.parametrize("percent", PERCENTS)
def test_every_share_of_labels_that_the_paper_has(percent: int):
    transfer = TRANSFERS[f"semi_supervised_{percent}pct_cpc_v2"]
    assert isinstance(transfer, DataEfficient)
    assert transfer.percent == percent
    assert transfer.card.lists == (() if percent == 100 else (f"imagenet/{percent}percent.txt",))
    paper = transfer.values["paper"]
    images = IMAGENET * percent // 100
    steps = paper.fixed.course.steps_total(images)
    assert steps == pytest.approx(50 * math.sqrt(100 / percent) * (images // 512), rel=0.02)
    assert paper.together.course.steps_total(images) == pytest.approx(steps / 2, abs=1)
    assert transfer.values["smoke"].fixed.course.length == Steps(4)


# --- detection


def test_the_detectors_network_is_the_encoder_with_a_new_last_stage():
    backbone: Any = patchwise()
    network = with_last_stage(backbone, seed=1).eval()
    assert list(network.stages) == ["conv1", "res2", "res3", "res4", "res5"]
    x = torch.randn(1, 3, 48, 64)
    ours, theirs = backbone.encoder.forward_stages(x), network.forward_stages(x)
    for name in ("conv1", "res2", "res3"):
        assert torch.equal(ours[name], theirs[name])
    plain = backbone.encoder.norm(theirs["res4"].clone())  # no norm stands after res4 any more
    torch.testing.assert_close(plain, ours["res4"])
    other = with_last_stage(backbone, seed=2)
    assert state_hash(network.layers[3]) != state_hash(other.layers[3])
    assert state_hash(network.layers[2]) == state_hash(other.layers[2]) == state_hash(backbone.encoder.layers[2])


def test_only_an_encoder_of_three_stages_gets_a_last_one():
    for encoder in (ResNet(width=0.0625), ResNetV2(width=0.0625)):
        patches: Any = PatchGrid(encoder, 16, 8).build(InputSpec(32))
        with pytest.raises(UserError, match="needs an encoder that is a ResNetV2 of three stages"):
            with_last_stage(patches, seed=0)


def test_a_network_of_patches_detects(world: Path, tmp_path: Path):
    context = Context(world, "smoke", 0, tmp_path, torch.device("cpu"), 0, lambda *_: None)
    found = TRANSFERS["voc07_det_cpc_v2"].run(patchwise(), context)
    assert found.metrics.keys() == {"ap50", "ap", "ap75"}
    assert all(0 <= value <= 100 for value in found.metrics.values())


def test_resnet_161_keeps_the_width_of_its_middle_in_a_fourth_stage():
    with torch.device("meta"):
        network = ResNetV2(161, norm="layer").build(InputSpec())
    assert {name: stage.channels for name, stage in network.stages.items()} == {
        "conv1": 64, "res2": 256, "res3": 512, "res4": 4096, "res5": 2048,
    }  # fmt: skip
