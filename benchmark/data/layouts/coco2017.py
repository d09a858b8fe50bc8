"""COCO 2017; labels of its test images are not public. `benchmark/data/coco.py` reads it.

coco/annotations/instances_{train,val}2017.json
coco/{train,val}2017/000000391895.jpg …
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmark.data.annotation import check_stated_size
from benchmark.data.coco import HOME, NAME, Listing, annotation_file, read_listing, unpack
from benchmark.data.findings import BadData, Finding, first, from_error
from benchmark.data.image_set import ImageSet
from benchmark.data.images import image_size
from benchmark.data.labels import Presence

__all__ = ["ALSO_CALLED", "HOME", "LABELS", "NAME", "SPLITS", "check", "read"]

SPLITS = {"train": (118_287, 80), "val": (5_000, 80)}
LABELS = Presence
ALSO_CALLED: tuple[str, ...] = ("coco2017", "MSCOCO")


def read(data_root: Path, split: str) -> ImageSet:
    return read_listing(data_root, split).images()


def check(data_root: Path) -> list[Finding]:
    """Every image must be as large as its entry says; empty boxes are counted."""
    findings: list[Finding] = []
    for split in SPLITS:
        with suppress(BadData):  # the doctor has reported it already, when it read the split
            listing = read_listing(data_root, split)
            errors = [from_error(error, f"{NAME}/{split}") for error in _of_another_size(listing)]
            findings += first(errors, f"{NAME}/{split}", listing.home, unpack(split))
            findings += _empty_boxes(listing, annotation_file(data_root, split))
    return findings


def _of_another_size(listing: Listing) -> Iterator[BadData]:
    for file, annotation in listing.annotations.items():
        size = image_size(listing.home / file)
        try:
            if size:
                check_stated_size(listing.home / file, size, annotation.size, unpack(listing.split))
        except BadData as error:
            yield error


def _empty_boxes(listing: Listing, path: Path) -> list[Finding]:
    boxes = np.concatenate([annotation.boxes for annotation in listing.annotations.values()])
    empty = int((boxes[:, 2:] <= boxes[:, :2]).any(axis=1).sum())
    if not empty:
        return []
    what = f"{empty:,} of {len(boxes):,} boxes are empty and not trained on; the real train2017 has two such boxes"
    return [Finding("note", f"{NAME}/{listing.split}", str(path), what)]
