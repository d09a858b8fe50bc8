"""What of a split differs from the real dataset, by the counts that its layout states."""

from __future__ import annotations

from benchmark.data.datasets import DATASETS
from benchmark.data.image_set import ImageSet


def shortfall(images: ImageSet) -> str:
    """For example "126,689 of 1,281,167 images, 100 of 1,000 classes"; empty for the complete dataset, for one that no
    layout reads, and for one that is never complete."""
    name, _, split = images.name.partition("/")
    if name not in DATASETS or split not in DATASETS[name].SPLITS:
        return ""
    if getattr(DATASETS[name], "COUNT_VARIES", False):
        return ""
    count, classes = DATASETS[name].SPLITS[split]
    return ", ".join(filter(None, [counted(len(images), count, "images"), _classes(images, classes)]))


def counted(there: int, complete: int, of_what: str) -> str:
    """For example "5 of 20 classes"; empty if none is missing and none too many."""
    return "" if there == complete else f"{there:,} of {complete:,} {of_what}"


def _classes(images: ImageSet, complete: int) -> str:
    return counted(len(images.classes), complete, "classes") if images.labels is not None else ""
