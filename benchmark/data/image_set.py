"""The contract between the readers of on-disk layouts and everything that looks at images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmark.data.images import open_rgb


@dataclass(frozen=True)
class ImageSet:
    """Image files in a fixed order, with labels where the layout has them.

    name:    "imagenet/train": dataset and split, as `open_dataset` takes them.
    root:    the folder that `files` are relative to.
    files:   POSIX paths below `root`; an image inside a zip is written "AA/BBB.zip/CCC.jpg".
    labels:  None; (N,) int64 class indices; or (N, C) int64 of VOC presence codes 1 present, 0 absent, -1 ignored.
    classes: class names, in index order; empty when there are no labels.
    """

    name: str
    root: Path
    files: Sequence[str]
    labels: np.ndarray | None
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def open(self, index: int) -> Image.Image:
        """The image as 8-bit RGB, EXIF orientation ignored. Raises UserError naming the file if it cannot be decoded."""
        return open_rgb(self.root, self.files[index])

    def subset(self, indices: Sequence[int] | np.ndarray, suffix: str) -> ImageSet:
        """The images at `indices`, in that order, named e.g. "imagenet/train[10%]"."""
        indices = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            name=f"{self.name}[{suffix}]",
            files=[self.files[i] for i in indices],
            labels=None if self.labels is None else self.labels[indices],
        )

    def without_labels(self) -> ImageSet:
        """What pretraining sees: the same images, no labels."""
        return replace(self, labels=None, classes=())

    def fingerprint(self) -> str:
        """Twelve hex digits over names, order, labels and file sizes: changes when the data does, cheap enough for
        1.28 million files because no pixel is read."""
        digest = hashlib.sha256(self.name.encode())
        for file in self.files:
            path = self.root / file
            size = path.stat().st_size if path.is_file() else -1  # members of a zip have no size of their own here
            digest.update(f"{file}\0{size}\n".encode())
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels, dtype=np.int64).tobytes())
        return digest.hexdigest()[:12]
