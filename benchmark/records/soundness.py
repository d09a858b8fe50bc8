"""Can these numbers be true? What a record says of itself must hold together, and fit the card of its protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmark.core.errors import UserError
from benchmark.core.plain import fits
from benchmark.records.metric import Metric
from benchmark.records.per_image import per_image
from benchmark.records.record import Record

CLOSE = 1e-3  # points: images are kept in single precision


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
    if not fits(record.origin.get("loss_course", {}), dict[str, list[float | None]]):
        yield "the loss_course in its origin is not lists of numbers by name"
    selected = record.detail.get("selected")
    stage = selected.get("stage") if isinstance(selected, dict) else None
    headline = next(iter(metrics), "")
    if stage in record.per_stage and headline in record.metrics:
        found, own = record.metrics[headline], record.per_stage[stage]
        if found != own:
            yield f"{headline} is {found:g}, but the selected stage {stage} has {own:g}"
    yield from _of_images(record)


def _of_images(record: Record) -> Iterator[str]:
    """What test images contribute must come to the score."""
    for name, value in (record.metrics | record.per_stage).items():
        try:
            images = per_image(record, name)
        except UserError as error:
            yield str(error)
            continue
        mean = value if images is None else float(images.mean())
        if abs(mean - value) > CLOSE:
            yield f"{name} is {value:g}, but its images come to {mean:g}"
