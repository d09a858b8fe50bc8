"""How a row was pretrained, from its records: how long, for rows of one table should have had as much, and with labels
or without. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.optimisation import Epochs, Steps
from benchmark.core.plain import from_plain
from benchmark.records.record import Record

COUNTED = "Pretraining counts an image once a step, however many views or rotations of it a method takes."


def budgets(records: Iterable[Record]) -> str:
    """Of one row at one scale: one, unless its records came from several."""
    return " or ".join(filter(None, dict.fromkeys(_budget(record) for record in records)))


def _budget(record: Record) -> str:
    """Epochs or steps, and the images that these came to; empty where the record does not say. An image is counted
    once a step, in however many views, and those of a recipe that it comes after are not counted here."""
    settings = record.settings
    try:
        length = from_plain(settings.get("length"), {"Epochs": Epochs, "Steps": Steps})
    except UserError:
        return ""
    num_images, batches = record.origin.get("num_images"), _batch_sizes(settings)
    if not isinstance(length, Epochs | Steps) or not isinstance(num_images, int) or not min(batches):
        return ""
    steps = length.steps(max(num_images // batches[0], 1)) if len(set(batches)) == 1 else 0
    parts = [f"{length.epochs:g} epochs" if isinstance(length, Epochs) else f"{length.steps_total:,} steps"]
    parts += [f"{steps * sum(batches):,} images"] if steps else []
    if length in (Epochs(0), Steps(0)):
        parts = ["none"]
    after = settings.get("after")
    parts += [f"after {name}" for name in after.values()] if isinstance(after, dict) else []
    return ", ".join(parts)


def _batch_sizes(settings: dict[str, Any]) -> list[int]:
    """Of each pool. An epoch is one of the first, which a record no longer tells from the others."""
    own = [pool.get("batch_size") for pool in _pools(settings)]
    return [size or settings.get("batch_size") or 0 for size in own]


def has_labels(record: Record) -> bool:
    """Whether its pretraining was given labels, of any of its pools."""
    return any(pool.get("labels") is True for pool in _pools(record.settings))


def _pools(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One without anything where the record does not say."""
    data = settings.get("data")
    pools = [data] if not isinstance(data, dict) or "is" in data else data.values()
    return [pool if isinstance(pool, dict) else {} for pool in pools]
