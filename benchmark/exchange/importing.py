"""From another project's file to a backbone of ours, which loads strictly and says where it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.backbones.contract import Backbone
from benchmark.backbones.weights import load_strictly, read_facts
from benchmark.core.errors import UserError
from benchmark.core.plain import as_plain
from benchmark.core.provenance import commit, versions
from benchmark.exchange.contents import read_contents, tensors_of
from benchmark.exchange.contract import Place, State, WeightsFormat, plain_resnet
from benchmark.exchange.formats import find_formats, get_format
from benchmark.exchange.spelling import spelled_out
from benchmark.exchange.taken import Taken, elsewhere_in
from benchmark.recipe.inputs import RGB, InputSpec

AUTO, MAPPED = "auto", "mapped"
COUNTER, MEAN = "num_batches_tracked", "running_mean"


@dataclass(frozen=True)
class Wanted:
    """What the user says of the file.

    format: a format's name, or AUTO.
    maps:   instead, renames of whole keys: prefix -> what takes its place, to come to torchvision's names of a ResNet.
    bgr:    the network was trained on blue, green, red.
    size:   side in pixels of the images that it is given.
    """

    format: str = AUTO
    maps: tuple[tuple[str, str], ...] = ()
    bgr: bool = False
    size: int = 224


def parse_maps(words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(prefix, what takes its place) of each PREFIX=NEW; NEW may be empty. Raises UserError for anything else."""
    pairs = [word.partition("=") for word in words]
    if wrong := [word for word, (prefix, equals, _) in zip(words, pairs, strict=True) if not (prefix and equals)]:
        raise UserError(f"--map takes PREFIX=NEW, e.g. --map 'state_dict.encoder.=', not {wrong[0]!r}")
    return tuple((prefix, new) for prefix, _, new in pairs)


def import_backbone(path: Path, wanted: Wanted) -> tuple[Backbone, dict[str, Any]]:
    """(the network of the file in evaluation mode, its origin as a backbone file has it). Raises UserError, naming the
    file, for one that cannot be read, that no format or several fit, or whose network is none of those here."""
    contents, digest = read_contents(path)
    taken = _mapped(contents, path, wanted.maps) if wanted.maps else _formatted(contents, path, wanted.format)
    network = taken.network
    if wanted.bgr and not isinstance(network.colour, RGB):
        raise UserError(f"--bgr: {path} is of {type(network.colour).__name__}, which has no order of colours to turn")
    if hollow := _hollow(network.weights):
        raise UserError(f"{path}: {hollow} claims more numbers than are stored; the file is damaged, or meant to be")
    weights, filled = _filled({key: _cast(tensor) for key, tensor in network.weights.items()})
    with torch.device("meta"):  # what does not fit is told before memory is asked for
        backbone = network.architecture.build(InputSpec(wanted.size, network.colour))
    load_strictly(backbone, weights, path, assign=True)
    if wild := [key for key, tensor in weights.items() if not tensor.isfinite().all()]:
        raise UserError(f"{path}: not finite: {', '.join(wild[:5])}; the file is damaged, or its training diverged")
    if wanted.bgr:
        _turn_colours(backbone)
    return backbone.eval(), _origin(path, digest, taken, wanted, filled)


def replaced(path: Path, origin: Mapping[str, Any]) -> str:
    """What to say before the backbone file at `path` gives way to one of another origin; "" if there is none."""
    if not path.is_file():
        return ""
    try:
        before = read_facts(path)["origin"]
    except UserError:
        return f"{path} was there before, and was no backbone file; it is replaced"
    if before.get("recipe_hash") == origin["recipe_hash"]:
        return ""
    told = f"{before.get('file')}, format {before.get('format')}, SHA-256 {str(before.get('sha256'))[:12]}"
    return f"{path} had other weights, of {told}; they are replaced"


def _formatted(contents: Mapping[str, Any], path: Path, name: str) -> Taken:
    known = find_formats() if name == AUTO else {name: get_format(name)}
    if refused := [f"{name}: {why}" for name, one in known.items() if (why := one.refuses(contents))]:
        raise UserError(f"{path}: cannot be imported: {spelled_out('; '.join(refused))}")
    fitting = [one for one, form in known.items() if form.fits(contents)] if name == AUTO else [name]
    places = {one: place for one in fitting if (place := known[one].place_in(contents))}
    if not places:
        raise UserError(f"{path}: {_unknown(contents, known, name)}")
    first, *others = (_taken(one, known[one], place, contents, path) for one, place in places.items())
    if different := {what: None for other in others for what in first.unlike(other)}:
        raise UserError(
            f"{path}: fits several formats: {', '.join(fitting)}. They differ in {' and '.join(different)}; "
            f"say which it is, e.g. --format {fitting[0]}"
        )
    return first


def _taken(name: str, form: WeightsFormat, place: Place, contents: Mapping[str, Any], path: Path) -> Taken:
    state = place.state(contents)
    inside = {key.removeprefix(place.prefix): one for key, one in state.items() if key.startswith(place.prefix)}
    return Taken(name, state, elsewhere_in(contents, place.keys), form.network(inside, path))


def _unknown(contents: Mapping[str, Any], known: Mapping[str, WeightsFormat], name: str) -> str:
    """What to say of a file that is of no format, or not of the one that was asked for."""
    keys = [key for key, _ in tensors_of(contents)]
    if not keys:
        return "holds no tensor under a name, so no weights; save the network's state_dict() and import that"
    nearly = [one for one, form in known.items() if form.place_in(contents) and name == AUTO]
    of = f"not of format {name}" if name != AUTO else f"of none of the formats {', '.join(known)}"
    near = f"; --format {nearly[0]} takes it all the same, without what is beside the network" if nearly else ""
    shown = ", ".join(keys[:6])
    prefix = keys[0].removesuffix("conv1.weight")
    return (
        f"{of}. Its first keys: {shown}{near}. For a layout of your own, say which prefixes lead to torchvision's "
        f"names of a ResNet: --map '{prefix if prefix != keys[0] else 'PREFIX.'}=', once for each prefix"
    )


def _mapped(contents: Mapping[str, Any], path: Path, maps: Sequence[tuple[str, str]]) -> Taken:
    state = dict(tensors_of(contents))
    renamed: dict[str, Tensor] = {}
    for prefix, new in maps:
        found = {new + key.removeprefix(prefix): one for key, one in state.items() if key.startswith(prefix)}
        if not found:
            raise UserError(f"--map {prefix}={new}: no key of {path} begins so; its first: {', '.join([*state][:6])}")
        if twice := sorted(renamed.keys() & found.keys()):
            raise UserError(f"--map {prefix}={new}: {twice[0]} is there already, by another --map")
        renamed |= found
    return Taken(MAPPED, state, {}, plain_resnet(renamed, path))


def _hollow(weights: State) -> str:
    """The first of the weights by which they are more than what is stored, or "". Strides of 0 make any number of
    numbers of one, and so does one storage under many names."""
    seen: set[int] = set()
    left = 0
    for key, tensor in weights.items():
        whole = tensor.untyped_storage()
        left += 0 if whole.data_ptr() in seen else whole.nbytes()
        seen.add(whole.data_ptr())
        left -= tensor.numel() * tensor.itemsize
        if left < 0:
            return key
    return ""


def _cast(tensor: Tensor) -> Tensor:
    """Floating point to fp32: half precision loses nothing by it."""
    return (tensor.detach().float() if tensor.is_floating_point() else tensor.detach()).contiguous()


def _filled(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """(the weights with BatchNorm's counters, how many were missing): torch before 0.4.1 and other libraries have none,
    and nothing here reads them."""
    wanted = [f"{key.removesuffix(MEAN)}{COUNTER}" for key in weights if key.endswith(MEAN)]
    missing = {key: torch.tensor(0) for key in wanted if key not in weights}
    return {**weights, **missing}, len(missing)


def _turn_colours(backbone: Backbone) -> None:
    """conv1's input channels the other way round: what took blue first takes red first."""
    first = next(module for module in backbone.modules() if isinstance(module, torch.nn.Conv2d))
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1))


def _origin(path: Path, digest: str, taken: Taken, wanted: Wanted, filled: int) -> dict[str, Any]:
    """`resolved` and its hash say what decides the weights and their input, as a recipe does for a run."""
    decides = {
        "imported": {
            "format": taken.format,
            "sha256": digest,
            "maps": dict(wanted.maps),
            "bgr": wanted.bgr,
        },
        "backbone": as_plain(taken.network.architecture),
        "input": as_plain(InputSpec(wanted.size, taken.network.colour)),
    }
    return {
        "recipe_hash": hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12],
        "resolved": decides,
        "file": path.name,
        "format": taken.format,
        "sha256": digest,
        "counters_filled": filled,
        "dropped": taken.dropped,
        "made_by": {"commit": commit(), "versions": versions()},
    }
