"""What is wrong with the classes of a user's own images, and with their parts train and val, for `sslbench doctor
--images`: what a run that is scored on them would refuse, and what would make its score wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmark.core.own_images import OWN_IMAGES
from benchmark.data.datasets import LAYOUTS, read_split
from benchmark.data.findings import BadData, Finding, from_error, some
from benchmark.data.image_set import ImageSet
from benchmark.data.layouts.own_images import NO_CLASSES, TREE
from benchmark.data.pairs import check_apart, check_classes, copies


def own_classes(source: Path) -> Iterator[Finding]:
    """Images without classes are only a note: pretraining needs none."""
    found: list[ImageSet] = []
    failures: list[Finding] = []
    for split in ("train", "val"):
        try:
            found.append(read_split(LAYOUTS[OWN_IMAGES], source, split))
        except BadData as error:
            failures.append(from_error(error, f"{OWN_IMAGES}/{split}"))
    if found and found[0].labels is None and all(one.message == NO_CLASSES for one in failures):
        yield _without_classes(found)
        return
    yield from failures
    for images in found:
        yield _counted(images)
    if len(found) == 2:
        yield from _disagreements(*found)


def _without_classes(found: Sequence[ImageSet]) -> Finding:
    train, *val = found
    if not val:
        what = "no classes, so nothing can be scored on them; `pretrain` and `features` take them as they are"
        return Finding("note", OWN_IMAGES, str(train.root), what, TREE)
    what = f"{train.name} has no classes and {val[0].name} has {len(val[0].classes):,}, so nothing can be scored"
    return Finding("error", OWN_IMAGES, str(train.root), what, TREE)


def _counted(images: ImageSet) -> Finding:
    classes = f", {len(images.classes):,} classes" if images.labels else ""
    return Finding("note", images.name, str(images.root), f"{len(images):,} images{classes}")


def _disagreements(train: ImageSet, val: ImageSet) -> Iterator[Finding]:
    try:
        check_classes(train, val)
        check_apart(train, val)
    except BadData as error:
        yield from_error(error, val.name)
        return
    if alone := [*train.labels.absent(), *val.labels.absent()] if train.labels and val.labels else []:
        what = f"{some(alone)}: too few images to train on some and be scored on others"
        yield Finding("warning", val.name, str(val.root), what, "Give each class two images or more, or remove it.")
    if pairs := copies(val, train):
        named = some([f"{file} = {other}" for file, other in pairs])
        what = f"{len(pairs):,} of {len(val):,} images have the same bytes as one of {train.name}: {named}"
        fix = "What is scored must not be trained on, or the score is too high: keep one of each two."
        yield Finding("warning", val.name, str(val.root), what, fix)
