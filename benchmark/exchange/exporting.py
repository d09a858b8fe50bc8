"""A ResNet of ours for another library: its weights under that library's names, in the file that it reads.

torchvision    torch.save of a state_dict, without a classifier
timm           safetensors, without a classifier
detectron2     a pickle of {"model": name -> array, "__author__", "matching_heuristics"}, by its
               tools/convert-torchvision-to-d2.py; STRIDE_IN_1X1 must be False, and the input RGB
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResidualNetwork, ResNet
from benchmark.core.errors import UserError
from benchmark.core.files import write_whole
from benchmark.exchange import Library
from benchmark.recipe.inputs import RGB


def export_backbone(backbone: Backbone, library: Library, path: Path) -> None:
    """Write the file, which appears whole. Raises UserError for a network that the library has not."""
    _check_theirs(backbone, library)
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in backbone.state_dict().items()}
    write_whole(path, WRITERS[library](state))


def load_hint(backbone: Backbone, library: Library, path: Path) -> str:
    """How the file is loaded there, and what images must be like, in two lines."""
    architecture, colour = backbone.architecture, backbone.input.colour
    assert isinstance(architecture, ResNet)
    assert isinstance(colour, RGB)
    scale, of = (255, "0 to 255") if library == "detectron2" else (1, "0 to 1")
    mean, std = ([float(f"{scale * value:.6g}") for value in values] for values in (colour.mean, colour.std))
    name = f"resnet{architecture.depth}"
    load = {
        "torchvision": f"m = torchvision.models.{name}(); m.fc = torch.nn.Identity(); "
        f'm.load_state_dict(torch.load("{path}"))',
        "timm": f'm = timm.create_model("{name}", num_classes=0, checkpoint_path="{path}")',
        "detectron2": f"MODEL.WEIGHTS {path} MODEL.RESNETS.STRIDE_IN_1X1 False MODEL.RESNETS.DEPTH "
        f'{architecture.depth} INPUT.FORMAT RGB MODEL.PIXEL_MEAN "{mean}" MODEL.PIXEL_STD "{std}"',
    }[library]
    return f"{load}\ninput: RGB from {of}, less {mean}, over {std}, {backbone.input.size} px"


def _check_theirs(backbone: Backbone, library: Library) -> None:
    """What differs shows in no key: they would load it, and compute something else."""
    architecture, colour = backbone.architecture, backbone.input.colour
    told = type(architecture).__name__
    if type(architecture) is not ResNet or type(backbone) is not ResidualNetwork:
        raise UserError(f"--to {library}: takes a ResNet of its own kind, and this is a {told}")
    if architecture.norm != "batch" or architecture.width != 1:
        why = f"width {architecture.width:g} and {architecture.norm} norm"
        raise UserError(f"--to {library}: its ResNets have width 1 and BatchNorm, and this one has {why}")
    if not isinstance(colour, RGB):
        raise UserError(f"--to {library}: takes RGB images, and this network {type(colour).__name__}")


def _torchvision(state: dict[str, Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def _timm(state: dict[str, Tensor]) -> bytes:
    return save(state, {"format": "pt"})


def _detectron2(state: dict[str, Tensor]) -> bytes:
    """Its layers have no counters of batches."""
    model = {_d2_name(key): one.numpy() for key, one in state.items() if not key.endswith("num_batches_tracked")}
    return pickle.dumps({"model": model, "__author__": "sslbench", "matching_heuristics": True})


def _d2_name(key: str) -> str:
    """ "layer1.0.bn2.weight" -> "res2.0.conv2.norm.weight"; "bn1.bias" -> "stem.conv1.norm.bias"."""
    key = re.sub(r"^layer(\d)", lambda found: f"res{int(found[1]) + 1}", key)
    key = key if key.startswith("res") else f"stem.{key}"
    key = re.sub(r"\bbn(\d)", r"conv\1.norm", key)
    return key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


WRITERS: dict[str, Callable[[dict[str, Tensor]], bytes]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "detectron2": _detectron2,
}
SUFFIXES = {"torchvision": ".pth", "timm": ".safetensors", "detectron2": ".pkl"}
