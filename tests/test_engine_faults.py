"""Planted failures of the engine: each a UserError that names the file or step and the mend, nothing half-written."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import RECIPES, drawn_images

from benchmark.backbones.resnet import ResNet
from benchmark.backbones.weights import load_backbone, read_facts, save_backbone
from benchmark.core.errors import UserError
from benchmark.core.files import write_whole
from benchmark.core.optimisation import SGD
from benchmark.engine.train import Machine, pretrain
from benchmark.recipe.contract import with_change
from benchmark.recipe.inputs import InputSpec

SMALL = ResNet(width=0.0625)
MACHINE = Machine(torch.device("cpu"), workers=0, checkpoint_seconds=0)


@pytest.fixture
def images(tmp_path: Path):
    return drawn_images(tmp_path / "images")


@pytest.fixture
def backbone_file(tmp_path: Path) -> Path:
    path = tmp_path / "backbone.safetensors"
    save_backbone(path, SMALL.build(InputSpec(32)), {"recipe": "x"})
    return path


def rewritten(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata)
    return path


def test_a_backbone_comes_back_whole(backbone_file: Path):
    backbone, facts = load_backbone(backbone_file)
    assert not backbone.training
    assert facts["origin"] == {"recipe": "x"}
    assert facts["stages"]["res5"] == {"channels": 128, "stride": 32}
    torch.testing.assert_close(dict(load_file(backbone_file)), dict(backbone.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("conv1.weight"), r"1 missing: conv1\.weight"),
        (lambda t: t.update({"fc.weight": torch.zeros(2)}), r"1 unexpected: fc\.weight"),
        (lambda t: t.update({"module.conv1.weight": t.pop("conv1.weight")}), r"missing.*unexpected: module\.conv1"),
        (
            lambda t: t.update({"conv1.weight": torch.zeros(4, 1, 7, 7)}),
            r"of another shape: conv1\.weight is \(4, 1",
        ),
    ],
    ids=["missing", "extra", "renamed", "shape"],
)
def test_a_backbone_file_with_other_keys_is_refused(backbone_file: Path, change, said: str):
    with pytest.raises(UserError, match=said) as told:
        load_backbone(rewritten(backbone_file, change))
    assert str(backbone_file) in str(told.value)


def test_a_pickle_is_never_opened(tmp_path: Path):
    marker = tmp_path / "ran"

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    path = tmp_path / "backbone.safetensors"
    torch.save({"model": Harm()}, path)
    with pytest.raises(UserError, match="not a safetensors file"):
        load_backbone(path)
    assert not marker.exists()


def test_a_checkpoint_that_is_a_pickle_is_never_run(images, tmp_path: Path):
    marker, run = tmp_path / "ran", tmp_path / "run"

    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    run.mkdir()
    torch.save({"identity": Harm()}, run / "checkpoint.pt")
    with pytest.raises(UserError, match=r"checkpoint\.pt"):
        pretrain(RECIPES["rotation"], "rotation", images, run, MACHINE)
    assert not marker.exists()


def interrupted_run(images, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves a checkpoint and no backbone."""
    from benchmark.engine import train

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "save_backbone", stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain(RECIPES["rotation"], "rotation", images, run, MACHINE)
    assert (run / "checkpoint.pt").is_file()
    assert not (run / "backbone.safetensors").exists()


def test_an_interrupted_run_goes_on(images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    interrupted_run(images, tmp_path / "run", monkeypatch)
    assert pretrain(RECIPES["rotation"], "rotation", images, tmp_path / "run", MACHINE).is_file()
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [("batch_size", 12), ("optimizers.main", SGD(lr=0.7)), ("backbone.width", 0.125), ("method.crop_area", (0.4, 1.0))],
)
def test_a_changed_recipe_does_not_go_on(images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value):
    run = tmp_path / "run"
    interrupted_run(images, run, monkeypatch)
    before = (run / "checkpoint.pt").read_bytes()
    with pytest.raises(UserError, match="another run") as told:
        pretrain(with_change(RECIPES["rotation"], key, value), "rotation", images, run, MACHINE)
    assert key.split(".")[-1] in str(told.value)
    assert (run / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("fault", ["missing", "extra", "renamed"])
def test_a_checkpoint_with_other_keys_is_refused(images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str):
    run = tmp_path / "run"
    interrupted_run(images, run, monkeypatch)
    whole = torch.load(run / "checkpoint.pt", weights_only=True)
    if fault != "extra":
        weight = whole["method"].pop("fc.weight")
    if fault != "missing":
        whole["method"]["head.weight"] = torch.zeros(3) if fault == "extra" else weight
    torch.save(whole, run / "checkpoint.pt")
    with pytest.raises(UserError, match=r"checkpoint\.pt.*(fc|head)\.weight"):
        pretrain(RECIPES["rotation"], "rotation", images, run, MACHINE)


def test_a_loss_that_is_not_finite_names_its_step_and_keeps_what_was(images, tmp_path: Path):
    run = tmp_path / "run"
    wild = replace(with_change(RECIPES["rotation"], "optimizers.main", SGD(lr=1e30)), schedule=RECIPES["pirl"].schedule)
    with pytest.raises(UserError, match=r"not finite.*step [0-9]+"):
        pretrain(wild, "rotation", images, run, MACHINE)
    assert not (run / "backbone.safetensors").exists()


@pytest.fixture
def tiny_disk(mount: Callable[[str], Path]) -> Path:
    return mount("size=64k")


def test_a_full_disk_leaves_the_old_file(tiny_disk: Path):
    path = tiny_disk / "record.json"
    write_whole(path, b"old")
    with pytest.raises(UserError, match=r"record\.json: could not be written.*free space"):
        write_whole(path, b"x" * 200_000)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tiny_disk.iterdir()] == ["record.json"]


def test_a_run_on_a_full_disk_says_so(images, tiny_disk: Path):
    with pytest.raises(UserError, match=r"could not be written|No space left"):
        pretrain(RECIPES["rotation"], "rotation", images, tiny_disk / "run", MACHINE)
    assert not (tiny_disk / "run" / "backbone.safetensors").exists()


def test_another_recipes_backbone_is_never_written_over(images, tmp_path: Path):
    run = tmp_path / "run"
    path = pretrain(RECIPES["random_init"], "random_init", images, run, MACHINE)
    before = path.read_bytes()
    with pytest.raises(UserError, match="another run"):
        pretrain(RECIPES["rotation"], "rotation", images, run, MACHINE)
    assert path.read_bytes() == before
    assert read_facts(path)["origin"]["recipe"] == "random_init"
