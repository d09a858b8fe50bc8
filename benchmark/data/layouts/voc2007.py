"""PASCAL VOC 2007; classification and detection labels of its test set are public. `benchmark/data/voc.py` reads it."""

from __future__ import annotations

from pathlib import Path

from benchmark.data import voc
from benchmark.data.findings import Finding
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Presence

NAME = "voc2007"
HOME = "VOCdevkit/VOC2007"
SPLITS = {"train": (2_501, 20), "val": (2_510, 20), "trainval": (5_011, 20), "test": (4_952, 20)}
LABELS = Presence
ALSO_CALLED: tuple[str, ...] = ()


def read(data_root: Path, split: str) -> ImageSet:
    return voc.read_classification(data_root, "2007", split)


def check(data_root: Path) -> list[Finding]:
    return voc.check_year(data_root, "2007")
