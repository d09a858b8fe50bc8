"""The AlexNet made fully convolutional: what it computes, where its scores lie in the image, how they are enlarged, and
which images it trains on and is scored on."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.alexnet import CAFFENET, DEEPCLUSTER, ROTNET, AlexNet, AlexNetwork
from benchmark.core.errors import UserError
from benchmark.data.masks import SEG11VALID, sbd_train, seg11valid
from benchmark.recipe.inputs import BGR, InputSpec
from benchmark.toyland import build_world
from benchmark.transfers import find_transfers
from benchmark.transfers.segmentation.fcn32s import FIRST, Fcn32s, Fcn32sSegmentation, nearness, pad_first
from benchmark.transfers.training import build_optimizer
from benchmark.transfers.whole_alexnet import whole_alexnet

TRANSFER = cast(Fcn32sSegmentation, find_transfers()["voc12_seg_fcn32s"])
SIZES = [(227, 227), (333, 500), (281, 190), (96, 128), (50, 33)]
NETWORKS: dict[str, Any] = {
    "caffenet": (CAFFENET, 227),
    "rotnet": (ROTNET, 224),
    "deepcluster": (DEEPCLUSTER, 224),
    "made for 64 px": (CAFFENET, 64),
    "three cells": (CAFFENET, 64, 3),
    "rotnet, three cells": (ROTNET, 64, 3),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"), "smoke", datasets=["voc2012"], progress=False)


@pytest.fixture
def world(drawn: Path, tmp_path: Path) -> Path:
    return shutil.copytree(drawn, tmp_path / "world")


def network(architecture: AlexNet = CAFFENET, size: int = 227, cells: int | None = None) -> AlexNetwork:
    torch.manual_seed(0)
    made = replace(architecture, width=1 / 48).build(InputSpec(size, BGR())).eval()
    return whole_alexnet(made, seed=0, cells=cells)


@pytest.mark.parametrize("name", NETWORKS)
def test_its_first_score_is_what_the_network_says_of_the_image(name: str):
    """Cut to the input's size and not padded, the convolutions see one cell, and compute fc7's vector."""
    plain, model = network(*NETWORKS[name]).double(), Fcn32s(network(*NETWORKS[name])).double().eval()
    first = next(one for one in model.convolutions if isinstance(one, nn.Conv2d))
    first.padding = (plain.architecture.padding,) * 2
    x = 20 * torch.randn(2, 3, plain.input.size, plain.input.size, dtype=torch.float64)
    ours = model.convolutions(x)
    assert ours.shape[2:] == (1, 1)
    torch.testing.assert_close(ours.flatten(1), plain(x))


def test_caffenet_is_padded_and_cropped_as_in_the_released_net():
    model = Fcn32s(network())
    first = next(one for one in model.convolutions if isinstance(one, nn.Conv2d))
    assert (first.padding, model.stride) == ((100, 100), 32)
    assert [one.kernel_size for one in model.convolutions if isinstance(one, nn.Conv2d)][-2:] == [(6, 6), (1, 1)]
    assert not model.classifier.weight.any()
    assert not cast(Tensor, model.classifier.bias).any()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_scores_are_enlarged_by_the_released_nets_kernel(height: int, width: int):
    """A transposed convolution of kernel 63 and stride 32, of which 18 pixels are cropped in front."""
    falling = [1 - abs(i - 31) / 32 for i in range(63)]
    kernel = torch.tensor([[a * b for b in falling] for a in falling], dtype=torch.float64)
    scores = torch.randn(2, 21, math.ceil(height / 32) + 1, math.ceil(width / 32) + 1, dtype=torch.float64)
    large = F.conv_transpose2d(scores, kernel.expand(21, 1, -1, -1), stride=32, groups=21)
    axes = zip((height, width), scores.shape[2:], strict=True)
    rows, columns = (nearness(side, side, cells, 32).double() for side, cells in axes)
    torch.testing.assert_close(rows @ scores @ columns.T, large[:, :, 18 : 18 + height, 18 : 18 + width])


def test_scores_are_enlarged_bilinearly():
    """Between four scores' centres, which are 32 pixels apart, each pixel is their mean, weighted by how near they
    are."""
    model = Fcn32s(network()).double()
    scores = torch.randn(1, 21, 5, 6, dtype=torch.float64)
    model.convolutions, model.classifier = nn.Sequential(), cast(nn.Conv2d, nn.Identity())
    nn.Module.__setattr__(model.classifier, "forward", lambda _: scores)
    found = model(torch.zeros(1, 3, 140, 170, dtype=torch.float64), torch.Size((140, 170)))
    for row, column in ((13, 13), (20, 31), (45, 45), (100, 77), (139, 160), (64, 130)):
        y, x = (row - FIRST) / 32, (column - FIRST) / 32
        top, left = math.floor(y), math.floor(x)
        wanted = sum(
            (1 - abs(y - v)) * (1 - abs(x - u)) * scores[0, :, v, u] for v in (top, top + 1) for u in (left, left + 1)
        )
        torch.testing.assert_close(found[0, :, row, column], cast(Tensor, wanted))
    inside = found[:, :, 13:-1, 13:-1][:, :, :97, :129]
    corners = F.interpolate(scores[:, :, :4, :5], (97, 129), mode="bilinear", align_corners=True)
    torch.testing.assert_close(inside, corners)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_score_lies_where_it_looks(name: str):
    """Of weights that are all alike, its gradient is symmetric about the centre of what it sees."""
    model = Fcn32s(network(*NETWORKS[name])).double().eval()
    averaged = [
        nn.AvgPool2d(3, 2, ceil_mode=True) if isinstance(one, nn.MaxPool2d) else one
        for one in model.convolutions
        if not isinstance(one, nn.LocalResponseNorm | nn.ReLU)
    ]
    for module in averaged:
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    x = torch.ones(1, 3, 250, 400, dtype=torch.float64, requires_grad=True)
    scores = nn.Sequential(*averaged)(x)
    place = tuple(side // 2 for side in scores.shape[2:])
    (gradient,) = torch.autograd.grad(scores[0, 0][place], x)
    for axis, length in ((0, 250), (1, 400)):
        line, centre = gradient[0].sum(dim=(0, 2 - axis)), FIRST + 32 * place[axis]
        reach = min(centre, length - 1 - centre)
        around = line[centre - reach : centre + reach + 1]
        assert around.any()
        torch.testing.assert_close(around / around.max(), around.flip(0) / around.max())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_scores_cover_the_image(name: str, height: int, width: int):
    model = Fcn32s(network(*NETWORKS[name])).eval()
    nn.init.ones_(cast(Tensor, model.classifier.bias))
    with torch.no_grad():
        covered = model(torch.zeros(1, 3, height, width), torch.Size((height, width)))
    assert covered.shape == (1, 21, height, width)
    assert covered.min() > 0


def test_pads_of_other_networks_are_computed():
    model = nn.Sequential(nn.Conv2d(1, 1, 11, 4), nn.MaxPool2d(3, 2), nn.Conv2d(1, 1, 3, padding=1))
    assert pad_first(model) == 8
    assert cast(nn.Conv2d, model[0]).padding == (5 + 4 - FIRST,) * 2


def test_an_enlarged_image_is_scored_at_the_masks_size():
    model = Fcn32s(network(CAFFENET, 64)).eval()
    nn.init.normal_(model.classifier.weight)
    x = torch.randn(1, 3, 192, 256)
    with torch.no_grad():
        small, large = (model(x, torch.Size(size)) for size in ((96, 128), (192, 256)))
    wanted = (large[..., ::2, ::2] + large[..., 1::2, ::2] + large[..., ::2, 1::2] + large[..., 1::2, 1::2]) / 4
    torch.testing.assert_close(small, wanted)


def test_paper_values():
    values = TRANSFER.values["paper"]
    images = 8_498
    assert (values.course.steps_total(images), values.course.batch(images)) == (150_000, 20)
    steps = (0, 49_999, 50_000, 99_999, 100_000)
    assert [values.course.factor(step, images) for step in steps] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    model = nn.Conv2d(2, 3, 1)
    weight, bias = build_optimizer([(model.parameters(), values.optimizer)]).param_groups
    assert (weight["lr"], bias["lr"], weight["weight_decay"], bias["weight_decay"]) == (1e-4, 2e-4, 5e-4, 0)
    assert (weight["momentum"], values.enlarged, values.optimizer.clip) == (0.9, 1, None)


def test_it_trains_on_sbds_train_and_is_scored_on_the_rest_of_val(world: Path):
    ids = {split: (world / f"benchmark_RELEASE/dataset/{split}.txt").read_text().split() for split in ("train", "val")}
    folder = world / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    val = (folder / "val.txt").read_text().split()
    train, test = sbd_train(world), seg11valid(world)
    assert [Path(name).stem for name in train.images.files] == ids["train"]
    assert {Path(name).suffix for name in train.masks} == {".mat"}
    assert [Path(name).stem for name in test.images.files] == val
    assert {Path(name).suffix for name in test.masks} == {".png"}
    (world / "benchmark_RELEASE/dataset/train.txt").write_text("\n".join([*ids["train"], *val[:2]]))
    assert [Path(name).stem for name in seg11valid(world).images.files] == val[2:]
    assert TRANSFER.shortfalls(world)["voc2012/val masks without SBD's train"] == f"{len(val) - 2} of 736 masks"


def test_the_list_decides_where_there_is_one(world: Path):
    val = (world / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").read_text().split()
    before = TRANSFER.annotations(world)
    (world / SEG11VALID).write_text("\n".join(val[:3]))
    test = seg11valid(world)
    assert (test.images.name, len(test)) == ("voc2012/seg11valid masks", 3)
    assert TRANSFER.annotations(world).keys() != before.keys()
    assert SEG11VALID.as_posix() in TRANSFER.card.lists
    trained = (world / "benchmark_RELEASE/dataset/train.txt").read_text().split()
    (world / SEG11VALID).write_text("\n".join([*val[:3], trained[1]]))
    with pytest.raises(UserError, match=rf"seg11valid.txt.* lists 1 images of SBD's train: {trained[1]}"):
        seg11valid(world)


def test_twenty_images_of_any_size_count_alike():
    from benchmark.transfers.contract import Context
    from benchmark.transfers.segmentation.fcn32s import _loss_of_one

    model = Fcn32s(network(CAFFENET, 64)).eval()
    nn.init.normal_(model.classifier.weight, std=0.1)
    context = Context(Path(), "smoke", 0, Path(), torch.device("cpu"), 0, lambda *_: None)
    pixels = torch.randint(0, 256, (1, 3, 70, 90), dtype=torch.uint8)
    mask = torch.randint(0, 21, (1, 70, 90)).to(torch.uint8)
    mask[0, :30] = 255
    with torch.no_grad():
        logits = model(model.input.prepare(pixels), mask.shape[1:]).double()
        found = _loss_of_one(model, pixels, mask, context).item()
    likely = np.exp(logits[0].numpy()) / np.exp(logits[0].numpy()).sum(axis=0)
    there = mask[0].numpy() != 255
    rows, columns = np.nonzero(there)
    wanted = -np.log(likely[mask[0].numpy()[there], rows, columns]).mean()
    assert found == pytest.approx(wanted, rel=1e-5)
