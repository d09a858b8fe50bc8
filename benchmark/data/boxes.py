"""Images with their objects, for detectors: boxes of VOC, boxes and masks of COCO."""

from __future__ import annotations

from pathlib import Path

from benchmark.data import coco, voc
from benchmark.data.annotation import Annotated
from benchmark.data.datasets import open_dataset, without_unreadable
from benchmark.data.image_set import ImageSet


def read_boxes(data_root: Path, name: str, split: str) -> Annotated:
    """A split of VOC, e.g. "voc2007", "trainval". UserError for an annotation that is missing, does not parse, or has a
    box that is empty or wholly outside its image."""
    home, year = data_root / voc.HOME, name.removeprefix("voc")
    opened = open_dataset(data_root, name, split)
    annotations = [voc.annotation(home, year, Path(file).stem) for file in opened.files]
    files = [f"VOC{year}/{file}" for file in opened.files]
    images = ImageSet(f"{name}/{split}", home, files, skipped=opened.skipped)
    return Annotated(images, tuple(annotations), voc.CLASSES, voc.UNPACK)


def read_instances(data_root: Path, name: str, split: str) -> Annotated:
    """A split of COCO, with masks. Raises UserError as `coco.read_listing` does."""
    listing = coco.read_listing(data_root, split)
    images = without_unreadable(listing.images().without_labels(), lambda _: None)
    annotations = tuple(listing.annotations[file] for file in images.files)
    return Annotated(images, annotations, listing.classes, coco.unpack(split))
