"""PASCAL VOC 2012; its test labels are not public. `benchmark/data/voc.py` reads it. SBD has masks for its images."""

from __future__ import annotations

from pathlib import Path

from benchmark.data import sbd, voc
from benchmark.data.findings import Finding
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Presence

NAME = "voc2012"
HOME = "VOCdevkit/VOC2012"
SPLITS = {"train": (5_717, 20), "val": (5_823, 20), "trainval": (11_540, 20)}
LABELS = Presence
ALSO_CALLED: tuple[str, ...] = ()


def read(data_root: Path, split: str) -> ImageSet:
    return voc.read_classification(data_root, "2012", split)


def check(data_root: Path) -> list[Finding]:
    return voc.check_year(data_root, "2012") + sbd.check(data_root)
