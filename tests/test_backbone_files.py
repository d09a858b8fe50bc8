"""A transfer given a backbone file that is not what it says: one line naming the file and what differs, status 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmark import cli
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.weights import save_backbone
from benchmark.recipe.inputs import InputSpec

SMALL = ResNet(width=0.0625)
ORIGIN = {"recipe": "x", "recipe_hash": "0", "resolved": {}}


@pytest.fixture
def backbone_file(tmp_path: Path) -> Path:
    path = tmp_path / "runs/smoke/x/seed0/backbone.safetensors"
    save_backbone(path, SMALL.build(InputSpec(32)), ORIGIN)
    return path


def told(backbone_file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `sslbench transfer` says of it on one line; of a good file, that there is no data for it here."""
    runs = str(backbone_file.parents[3])
    assert cli.run(["transfer", "x", "knn_imagenet_wu", "--scale", "smoke", "--data", runs, "--runs", runs]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_good_file_is_loaded(backbone_file: Path, capsys: pytest.CaptureFixture[str]):
    said = told(backbone_file, capsys)
    assert "imagenet" in said
    assert str(backbone_file) not in said


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]) -> None:
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["sslbench"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dict
    change(facts, tensors)
    save_file(tensors, path, {"sslbench": json.dumps(facts)})


def without_last_stage(facts: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    for key in [key for key in tensors if key.startswith("layer4.")]:
        del tensors[key]


def cast(tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    for key in [key for key in tensors if "num_batches" not in key]:
        tensors[key] = tensors[key].to(dtype)


CHANGES: dict[str, tuple[Callable[[dict[str, Any], dict[str, torch.Tensor]], object], str]] = {
    "other width": (lambda f, t: f["architecture"].update(width=0.125), "its stages are"),
    "other width, said so": (
        lambda f, t: (
            f["architecture"].update(width=0.125),
            [stage.update(channels=2 * stage["channels"]) for stage in f["stages"].values()],
        ),
        "of another shape: bn1.bias is (4,), wanted (8,)",
    ),
    "other architecture": (
        lambda f, t: f["architecture"].update({"is": "ResNet51"}),
        "there is no 'ResNet51'; there are: ",
    ),
    "unknown setting": (lambda f, t: f["architecture"].update(layers=3), "unexpected keyword argument 'layers'"),
    "width in words": (
        lambda f, t: f["architecture"].update(width="wide"),
        "ResNet does not fit this version of sslbench",
    ),
    "last stage's weights missing": (without_last_stage, "missing: layer4.0.bn1.bias"),
    "last stage not named": (lambda f, t: f["stages"].pop("res5"), "its stages are"),
    "other stride": (lambda f, t: f["stages"]["res5"].update(stride=16), "its stages are"),
    "input without a size": (lambda f, t: f["input"].pop("size"), "lacks size"),
    "one channel": (
        lambda f, t: f["input"]["colour"].update(mean=[0.5]),
        "mean is (0.5,), which is not of type tuple[float,",
    ),
    "words for a mean": (lambda f, t: f["input"]["colour"].update(mean=["a", "b", "c"]), "mean is ('a', 'b', 'c')"),
    "no spread": (lambda f, t: f["input"]["colour"].update(std=[0.2, 0.0, 0.2]), "std must be more than 0"),
    "other colours": (
        lambda f, t: f["input"].update(colour="lab"),
        "such as BGR(), Grey(), Lab(), Lightness(), RGB(), Sobel(), not 'lab'",
    ),
    "no size": (lambda f, t: f["input"].update(size=0), "size must be at least 1"),
    "other norm": (lambda f, t: f["architecture"].update(norm="layer"), "norm is 'layer'"),
    "half precision": (lambda f, t: cast(t, torch.float16), "bn1.bias is torch.float16, wanted torch.float32"),
    "integers": (lambda f, t: cast(t, torch.int32), "bn1.bias is torch.int32, wanted torch.float32"),
    "not a number": (lambda f, t: t["layer1.0.bn1.bias"].fill_(torch.nan), "not finite: layer1.0.bn1.bias"),
    "origin in words": (lambda f, t: f.update(origin="here"), "not a backbone file of format"),
    "no architecture": (lambda f, t: f.pop("architecture"), "not a backbone file of format"),
    "no input": (lambda f, t: f.pop("input"), "not a backbone file of format"),
    "no recipe": (lambda f, t: f["origin"].pop("recipe_hash"), "lacks recipe_hash"),
    "no settings": (lambda f, t: f["origin"].pop("resolved"), "lacks resolved"),
    "other format": (lambda f, t: f.update(format="sslbench-backbone-0"), "not a backbone file of format"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=list(CHANGES))
def test_a_file_that_is_not_what_it_says_is_refused(
    backbone_file: Path,
    change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object],
    said: str,
    capsys: pytest.CaptureFixture[str],
):
    rewrite(backbone_file, change)
    line = told(backbone_file, capsys)
    assert str(backbone_file) in line
    assert said in line


@pytest.mark.parametrize("metadata", ["no JSON", "[1]"])
def test_metadata_of_another_kind_is_refused(backbone_file: Path, metadata: str, capsys: pytest.CaptureFixture[str]):
    save_file({"conv1.weight": torch.zeros(1)}, backbone_file, {"sslbench": metadata})
    assert str(backbone_file) in told(backbone_file, capsys)
