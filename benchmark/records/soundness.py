"""Can these numbers be? What a record says of itself must hold together, and fit the card of its protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmark.core.plain import fits
from benchmark.records.record import Record


def faults(record: Record, units: Mapping[str, str]) -> Iterator[str]:
    """What cannot be. units: metric -> unit, of the protocol's card, the headline first."""
    if record.metrics.keys() != units.keys():
        yield f"has the metrics {sorted(record.metrics)}, its protocol {sorted(units)}"
    for metric, value in record.metrics.items():
        if units.get(metric) == "%" and not 0 <= value <= 100:
            yield f"{metric} is {value:g}, and no percentage"
        if units.get(metric) == "%" and 0 < value <= 1 and max(record.per_stage.values(), default=0) > 1:
            yield f"{metric} is {value:g}: a fraction, while its stages have percentages"
    if not fits(record.origin.get("losses", {}), dict[str, float]):
        yield "the losses of its origin are no numbers by name"
    selected = record.detail.get("selected")
    stage = selected.get("stage") if isinstance(selected, dict) else None
    headline = next(iter(units), "")
    if stage in record.per_stage and headline in record.metrics:
        found, own = record.metrics[headline], record.per_stage[stage]
        if found != own:
            yield f"{headline} is {found:g}, but the selected stage {stage} has {own:g}"
