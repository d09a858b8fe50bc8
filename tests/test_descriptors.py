"""Descriptors without learning: their numbers against formulas in float64, and where they can be scored."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import on_cpu
from torch import Tensor

from benchmark import cli
from benchmark.backbones.descriptors import DESCRIPTORS, Descriptors, descriptors_of
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.weights import has_weights, load_backbone, save_backbone
from benchmark.core.errors import UserError
from benchmark.recipe.catalogue import get_recipe
from benchmark.recipe.contract import Change
from benchmark.recipe.inputs import InputSpec
from benchmark.recipe.scales import at_scale
from benchmark.records.folders import read_record
from benchmark.runs.reproduce import RowWork
from benchmark.runs.run import Run
from benchmark.runs.scoring import score
from benchmark.toyland import build_world
from benchmark.transfers import find_transfers
from benchmark.transfers.features import backbone_key

TRANSFERS = {name: transfer for name, transfer in find_transfers().items() if not transfer.card.asks}
# they have no head to look behind
FROZEN = [name for name, one in TRANSFERS.items() if not one.card.trains and "WithProjectionHead" not in one.card.takes]
RECIPE = get_recipe("descriptors")


def pictures(height: int, width: int) -> Tensor:
    """Noise, a slope in one colour, and a flat grey image with one dark corner: uint8 (3, 3, height, width)."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (3, height, width))
    slope = np.zeros((3, height, width))
    slope[1] = np.add.outer(np.arange(height), 2 * np.arange(width)) % 256
    corner = np.full((3, height, width), 200)
    corner[:, : height // 3, : width // 4] = 30
    return torch.from_numpy(np.stack([noise, slope, corner]).astype(np.uint8))


# --- the formulas once more, pixel by pixel, in float64


def colour(image: np.ndarray) -> np.ndarray:
    counts, _ = np.histogramdd(image.reshape(3, -1).T, bins=8, range=[(0, 256)] * 3)
    return np.sqrt(counts.ravel() / counts.sum())


def thumbnail(image: np.ndarray) -> np.ndarray:
    _, height, width = image.shape
    cells = image.reshape(3, 8, height // 8, 8, width // 8).mean(axis=(2, 4)) / 255
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return ((cells - mean[:, None, None]) / std[:, None, None]).ravel() / np.sqrt(192)


def votes(image: np.ndarray, angles: int, cells: int) -> np.ndarray:
    """(cells, cells, angles)"""
    _, height, width = image.shape
    found = np.zeros((cells, cells, angles))
    for i in range(height):
        for j in range(width):
            above, below, left, right = max(i - 1, 0), min(i + 1, height - 1), max(j - 1, 0), min(j + 1, width - 1)
            across = (image[:, i, right] - image[:, i, left]) / 510
            down = (image[:, below, j] - image[:, above, j]) / 510
            one = np.argmax(np.hypot(across, down))
            strength = np.hypot(across[one], down[one])
            degrees = np.degrees(np.arctan2(down[one], across[one])) % 180
            step = 180 / angles
            for number in range(angles):
                middle = (number + 0.5) * step
                apart = min(abs(degrees - middle), 180 - abs(degrees - middle))
                found[i * cells // height, j * cells // width, number] += strength * max(0, 1 - apart / step)
    return found / (height // cells * (width // cells))


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.sqrt((vector**2).sum() + 0.01**2)


def orientations(image: np.ndarray) -> np.ndarray:
    return unit(votes(image, 18, 1).ravel())


def hog(image: np.ndarray) -> np.ndarray:
    """(corner of the block, angle, row, column), over 7"""
    cells, found = votes(image, 9, 8), np.zeros((4, 9, 7, 7))
    for i in range(7):
        for j in range(7):
            block = unit(cells[i : i + 2, j : j + 2].ravel())
            found[:, :, i, j] = unit(np.minimum(block, 0.2)).reshape(4, 9)
    return found.ravel() / 7


def log_dct(image: np.ndarray) -> np.ndarray:
    """(blocks, 64)"""
    from scipy.fft import dctn

    luma = np.tensordot([0.299, 0.587, 0.114], image, axes=1)
    frequency = np.hypot(*np.mgrid[:8, :8])
    frequency[0, 0] = 1 / 16
    starts = [(i, j) for i in range(0, luma.shape[0] - 7, 8) for j in range(0, luma.shape[1] - 7, 8)]
    blocks = (dctn(luma[i : i + 8, j : j + 8], norm="ortho") for i, j in starts)
    return np.stack([(np.log(np.abs(block) + 1) + np.log(frequency)).ravel() for block in blocks])


def dct_mean(image: np.ndarray) -> np.ndarray:
    return (log_dct(image).mean(axis=0) - 3.2) / 0.63 / 8


def dct_max(image: np.ndarray) -> np.ndarray:
    return (log_dct(image).max(axis=0) - 5.9) / 0.67 / 8


BY_HAND: list[Callable[[np.ndarray], np.ndarray]] = [colour, thumbnail, orientations, hog, dct_mean, dct_max]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 24)])
def test_each_is_its_formula(height: int, width: int):
    images = pictures(height, width)
    found = descriptors_of(images)
    wanted = {of.__name__: np.stack([of(image.astype(np.float64)) for image in images.numpy()]) for of in BY_HAND}
    assert list(found) == [*wanted, "joined"]
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name].numpy(), values, atol=2e-5, err_msg=name)
    assert torch.equal(found["joined"], torch.cat([found[name] for name in wanted], dim=1))


@pytest.mark.parametrize("side", [8, 37, 64])
def test_their_lengths_are_the_stages_on_images_of_any_size(side: int):
    stages = Descriptors().build(at_scale(RECIPE, "desk").input).stages
    found = descriptors_of(pictures(side, side + 3))
    assert {name: values.shape[1] for name, values in found.items()} == {
        n: stage.channels for n, stage in stages.items()
    }
    assert all(values.isfinite().all() for values in found.values())


def test_four_of_them_do_not_see_where_something_is():
    """Blocks change places; of the orientations, which see the seams too, all of the image turns by half."""
    [noise, *_] = images = pictures(64, 64)
    blocks = noise.unflatten(1, (8, 8)).unflatten(3, (8, 8))
    moved = blocks.flip(1, 3).reshape(3, 64, 64)
    before, after = (descriptors_of(image[None]) for image in (noise, moved))
    turned = descriptors_of(images.flip(2, 3))
    for name in ("colour", "dct_mean", "dct_max"):
        torch.testing.assert_close(before[name], after[name])
    torch.testing.assert_close(descriptors_of(images)["orientations"], turned["orientations"])
    for name in ("thumbnail", "hog"):
        assert (before[name] - after[name]).norm() > 0.1, name


def test_only_what_is_asked_for_is_computed():
    backbone = Descriptors().build(at_scale(RECIPE, "desk").input)
    assert list(backbone.forward_stages(torch.rand(2, 3, 64, 64), "thumbnail")) == ["colour", "thumbnail"]


# --- a backbone without weights


def test_it_is_saved_and_loaded(tmp_path: Path):
    path, spec = tmp_path / "backbone.safetensors", at_scale(RECIPE, "desk").input
    save_backbone(path, Descriptors().build(spec), {})
    backbone, _ = load_backbone(path)
    assert backbone.input == spec
    assert not has_weights(path)
    images = pictures(64, 64)
    assert torch.equal(backbone(backbone.input.prepare(images)), descriptors_of(images)["joined"])
    save_backbone(tmp_path / "other.safetensors", ResNet(width=0.0625).build(InputSpec(32)), {})
    assert has_weights(tmp_path / "other.safetensors")


def test_its_features_are_kept_under_its_architectures_name():
    backbone = Descriptors().build(at_scale(RECIPE, "desk").input)
    key = backbone_key(backbone)
    assert key["architecture"] == {"is": "Descriptors", "edition": 1}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (InputSpec(64), r"Descriptors: input.colour must be RGB\(mean=\(0.0, 0.0, 0.0\), .*, not RGB\(mean=\(0.485"),
        (InputSpec(7, RECIPE.input.colour), "input.size 7 is too small"),
    ],
)
def test_another_input_is_told(spec: InputSpec, said: str):
    with pytest.raises(UserError, match=said):
        Descriptors().build(spec)


def test_smoke_scale_makes_nothing_narrower_and_a_width_of_ones_own_is_told():
    assert at_scale(RECIPE, "smoke").backbone == RECIPE.backbone
    with pytest.raises(UserError, match="Descriptors has no setting 'width'"):
        at_scale(replace(RECIPE, overrides=(Change("backbone.width", 0.0625, "command line"),)), "smoke")


# --- where it is scored


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    datasets = tuple({name for one in FROZEN for name, _ in TRANSFERS[one].card.datasets})
    return build_world(tmp_path_factory.mktemp("world"), "smoke", datasets=datasets, progress=False)


def test_every_transfer_scores_it_whose_backbone_stays_frozen_and_the_others_are_left_out(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = Run("descriptors", "smoke", 0, world, tmp_path)
    steps = RowWork(tuple(TRANSFERS), on_cpu())(run)
    assert steps.failures == {}
    shown = capsys.readouterr().out
    for name in TRANSFERS:
        left_out = f"transfer to {name}: left out" in shown
        assert left_out == (name not in FROZEN), name
        assert (run.folder / f"{name}.json").is_file() == (name in FROZEN), name
    per_stage = read_record(run.folder / "linear_imagenet_pirl.json").detail["per_stage"]
    assert per_stage.keys() == {*(of.__name__ for of in DESCRIPTORS), "joined"}


def test_where_the_backbone_trains_it_is_told_before_any_work(tmp_path: Path):
    run = Run("mine", "smoke", 0, tmp_path / "no data at all", tmp_path / "runs")
    backbone = Descriptors().build(at_scale(RECIPE, "desk").input)
    save_backbone(run.backbone, backbone, {"recipe_hash": "h", "resolved": {}})
    said = "semi_supervised_1pct_pirl trains the backbone, and Descriptors has no weights to train"
    with pytest.raises(UserError, match=re.escape(said)):
        score(TRANSFERS["semi_supervised_1pct_pirl"], run, on_cpu())


def test_the_table_of_linear_classifiers_shows_it(world: Path, tmp_path: Path):
    assert RowWork(("linear_imagenet_pirl",), on_cpu())(Run("descriptors", "smoke", 0, world, tmp_path)).failures == {}
    assert cli.run(["tables", "--scale", "smoke", "--data", str(world), "--runs", str(tmp_path)]) == 0
    text = (tmp_path / "smoke/tables/pirl_linear.md").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("| Descriptors"))
    assert line.count("(1)") == 1  # one seed, one column
