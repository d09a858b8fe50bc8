"""A ResNet of ours for another library: its weights under that library's names, in the file that it reads."""

from __future__ import annotations

from pathlib import Path

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResidualNetwork, ResNet
from benchmark.core.errors import UserError
from benchmark.core.files import write_whole
from benchmark.exchange.contract import Loading
from benchmark.exchange.libraries import get_library
from benchmark.recipe.inputs import RGB


def export_backbone(backbone: Backbone, library: str, folder: Path, name: str) -> Path:
    """Write folder/name.library.suffix, which appears whole; returns its path. Raises UserError for a library that is
    not known, and for a network that it has not."""
    form = get_library(library)
    _check_theirs(backbone, library)
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in backbone.state_dict().items()}
    path = folder / f"{name}.{library}{form.suffix}"
    write_whole(path, form.write(state))
    return path


def load_hint(backbone: Backbone, library: str, path: Path) -> str:
    """How the file is loaded there, and what images must be like, in two lines."""
    form = get_library(library)
    architecture, colour = backbone.architecture, backbone.input.colour
    assert isinstance(architecture, ResNet)
    assert isinstance(colour, RGB)
    mean, std = ([float(f"{form.white * value:.6g}") for value in values] for values in (colour.mean, colour.std))
    load = form.hint(Loading(path, architecture.depth, mean, std))
    return f"{load}\ninput: RGB from 0 to {form.white}, less {mean}, over {std}, {backbone.input.size} px"


def _check_theirs(backbone: Backbone, library: str) -> None:
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
