"""Records: one file per (scale, recipe, seed, transfer) with its scores and everything that says what they are.

A record holds nothing that differs between two runs of the same thing, so the same run gives the same bytes. Where it
lies: benchmark.records.folders. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from benchmark.core.errors import UserError
from benchmark.core.plain import fits, in_words

FORMAT = "sslbench-record-1"


@dataclass(frozen=True)
class Record:
    """One measured result.

    settings:      the recipe as it ran, every value (benchmark.core.plain.as_plain).
    metrics:       metric -> value, in the units of the protocol's card.
    detail:        whatever else the transfer reports, for example scores per stage.
    transfer_data: what the protocol read: "dataset/split" -> fingerprint, the same for "… boxes" and "… masks", and
                   list file -> hash if there was one.
    origin:        what the backbone file says about its pretraining: data fingerprint, last losses, world size, and
                   what makes it another run on several processes than on one (Method.depends_on_processes) ...
    backbone_hash: of the backbone file's bytes.
    commit:        of this repository, "+dirty" when the code had uncommitted changes.
    versions:      of python and packages; "sslbench code" is a hash of the code itself, with git or without.
    device, threads: of the transfer; those of the pretraining are in origin["made_by"], with its commit and versions.

    Where a pretraining went on after these had changed, origin["made_by"]["stretches"] says from which step on which
    held; detail["kept_by"] says it of what a transfer found in the workspace. Older records have none of this.
    """

    recipe: str
    recipe_hash: str
    settings: dict[str, Any]
    scale: str
    seed: int
    transfer: str
    transfer_version: int
    metrics: dict[str, float]
    detail: dict[str, Any]
    transfer_data: dict[str, str]
    origin: dict[str, Any]
    backbone_hash: str
    commit: str
    versions: dict[str, str]
    device: str
    threads: int

    @property
    def path(self) -> Path:
        """Below the folder of runs."""
        return Path(self.scale, self.recipe, f"seed{self.seed}", f"{self.transfer}.json")

    @functools.cached_property
    def published_path(self) -> Path:
        """Below leaderboards/measured."""
        return Path(self.scale, self.recipe, self.transfer, f"seed{self.seed}.json")

    @property
    def per_stage(self) -> dict[str, float]:
        """Stage -> score, where the transfer scored several: of its headline metric."""
        found = self.detail.get("per_stage")
        stages = found if isinstance(found, dict) else {}
        return {stage: value for stage, value in stages.items() if type(value) in (int, float)}

    @property
    def hash(self) -> str:
        """Twelve hex digits of its content, however it is laid out on disk."""
        content = {name: getattr(self, name) for name in HINTS}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def to_bytes(self) -> bytes:
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


HINTS = get_type_hints(Record)


def read_record(path: Path) -> Record:
    """Read strictly: an unknown or missing key, a number that is not finite, or a value of another type is a UserError
    naming file and key."""
    try:
        content = json.loads(
            path.read_bytes(), parse_constant=_refuse_number, parse_float=_finite, object_pairs_hook=_once
        )
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or NaN
        raise UserError(f"{path}: not a record ({error}); delete it and run again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: not a record of format {FORMAT}; delete it and run again")
    del content["format"]
    faults = [f"{key!r} is missing" for key in HINTS.keys() - content.keys()]
    faults += [f"{key!r} is unknown" for key in content.keys() - HINTS.keys()]
    faults += [
        f"{key!r} is not {in_words(hint)}"
        for key, hint in HINTS.items()
        if key in content and not fits(content[key], hint)
    ]
    if faults:
        raise UserError(f"{path}: {'; '.join(sorted(faults))}")
    return Record(**content)


def _refuse_number(text: str) -> float:
    raise ValueError(f"{text} is not a score")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key is given twice")
    return content


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)
