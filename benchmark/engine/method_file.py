"""The method file: the trained method whole, beside the backbone file, for transfers that ask for more than a backbone.

It holds weights and what the method was built from, and no code: the recipe's own class builds the method again, and
the weights must fit it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from benchmark.backbones.weights import build_described, describe, load_strictly
from benchmark.blocks.memory_bank import MemoryBank
from benchmark.core.errors import UserError
from benchmark.core.plain import as_plain, from_plain
from benchmark.core.tensor_file import Format, read_tensors, write_tensors
from benchmark.method import Method
from benchmark.recipe.contract import Recipe, Settings
from benchmark.recipe.pools import Given, Known

METHOD_FILE = Format("method", 1, frozenset({"settings", "backbone", "given", "before", "classes"}))


@dataclass(frozen=True)
class TrainedMethod:
    """method: in evaluation mode; what its memory banks held is not kept. classes: what its labels stood for, in index
    order. settings: the recipe's, which make the views that it was trained on."""

    method: Method
    classes: tuple[str, ...]
    settings: Settings


def save_method(path: Path, method: Method, recipe: Recipe, given: Given, classes: Iterable[str]) -> None:
    """classes: of the pool with labels. The file appears whole or not at all."""
    facts = {
        "settings": as_plain(recipe.method),
        "backbone": {"architecture": as_plain(recipe.backbone), "input": as_plain(recipe.input)},
        "given": as_plain(replace(given, backbones={})),
        "before": {name: describe(backbone) for name, backbone in given.backbones.items()},
        "classes": list(classes),
    }
    banks = _banks(method)
    write_tensors(path, METHOD_FILE, {k: v for k, v in method.state_dict().items() if k not in banks}, facts)


def load_method(path: Path, settings: type[Settings]) -> TrainedMethod:
    """settings: the recipe's class. Raises UserError, naming the file, unless every key, shape and dtype fits."""
    tensors, facts = read_tensors(path, METHOD_FILE)
    try:
        chosen = from_plain(facts["settings"], {settings.__name__: settings})
        given = from_plain(facts["given"], {"Given": Given, "Known": Known})
    except (UserError, AttributeError) as error:
        raise UserError(
            f"{path}: does not fit the recipe in this version of sslbench: {error}; pretrain again"
        ) from error
    with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten, and must not move what is drawn next
        before = {name: build_described(one, path) for name, one in facts["before"].items()}
        method = chosen.build(build_described(facts["backbone"], path), replace(given, backbones=before))
    own = method.state_dict()
    load_strictly(method, tensors | {name: own[name] for name in _banks(method)}, path)
    return TrainedMethod(method.eval(), tuple(facts["classes"]), chosen)


def classes_of(path: Path) -> tuple[str, ...]:
    """What the labels of the method of a file stood for; nothing where there is no file."""
    return tuple(read_tensors(path, METHOD_FILE, weights=False)[1]["classes"]) if path.is_file() else ()


def _banks(method: Method) -> set[str]:
    """Names of the state that has a row for every image: what a method remembers of its training, at ImageNet's size
    more than all its weights."""
    banks: dict[str, nn.Module] = {n: m for n, m in method.named_modules() if isinstance(m, MemoryBank)}
    return {f"{name}.{key}" for name, bank in banks.items() for key in bank.state_dict()}
