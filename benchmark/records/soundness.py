"""Can these numbers be true? What a record says of itself must hold together, and fit the card of its protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmark.core.plain import fits
from benchmark.records.metric import Metric
from benchmark.records.record import Record


def faults(record: Record, metrics: Mapping[str, Metric]) -> Iterator[str]:
    """What cannot be true. metrics: those of the protocol's card, the headline first."""
    if record.metrics.keys() != metrics.keys():
        yield f"has the metrics {sorted(record.metrics)}, but its protocol gives {sorted(metrics)}"
    for metric, value in record.metrics.items():
        kind = metrics.get(metric, Metric())
        low, high = kind.range
        if not low <= value <= high:
            yield f"{metric} is {value:g}, and it can only be {low:g} to {high:g}"
        if kind.unit == "%" and 0 < value <= 1 and max(record.per_stage.values(), default=0) > 1:
            yield f"{metric} is {value:g}: a fraction, while its stages have percentages"
    if not fits(record.origin.get("losses", {}), dict[str, float]):
        yield "the losses in its origin are not numbers by name"
    selected = record.detail.get("selected")
    stage = selected.get("stage") if isinstance(selected, dict) else None
    headline = next(iter(metrics), "")
    if stage in record.per_stage and headline in record.metrics:
        found, own = record.metrics[headline], record.per_stage[stage]
        if found != own:
            yield f"{headline} is {found:g}, but the selected stage {stage} has {own:g}"
