"""VOC images with their objects' boxes, for detectors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmark.data import voc
from benchmark.data.datasets import open_dataset
from benchmark.data.findings import bad
from benchmark.data.image_set import ImageSet


@dataclass(frozen=True)
class Annotated:
    """images: without labels; their files are below VOCdevkit. annotations: one for each of them."""

    images: ImageSet
    annotations: tuple[voc.Annotation, ...]

    def __len__(self) -> int:
        return len(self.images)

    def with_objects(self) -> Annotated:
        """Only the images that show at least one object, difficult or not."""
        kept = [index for index, one in enumerate(self.annotations) if len(one.boxes)]
        if not kept:
            raise bad(self.images.root, f"no image of {self.images.name} shows an object", voc.UNPACK)
        images = self.images.subset(kept, "with objects")
        return Annotated(images, tuple(self.annotations[index] for index in kept))

    def check_size(self, index: int, size: tuple[int, int]) -> None:
        """UserError if the image's size, (width, height), is not the one its annotation states."""
        voc.check_stated_size(self.images.root / self.images.files[index], size, self.annotations[index].size)

    def fingerprint(self) -> str:
        """Like ImageSet.fingerprint, with every box as well."""
        digest = hashlib.sha256(self.images.fingerprint().encode())
        for one in self.annotations:
            for values in (one.boxes, one.labels, one.difficult):
                digest.update(np.ascontiguousarray(values).tobytes() + b"\n")
        return digest.hexdigest()[:12]


def read_boxes(data_root: Path, name: str, split: str) -> Annotated:
    """A split of VOC, e.g. "voc2007", "trainval". UserError for an annotation that is missing, does not parse, or has a
    box that is empty or wholly outside its image."""
    home, year = data_root / voc.HOME, name.removeprefix("voc")
    files = open_dataset(data_root, name, split).files
    annotations = [voc.annotation(home, year, Path(file).stem) for file in files]
    images = ImageSet(f"{name}/{split}", home, [f"VOC{year}/{file}" for file in files], None, ())
    return Annotated(images, tuple(annotations))


def joined(parts: Sequence[Annotated]) -> Annotated:
    """Several splits as one set, in the order given."""
    images = replace(
        parts[0].images,
        name=" + ".join(part.images.name for part in parts),
        files=[file for part in parts for file in part.images.files],
    )
    return Annotated(images, tuple(one for part in parts for one in part.annotations))
