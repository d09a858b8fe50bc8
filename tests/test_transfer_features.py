"""Pools, views, the feature store, and the proof that frozen means frozen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_methods import Tiny

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.core.errors import UserError
from benchmark.data.datasets import open_dataset
from benchmark.data.loader import Views
from benchmark.recipe.inputs import RGB, InputSpec
from benchmark.toyland import build_world
from benchmark.transfers import features
from benchmark.transfers.contract import Context
from benchmark.transfers.features import (
    GOYAL_TAPS,
    AverageGrid,
    Mean,
    NotFrozenError,
    Tap,
    extract,
    frozen,
    output_tap,
    state_hash,
    tapped,
)
from benchmark.transfers.preprocessing import centre_crop, crop_and_flip, crop_flip_and_colour, squash

CHANNELS = {"conv1": 64, "res2": 256, "res3": 512, "res4": 1024, "res5": 2048}
STRIDES = {"conv1": 2, "res2": 4, "res3": 8, "res4": 16, "res5": 32}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"), "smoke", datasets=("imagenet",), progress=False)


@pytest.fixture
def backbone() -> Backbone:
    torch.manual_seed(0)
    return ResNet(width=0.0625).build(InputSpec(32)).eval()


@pytest.fixture
def reports() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture
def context(world: Path, tmp_path: Path, reports: list[tuple[str, int, int]]) -> Context:
    return Context(
        world,
        "smoke",
        0,
        tmp_path,
        torch.device("cpu"),
        0,
        lambda what, done, total, _: reports.append((what, done, total)),
    )


@pytest.mark.parametrize(("tap", "numbers"), [*zip(GOYAL_TAPS, (9216, 9216, 8192, 9216, 8192), strict=True)])
def test_pools_at_224_give_the_tables_grids(tap: Tap, numbers: int):
    pool, channels, side = tap.pooling, CHANNELS[tap.stage], 224 // STRIDES[tap.stage]
    assert isinstance(pool, AverageGrid)
    x = torch.randn(1, channels, side, side)
    out = tap.read({tap.stage: x})
    assert out.shape == (1, channels, pool.cells, pool.cells)
    assert out.numel() == numbers
    start = pool.stride - pool.padding  # of the second cell, which no padding touches
    window = x[:, :, start : start + pool.kernel, start : start + pool.kernel]
    torch.testing.assert_close(out[:, :, 1, 1], window.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("side", "grids"), [(32, (2, 1, 1, 1, 1)), (64, (3, 2, 1, 1, 1)), (112, (6, 3, 2, 2, 1)), (288, (12, 6, 4, 3, 2))]
)
def test_smaller_images_get_cells_of_as_many_pixels_and_larger_ones_the_same_grids(side: int, grids: tuple[int, ...]):
    for tap, grid in zip(GOYAL_TAPS, grids, strict=True):
        map_side = side // STRIDES[tap.stage]
        out = tap.read({tap.stage: torch.zeros(1, CHANNELS[tap.stage], map_side, map_side)})
        assert out.shape[-2:] == (grid, grid)


def test_test_views_keep_what_they_should():
    wide = Image.new("RGB", (160, 80))
    wide.paste((255, 255, 255), (0, 0, 20, 80))  # a white edge
    assert squash(64)(wide)["image"].shape == centre_crop(64)(wide)["image"].shape == (3, 64, 64)
    assert squash(64)(wide)["image"][:, :, 0].min() > 200
    assert centre_crop(64)(wide)["image"].max() == 0


@pytest.mark.parametrize("augment", [crop_and_flip, crop_flip_and_colour])
def test_augmentation_follows_from_seed_epoch_and_index(augment, world: Path):
    images = open_dataset(world, "imagenet", "train")

    def drawn(seed: int, epoch: int, index: int) -> torch.Tensor:
        return Views(images, augment(32), seed)[epoch, index][0]["image"]  # type: ignore[index]

    first = drawn(0, 1, 2)
    torch.rand(7)
    assert torch.equal(first, drawn(0, 1, 2))
    assert first.dtype == torch.uint8
    assert all(not torch.equal(first, drawn(*other)) for other in ((1, 1, 2), (0, 2, 2), (0, 1, 3)))


def test_frozen_notices_running_statistics(backbone: Backbone):
    x = torch.randn(4, 3, 32, 32)
    with frozen(backbone):
        backbone.forward_stages(x)
    backbone.bn1.train()  # type: ignore[union-attr]
    with pytest.raises(NotFrozenError), frozen(backbone):
        backbone.forward_stages(x)


def test_extraction_from_a_backbone_in_training_mode_fails(backbone: Backbone, context: Context):
    images = open_dataset(context.data_root, "imagenet", "val")
    with pytest.raises(NotFrozenError):
        extract(backbone.train(), images, centre_crop(32), GOYAL_TAPS, context)


def test_state_hash_sees_every_bit(backbone: Backbone):
    before = state_hash(backbone)
    backbone.to(memory_format=torch.channels_last)  # another layout of the same bits
    assert state_hash(backbone) == before
    backbone.state_dict()["layer4.2.bn3.running_var"][0] += 1e-6
    assert state_hash(backbone) != before


def test_features_are_the_backbones_own(backbone: Backbone, context: Context):
    images = open_dataset(context.data_root, "imagenet", "val")
    view = centre_crop(32)
    found = extract(backbone, images, view, (*GOYAL_TAPS, output_tap(backbone)), context)
    assert list(found) == ["conv1", "res2", "res3", "res4", "res5", "res5_average"]
    x = backbone.input.prepare(torch.stack([view(images.open(i))["image"] for i in range(len(images))]))
    with torch.no_grad():
        maps, average = backbone.forward_stages(x), backbone(x)
    for tap in GOYAL_TAPS:
        np.testing.assert_allclose(found[tap.name], tap.read(maps).flatten(1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["res5_average"], average, rtol=1e-3, atol=1e-4)


def test_what_was_extracted_is_found_again(backbone: Backbone, context: Context, reports: list, monkeypatch):
    images = open_dataset(context.data_root, "imagenet", "train")
    monkeypatch.setattr(features, "PART", 16)
    taps, view = GOYAL_TAPS[3:], centre_crop(32)
    first = extract(backbone, images, view, taps, context)
    parts = sorted(context.workspace.rglob("*.npy"))
    assert len(parts) == 2 * -(-len(images) // 16)

    reports.clear()
    again = extract(backbone, images, view, (GOYAL_TAPS[4],), context)  # as another protocol would ask
    assert not reports
    np.testing.assert_array_equal(first["res5"], again["res5"])

    parts[-1].unlink()  # as if killed in the last part
    assert np.array_equal(extract(backbone, images, view, taps, context)["res4"], first["res4"])
    assert {done for _, done, _ in reports} == {len(images)}


def test_another_backbone_view_or_set_is_extracted_anew(backbone: Backbone, context: Context):
    images = open_dataset(context.data_root, "imagenet", "val")

    def files(model: Backbone, view, chosen) -> int:
        extract(model, chosen, view, (GOYAL_TAPS[4],), context)
        return len(list(context.workspace.rglob("*.npy")))

    assert files(backbone, centre_crop(32), images) == 1
    assert files(backbone, squash(32), images) == 2
    assert files(backbone, centre_crop(32), images.subset([0, 1], "two")) == 3
    backbone.input = InputSpec(32, RGB(mean=(0.5, 0.5, 0.5)))
    assert files(backbone, centre_crop(32), images) == 4
    backbone.bn1.running_mean += 1  # type: ignore[union-attr, operator]
    assert files(backbone, centre_crop(32), images) == 5


@pytest.mark.parametrize(
    ("tap", "said"),
    [
        (Tap("res5", Mean()), "there is no stage res5 in TinyNetwork; it has conv1, code"),
        (
            Tap("code", AverageGrid(4, 2, kernel=2, stride=2)),
            "stage code of TinyNetwork is a vector",
        ),
    ],
)
def test_a_tap_that_a_backbone_lacks_is_told(tap: Tap, said: str):
    with pytest.raises(UserError, match=said):
        tapped(Tiny().build(InputSpec(16)), (tap,), torch.zeros(1, 3, 16, 16))
