"""What detectors learn from and are scored on: the objects of every image, whichever dataset they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmark.data.findings import bad
from benchmark.data.image_set import ImageSet


@dataclass(frozen=True)
class Annotation:
    """The objects of one image.

    boxes:   (M, 4) float32 x1, y1, x2, y2: 0-based and half-open, so a width is x2 - x1. Within the image.
    labels:  (M,) int64 positions in the set's classes.
    ignored: (M,) bool; detection neither rewards nor punishes finding these: VOC's difficult objects, COCO's crowds.
    size:    width, height.
    masks:   empty if the dataset has none, else one entry per object: its polygons, (K, 2) float32 x, y. A crowd has
             one array (L,) int64 instead, the lengths of runs of 0 and 1 in turn, down the columns.
    proposals: (P, 4) float32 boxes where objects may be, for detectors that are given them; None for all others.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    size: tuple[int, int]
    masks: tuple[tuple[np.ndarray, ...], ...] = ()
    proposals: np.ndarray | None = None

    def subset(self, kept: np.ndarray) -> Annotation:
        """The objects where `kept` (M,) bool is true."""
        masks = tuple(mask for mask, keep in zip(self.masks, kept, strict=True) if keep) if self.masks else ()
        return replace(self, boxes=self.boxes[kept], labels=self.labels[kept], ignored=self.ignored[kept], masks=masks)


@dataclass(frozen=True)
class Annotated:
    """images: without labels. annotations: one for each of them. classes: names, by label. fix: what to do if the data
    is wrong."""

    images: ImageSet
    annotations: tuple[Annotation, ...]
    classes: tuple[str, ...]
    fix: str

    def __len__(self) -> int:
        return len(self.images)

    def with_objects(self) -> Annotated:
        """Only the images that show at least one object, ignored or not."""
        kept = [index for index, one in enumerate(self.annotations) if len(one.boxes)]
        if not kept:
            raise bad(self.images.root, f"no image of {self.images.name} shows an object", self.fix)
        images = self.images.subset(kept, "with objects")
        return replace(self, images=images, annotations=tuple(self.annotations[index] for index in kept))

    def without_ignored(self) -> Annotated:
        """The same images, without ignored objects and without those whose box is empty, as two of COCO's are."""
        wide = [(one.boxes[:, 2:] > one.boxes[:, :2]).all(axis=1) for one in self.annotations]
        kept = zip(self.annotations, wide, strict=True)
        return replace(self, annotations=tuple(one.subset(~one.ignored & holds) for one, holds in kept))

    def check_size(self, index: int, size: tuple[int, int]) -> None:
        """UserError if the image's size, (width, height), is not the one its annotation states."""
        check_stated_size(self.images.root / self.images.files[index], size, self.annotations[index].size, self.fix)

    def fingerprint(self) -> str:
        """Like ImageSet.fingerprint, with every box, mask and proposal as well."""
        digest = hashlib.sha256(self.images.fingerprint().encode())
        for one in self.annotations:
            for values in (one.boxes, one.labels, one.ignored):
                digest.update(np.ascontiguousarray(values).tobytes() + b"\n")
            for mask in one.masks:
                digest.update(b"mask of %d\n" % len(mask))
                for part in mask:
                    digest.update(b"%d " % len(part) + np.ascontiguousarray(part).tobytes())
            if one.proposals is not None:
                digest.update(b"%d proposed" % len(one.proposals) + np.ascontiguousarray(one.proposals).tobytes())
        return digest.hexdigest()[:12]


def joined(parts: Sequence[Annotated]) -> Annotated:
    """Several splits as one set, in the order given."""
    images = replace(
        parts[0].images,
        name=" + ".join(part.images.name for part in parts),
        files=[file for part in parts for file in part.images.files],
    )
    return replace(parts[0], images=images, annotations=tuple(one for part in parts for one in part.annotations))


def check_stated_size(path: Path, size: tuple[int, int], stated: tuple[int, int], fix: str) -> None:
    """UserError if an image's size, (width, height), is not the one its annotation states."""
    if size != stated:
        what = f"is {size[0]} × {size[1]}, but its annotation says {stated[0]} × {stated[1]}"
        raise bad(path, what, fix)
