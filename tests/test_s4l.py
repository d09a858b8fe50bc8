"""Two pools, labelled beside unlabelled: S⁴L-Rotation's loss, its pools, its labelled share, and ResNet-50 v2."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from handmade import image
from scipy.special import log_softmax
from small_runs import drawn_images, on_cpu
from torch import Tensor
from torch.nn.functional import conv2d

from benchmark.backbones.resnet_v2 import PreactivationBlock, ResNetV2
from benchmark.core.optimisation import Steps
from benchmark.data.batch import Batch
from benchmark.data.datasets import open_dataset
from benchmark.data.image_set import ImageSet
from benchmark.data.splits import percent_of
from benchmark.engine.feed import Feed
from benchmark.engine.train import build_method, given_of, pretrain
from benchmark.method import Method
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Recipe, with_change
from benchmark.recipe.inputs import InputSpec
from benchmark.recipe.pools import Given, Pool
from benchmark.recipe.scales import at_scale
from benchmark.runs.run import pretraining_images
from benchmark.transfers import find_transfers
from benchmark.transfers.contract import Context
from benchmark.transfers.training import Course

SMOKE = at_scale(find_recipes()["s4l_rotation_10pct"], "smoke")
CLASSES = ("n00000001", "n00000002", "n00000003")


@pytest.fixture
def pools(tmp_path: Path) -> dict[str, ImageSet]:
    """12 labelled images of 4 classes, a part of 48."""
    images = drawn_images(tmp_path / "images")
    return {"labelled": images.subset(range(8, 20), "12"), "unlabelled": images.without_labels()}


def built(recipe: Recipe, pools: dict[str, ImageSet]) -> Method:
    return build_method(recipe, given_of(pools, {}))


@pytest.mark.parametrize("w", [1.0, 0.3])
def test_the_loss_is_the_papers_in_float64(w: float, pools: dict[str, ImageSet], monkeypatch: pytest.MonkeyPatch):
    """The backbone is replaced by a random projection of pixels; the rest is written out image by image."""
    rng = np.random.default_rng(0)
    side, dim = 8, 128
    projection = rng.standard_normal((3 * side * side, dim)) / 1000
    method = built(with_change(SMOKE, "method.w", w), pools).double()
    monkeypatch.setattr(method, "features", lambda x: x.double().flatten(1) @ torch.from_numpy(projection))
    some, others = (rng.integers(0, 256, (count, 3, side, side), dtype=np.uint8) for count in (3, 5))
    y = np.array([2, 0, 2])
    batches = {
        "labelled": Batch({"image": torch.from_numpy(some)}, torch.arange(3), 0, labels=torch.from_numpy(y)),
        "unlabelled": Batch({"image": torch.from_numpy(others)}, torch.arange(5), 0),
    }
    found = method.loss(replace(batches["labelled"], pools=batches))

    heads = {name: tensor.numpy() for name, tensor in method.state_dict().items() if "backbone" not in name}

    def told(picture: np.ndarray, head: str) -> np.ndarray:
        return log_softmax(heads[f"{head}.weight"] @ (picture.reshape(-1) @ projection) + heads[f"{head}.bias"])

    def rotation(images: np.ndarray) -> float:
        turned = [told(np.rot90(x, k, axes=(1, 2)), "rotations")[k] for x in images for k in range(4)]
        return -float(np.mean(turned))

    classes = [told(np.rot90(x, k, axes=(1, 2)), "classes")[c] for x, c in zip(some, y, strict=True) for k in range(4)]
    wanted = -np.mean(classes) + w * (rotation(some) + rotation(others)) / 2
    assert found.item() == pytest.approx(wanted, rel=1e-6)


def test_labels_reach_the_labelled_batches_alone(pools: dict[str, ImageSet], tmp_path: Path, monkeypatch):
    seen: list[Batch] = []
    given: list[Given] = []
    settings, kind = type(SMOKE.method), type(built(SMOKE, pools))
    build, loss = settings.build, kind.loss
    monkeypatch.setattr(settings, "build", lambda self, net, known: given.append(known) or build(self, net, known))
    monkeypatch.setattr(kind, "loss", lambda self, batch: seen.append(batch) or loss(self, batch))
    every = drawn_images(tmp_path / "images")  # with labels on both: what the recipe asks for decides
    pretrain(SMOKE, "x", {"labelled": pools["labelled"], "unlabelled": every}, tmp_path / "run", on_cpu())
    assert {name: (one.num_images, one.num_classes) for name, one in given[0].pools.items()} == {
        "labelled": (12, 4),
        "unlabelled": (48, 0),
    }
    assert len(seen) == 4
    for batch in seen:
        labelled, unlabelled = batch.pools["labelled"], batch.pools["unlabelled"]
        assert labelled.labels is not None
        assert torch.equal(labelled.labels, torch.from_numpy(pools["labelled"].labels.values)[labelled.index])
        assert unlabelled.labels is None
        assert unlabelled.views.keys() == {"image"}
        assert (len(labelled), len(unlabelled)) == (4, 16)


def fed(pools: dict[str, ImageSet], first: int, total: int) -> Iterator[dict[str, Batch]]:
    feed = Feed(with_change(SMOKE, "batch_size", 10), pools, 0, total)
    assert feed.steps_per_epoch == 3
    step = first
    while step < total:
        for batch in feed.epoch(step, built(SMOKE, pools)):
            yield batch.pools
            step += 1


@pytest.mark.parametrize("first", [1, 3, 5])
def test_both_pools_go_on_from_a_step_as_if_nothing_had_been(first: int, pools: dict[str, ImageSet]):
    """Labelled images come round every 3 steps, unlabelled ones every 4."""
    whole, resumed = list(fed(pools, 0, 9)), list(fed(pools, first, 9))
    assert len(resumed) == 9 - first
    for old, new in zip(whole[first:], resumed, strict=True):
        for pool in pools:
            assert torch.equal(old[pool].index, new[pool].index)
            assert torch.equal(old[pool].views["image"], new[pool].views["image"])
    for pool, steps in (("labelled", 3), ("unlabelled", 4)):
        rounds = [torch.cat([batches[pool].index for batches in whole[n * steps : (n + 1) * steps]]) for n in (0, 1)]
        assert all(len(one.unique()) == len(one) for one in rounds), "an image came twice in one round"
        assert not torch.equal(*rounds)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """ImageNet with three classes of 20, 30 and 40 images."""
    for number, wnid in enumerate(CLASSES):
        for k in range(20 + 10 * number):
            image(tmp_path / "imagenet" / "train" / wnid / f"{wnid}_{k}.JPEG", (40 * number + 50, 3 * k, 90), (36, 36))
        image(tmp_path / "imagenet" / "val" / wnid / f"ILSVRC2012_val_{number:08d}.JPEG", size=(36, 36))
    return tmp_path


@pytest.mark.parametrize(("percent", "each"), [(10, [2, 3, 4]), (1, [1, 1, 1])])
def test_the_labelled_share_is_that_of_every_class(percent: int, each: list[int], world: Path):
    recipe = find_recipes()[f"s4l_rotation_{percent}pct"]
    assert recipe.pools["labelled"].percent == percent
    images = pretraining_images(recipe, world)
    assert list(images) == ["labelled", "unlabelled"], "an epoch is one of the labelled images"
    assert np.bincount(images["labelled"].labels.values).tolist() == each
    assert len(images["unlabelled"]) == 90
    other = pretraining_images(replace(recipe, seed=1), world)["labelled"]
    assert other.files != images["labelled"].files


def test_it_is_the_semi_supervised_protocols_own_share(world: Path, tmp_path: Path):
    """Drawn, and by a list beside the data."""
    transfer = copy.copy(find_transfers()["semi_supervised_10pct_pirl"])
    transfer.courses = {"smoke": Course(Steps(1), 4, transfer.courses["smoke"].schedule)}
    backbone = ResNetV2(width=0.0625).build(InputSpec(32)).eval()
    context = Context(world, "smoke", 3, tmp_path / "w", torch.device("cpu"), 0, lambda *_: None)
    recipe = replace(find_recipes()["s4l_rotation_10pct"], seed=3)

    def both() -> list[str]:
        images = pretraining_images(recipe, world)["labelled"]
        assert transfer.run(backbone, context).data[images.name] == images.fingerprint()
        return list(images.files)

    drawn = both()
    listed = [f"{CLASSES[0]}_7.JPEG", f"{CLASSES[2]}_0.JPEG", f"{CLASSES[1]}_11.JPEG", f"{CLASSES[1]}_2.JPEG"]
    (world / "imagenet" / "10percent.txt").write_text("\n".join(listed))
    assert sorted(file.rpartition("/")[2] for file in both()) == sorted(listed)
    assert len(drawn) == 9


def test_another_percentages_list_is_not_taken(world: Path):
    (world / "imagenet" / "1percent.txt").write_text(f"{CLASSES[0]}_7.JPEG")
    train = open_dataset(world, "imagenet", "train")
    assert len(percent_of(train, 10, 0)) == 9
    assert len(percent_of(train, 1, 0)) == 1


def test_a_part_of_the_smoke_world_fits_a_batch():
    assert {name: SMOKE.batch_of(name) for name in SMOKE.pools} == {"labelled": 4, "unlabelled": 16}
    alone = replace(SMOKE, data=Pool("imagenet", percent=1))
    assert at_scale(alone, "smoke").batch_of("main") == 4
    assert at_scale(alone, "desk").batch_of("main") == 8


@pytest.mark.parametrize("depth", [50, 101, 152])
def test_resnet_v2_has_as_many_parameters_as_its_paper_says(depth: int):
    """torchvision's network has the same convolutions; of norms, v2 has one before each of them and one at the end."""
    with torch.device("meta"):
        v1 = getattr(torchvision.models, f"resnet{depth}")()
        v2 = ResNetV2(depth).build(InputSpec())  # type: ignore[arg-type]
    blocks = [block for layer in (v1.layer1, v1.layer2, v1.layer3, v1.layer4) for block in layer]
    normed = sum(c.in_channels for block in blocks for c in (block.conv1, block.conv2, block.conv3)) + 2048
    convolutions = sum(p.numel() for p in v1.parameters() if p.ndim == 4)
    assert sum(p.numel() for p in v2.parameters()) == convolutions + 2 * normed
    if depth == 50:
        assert convolutions + 2 * normed == 23_500_352


def test_a_block_normalises_before_each_convolution_and_adds_the_raw_input():
    torch.manual_seed(0)
    spread = (1 + 1e-5) ** 0.5  # of a norm that has seen nothing
    for channels, stride in ((16, 1), (8, 2)):
        block = PreactivationBlock(channels, 4, stride, torch.nn.BatchNorm2d).eval()
        x = torch.randn(2, channels, 8, 8)

        def active(y: Tensor) -> Tensor:
            return (y / spread).clamp(min=0)

        start = active(x)
        y = conv2d(start, block.conv1.weight)
        y = conv2d(active(y), block.conv2.weight, stride=stride, padding=1)
        y = conv2d(active(y), block.conv3.weight)
        kept = x if stride == 1 else conv2d(start, block.shortcut.weight, stride=2)
        torch.testing.assert_close(block(x), kept + y)


def test_the_stages_of_resnet_v2():
    backbone = ResNetV2(width=0.0625, zero_init_residual=True).build(InputSpec(64)).eval()
    x = torch.randn(2, 3, 64, 64)
    maps = backbone.forward_stages(x)
    for name, stage in backbone.stages.items():
        assert maps[name].shape == (2, stage.channels, 64 // stage.stride, 64 // stage.stride)
        assert torch.equal(backbone.forward_stages(x, upto=name)[name], maps[name])
    assert maps["res4"].min() < 0 <= maps["res5"].min()
    torch.testing.assert_close(backbone(x), maps["res5"].mean(dim=(2, 3)))
