"""What loss is normal at the end of a run, and on its way there: that of published runs of the same recipe.

Records keep the mean losses of the last epoch and of each part of the run. Older records have the first alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError
from benchmark.engine.watch import PublishedLosses
from benchmark.recipe.contract import Recipe, recipe_hash
from benchmark.records.folders import record_files
from benchmark.records.record import read_record
from benchmark.runs.current import pretraining_fingerprint
from benchmark.runs.run import Run
from benchmark.tables.ledger import LEADERBOARDS


def published_losses(run: Run, recipe: Recipe, measured: Path = LEADERBOARDS / "measured") -> PublishedLosses:
    """Of published runs with the settings of `recipe` (as resolved) and on the same data."""
    origins = _origins(measured / run.scale / run.name, recipe_hash(recipe))
    data = pretraining_fingerprint(run, recipe) if origins else ""
    alike = [origin for origin in origins if origin.get("data_fingerprint") == data]
    return PublishedLosses(_by_name(alike, "losses"), _by_name(alike, "loss_course"))


def _by_name(origins: Sequence[Mapping[str, Any]], kept_as: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for origin in origins:
        for name, value in origin.get(kept_as, {}).items():
            found[name].append(value)
    return dict(found)


def _origins(folder: Path, settings: str) -> list[dict[str, Any]]:
    """Of the published backbones of one recipe, by seed; those that ran with other settings are left out."""
    found: dict[str, dict[str, Any]] = {}
    for path in record_files(folder.glob("*/seed*.json")):
        if path.stem in found:  # all transfers of a seed scored one backbone
            continue
        try:
            record = read_record(path)
        except UserError:
            continue  # that it is not sound is for `sslbench check` to say
        if record.recipe_hash == settings:
            found[path.stem] = record.origin
    return [found[seed] for seed in sorted(found)]
