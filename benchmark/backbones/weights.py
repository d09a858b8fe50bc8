"""The backbone file: safetensors whose metadata says everything a transfer must know, and its strict loading."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.backbones import architectures
from benchmark.backbones.contract import Backbone
from benchmark.core.errors import UserError
from benchmark.core.plain import as_plain, from_plain, on_one_line, subclasses
from benchmark.core.tensor_file import Format, read_tensors, write_tensors
from benchmark.recipe.inputs import Colour, InputSpec

BACKBONE_FILE = Format("backbone", 2, frozenset({"architecture", "stages", "input", "origin"}))


def save_backbone(path: Path, backbone: Backbone, origin: dict[str, Any]) -> None:
    """Write weights, architecture, stages and input spec, and `origin`: where the weights come from (recipe, hash, data
    fingerprint, seed, last losses ...; JSON-ready). The file appears whole or not at all. Raises UserError for what its
    architecture does not build: nothing could load the file."""
    _check_built_by_its_architecture(backbone)
    facts = {**describe(backbone), "stages": _stages(backbone), "origin": origin}
    write_tensors(path, BACKBONE_FILE, backbone.state_dict(), facts)


def _check_built_by_its_architecture(backbone: Backbone) -> None:
    if not isinstance(backbone, Backbone):
        raise UserError(f"a {type(backbone).__name__} is not a Backbone; Method.export must return one")
    with torch.device("meta"):
        twin = backbone.architecture.build(backbone.input)
    ours, theirs = _form(backbone), _form(twin)
    if other := sorted(key for key in ours | theirs if ours.get(key) != theirs.get(key)):
        raise UserError(f"{backbone.architecture} builds a different network; these differ: {_few(other)}")


def _form(backbone: Backbone, norms: bool = True) -> dict[str, Any]:
    """Shapes, stages and what each layer says of itself: a changed stride shows in no shape."""
    shapes = {key: tensor.shape for key, tensor in backbone.state_dict().items()}
    shown = [one for one in backbone.named_modules() if norms or not isinstance(one[1], _BatchNorm)]
    layers = {f"{name} ({type(one).__name__})": one.extra_repr() for name, one in shown}
    return shapes | layers | backbone.stages


def read_facts(path: Path) -> dict[str, Any]:
    """What a backbone file says of itself, without its weights. Raises UserError for a file that is not one."""
    return _read(path, weights=False)[1]


def has_weights(path: Path) -> bool:
    """Whether a backbone file holds any tensor. Raises UserError for a file that is not one."""
    read_facts(path)
    with safe_open(path, framework="pt") as file:  # its header: the weights themselves may be large
        return bool(list(file.keys()))


def load_backbone(path: Path) -> tuple[Backbone, dict[str, Any]]:
    """(backbone in evaluation mode, its metadata). Raises UserError, naming the file and what differs, unless every
    key, shape, dtype and stage is what the file says of itself, and every weight finite."""
    if not path.is_file():
        raise UserError(f"{path}: no such backbone file; pretrain first, or give another path")
    tensors, facts = _read(path, weights=True)
    backbone = build_described(facts, path)
    stages = _stages(backbone)
    if facts["stages"] != stages:
        raise UserError(f"{path}: says that its stages are {facts['stages']}; its architecture's are {stages}")
    load_strictly(backbone, tensors, path)
    if wild := sorted(key for key, tensor in tensors.items() if not tensor.isfinite().all()):
        raise UserError(f"{path}: not finite: {_few(wild)}; pretrain again")
    return backbone.eval(), facts


def start_from(backbone: Backbone, path: Path) -> None:
    """Give `backbone` the weights of a file. Raises UserError, naming the file and what differs, unless that holds the
    same network with the same input; only how its norms share statistics may be another."""
    other, _ = load_backbone(path)
    if other.input != backbone.input:
        raise UserError(_unlike(path, "input", other.input, backbone.input))
    ours, theirs = _form(backbone, norms=False), _form(other, norms=False)
    if unlike := sorted(key for key in ours | theirs if ours.get(key) != theirs.get(key)):
        told = _unlike(path, "backbone", other.architecture, backbone.architecture)
        raise UserError(f"{told} (these differ: {_few(unlike)})")
    load_strictly(backbone, other.state_dict(), path)


def _unlike(path: Path, what: str, theirs: object, ours: object) -> str:
    return (
        f"{path}: its {what} is {on_one_line(theirs)}, and the recipe's is {on_one_line(ours)}, so the run cannot "
        f"start from it; give the recipe the same by --recipe.{what}.KEY VALUE, or choose other weights"
    )


def describe(backbone: Backbone) -> dict[str, Any]:
    """What `build_described` builds one like it from, JSON-ready."""
    return {"architecture": as_plain(backbone.architecture), "input": as_plain(backbone.input)}


def build_described(facts: dict[str, Any], path: Path) -> Backbone:
    """The architecture that the metadata of `path` names, with initial weights."""
    try:
        spec = from_plain(facts["input"], subclasses(Colour) | {"InputSpec": InputSpec})
        if not isinstance(spec, InputSpec):
            raise UserError(f"its input is a {type(spec).__name__}")
        return from_plain(facts["architecture"], architectures()).build(spec)
    except (UserError, AttributeError) as error:
        raise UserError(
            f"{path}: its architecture or input does not fit this version of sslbench: {error}; pretrain again, or "
            "give --recipes-dir if it is a class of your own"
        ) from error


def _stages(backbone: Backbone) -> dict[str, dict[str, int]]:
    return {name: dataclasses.asdict(stage) for name, stage in backbone.stages.items()}


def _read(path: Path, weights: bool) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors, facts = read_tensors(path, BACKBONE_FILE, weights=weights)
    if not isinstance(facts["origin"], dict):
        raise UserError(f"{path}: not a backbone file of format {BACKBONE_FILE.name}: its origin is not a table")
    return tensors, facts


def load_strictly(module: torch.nn.Module, tensors: dict[str, torch.Tensor], path: Path, assign: bool = False) -> None:
    """Every key there, none over, every shape and dtype equal; else a UserError naming the keys. assign: the tensors
    become the module's, which may have none yet (torch's meta device), instead of being copied into its own."""
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise UserError(f"{path} does not fit {type(module).__name__}: its state is not a set of named tensors")
    wanted = module.state_dict()
    both = sorted(wanted.keys() & tensors.keys())
    found = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - wanted.keys()),
        "of another shape": [
            f"{key} is {tuple(tensors[key].shape)}, wanted {tuple(wanted[key].shape)}"
            for key in both
            if tensors[key].shape != wanted[key].shape
        ],
        "of another dtype": [
            f"{key} is {tensors[key].dtype}, wanted {wanted[key].dtype}"
            for key in both
            if tensors[key].dtype != wanted[key].dtype
        ],
    }
    faults = [f"{len(keys)} {what}: {_few(keys)}" for what, keys in found.items() if keys]
    if faults:
        raise UserError(f"{path} does not fit {type(module).__name__}: {'; '.join(faults)}")
    module.load_state_dict(tensors, strict=True, assign=assign)


def _few(keys: list[str]) -> str:
    return f"{', '.join(keys[:5])}{' …' if len(keys) > 5 else ''}"
