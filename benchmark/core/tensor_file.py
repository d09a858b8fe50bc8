"""Tensors in a file that says what it is: safetensors with JSON metadata of a stated format. Nothing in it can run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from benchmark.core.errors import UserError, remedy
from benchmark.core.files import write_whole


@dataclass(frozen=True)
class Format:
    """kind: of file, e.g. "backbone". keys: exactly those that its metadata has, besides the format's name."""

    kind: str
    version: int
    keys: frozenset[str]

    @property
    def name(self) -> str:
        return f"sslbench-{self.kind}-{self.version}"


def write_tensors(path: Path, form: Format, tensors: Mapping[str, torch.Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and JSON-ready facts. The file appears whole or not at all."""
    # copies, since safetensors refuses two names for one memory, which tied weights are
    kept = {key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()}
    metadata = {"sslbench": json.dumps({"format": form.name, **facts}, sort_keys=True)}
    write_whole(path, save(kept, metadata))


def read_tensors(path: Path, form: Format, *, weights: bool = True) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors, none of them without `weights`; facts). Raises UserError for a file of another format, or of none."""
    try:
        path.open("rb").close()  # safetensors says of every error that there is no such file
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()} if weights else {}  # noqa: SIM118 - no dict
    except OSError as error:  # the file may be sound
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {remedy(error)}") from error
    except SafetensorError as error:
        raise UserError(
            f"{path}: not a safetensors file ({error}). Pickled checkpoints are not opened, since opening one can run "
            "any code; `sslbench import` takes the weights out of other projects' files"
        ) from error
    if "sslbench" not in metadata:
        raise UserError(f"{path}: no sslbench metadata, so what it holds is unknown; another program wrote it")
    try:
        facts = json.loads(metadata["sslbench"])
    except ValueError as error:
        raise UserError(f"{path}: its metadata is not JSON ({error}); pretrain again") from error
    is_ours = isinstance(facts, dict) and facts.get("format") == form.name and facts.keys() == {"format", *form.keys}
    if not is_ours:
        found = sorted(facts.items()) if isinstance(facts, dict) else facts
        raise UserError(f"{path}: not a {form.kind} file of format {form.name} but {str(found)[:80]}; pretrain again")
    return tensors, facts
