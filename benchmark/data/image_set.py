"""The contract between the readers of on-disk layouts and everything that looks at images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from benchmark.core.errors import UserError
from benchmark.data.images import content_hash, file_size, open_as_stored, open_rgb
from benchmark.data.labels import Labels
from benchmark.data.names import Names, pick

SIZES_SAMPLED = 1000
Kind = TypeVar("Kind", bound=Labels)


@dataclass(frozen=True)
class ImageSet:
    """Image files in a fixed order, with labels where the layout has them.

    name:    "imagenet/train": dataset and split, as `open_dataset` takes them.
    root:    the folder that `files` are relative to.
    files:   POSIX paths below `root`; an image inside a zip is written "AA/BBB.zip/CCC.jpg". May be lazy (`names.py`).
    labels:  Classes, Presence or Factors (`labels.py`).
    skipped: what the reader passed over, counted and named for people: "3 hidden file(s) or folder(s): .DS_Store, …".
             Not part of the fingerprint, which says what was read.
    unreadable: files left out because they are listed as unreadable, so that a list of images may still name them.
    together: so many files in a row are one thing, such as the two patches of a track: none of them is left out alone.
    maps:    what is known of every pixel, such as its depth: kind -> from an image's file to the file of its map.
    by_content: whether the fingerprint goes by what files hold, too, because nobody else's are called as these are.
    """

    name: str
    root: Path
    files: Sequence[str]
    labels: Labels | None = None
    skipped: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    together: int = 1
    maps: Mapping[str, Callable[[str], str]] = field(default_factory=dict)
    by_content: bool = False

    def __post_init__(self) -> None:
        if self.labels is not None and len(self.labels.values) != len(self.files):
            raise UserError(f"{self.name}: {len(self.files)} files, but {len(self.labels.values)} labels")

    def __len__(self) -> int:
        return len(self.files)

    @property
    def classes(self) -> tuple[str, ...]:
        """What the labels' numbers stand for, in order; empty when there are no labels."""
        return () if self.labels is None else self.labels.names

    def labelled(self, kind: type[Kind]) -> Kind:
        """The labels. Raises UserError where they are of another kind, or where there are none."""
        if not isinstance(self.labels, kind):
            found = "has no labels" if self.labels is None else f"has labels of {self.labels.what}"
            raise UserError(f"{self.name} {found}; what reads it needs {kind.what}")
        return self.labels

    def open(self, index: int) -> Image.Image:
        """The image as 8-bit RGB, EXIF orientation ignored. Raises UnreadableImage, a UserError naming the file."""
        return open_rgb(self.root, self.files[index])

    def open_map(self, kind: str, index: int) -> Image.Image:
        """One of the image's maps as it is stored, with all its bits. Raises UserError where there is none of the kind,
        UnreadableImage for one that cannot be read."""
        if kind not in self.maps:
            raise UserError(f"{self.name} has no maps of {kind!r}; it has {', '.join(self.maps) or 'none'}")
        return open_as_stored(self.root, self.maps[kind](self.files[index]))

    def subset(self, indices: Sequence[int] | np.ndarray, suffix: str) -> ImageSet:
        """The images at `indices`, in that order, named e.g. "imagenet/train[10%]". Raises UserError where they take
        apart what belongs together."""
        indices = np.asarray(indices, dtype=np.int64)
        if not np.array_equal(indices, self.whole(indices)):
            raise UserError(
                f"{self.name}: every {self.together} files in a row belong together; a part must keep all, in order"
            )
        return replace(
            self,
            name=f"{self.name}[{suffix}]",
            files=pick(self.files, indices),
            labels=None if self.labels is None else self.labels.at(indices),
        )

    def whole(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices` and those that belong together with them: their places, increasing."""
        if self.together == 1:
            return indices
        groups = np.unique(indices // self.together)
        return (groups[:, None] * self.together + np.arange(self.together)).ravel()

    def without_labels(self) -> ImageSet:
        """The same images, no labels."""
        return replace(self, labels=None)

    def fingerprint(self) -> str:
        """Twelve hex digits that change with the data: name, number, order and names of files, labels, classes, and
        the sizes of 1,000 files drawn by a fixed seed, with those of their maps. With `by_content`, what these files
        hold, too.

        Reading all sizes would take 1.28 million `stat` calls at the start of every run: minutes on a network disk. So
        this tells one dataset or version from another, but it is not a checksum, and a single replaced image can slip
        through. For lazy names (95 million), only the count and the names of the same 1,000 files are hashed.
        """
        sampled = np.arange(len(self))
        if len(self) > SIZES_SAMPLED:
            sampled = np.unique(np.random.default_rng(0).integers(0, len(self), SIZES_SAMPLED))
        digest = hashlib.sha256(f"{self.name}\0{len(self)}\0{self.classes}\n".encode())
        for i in sampled.tolist():
            digest.update(
                f"{i}\0{self.files[i]}\0{file_size(self.root, self.files[i])}\n".encode(errors="surrogateescape")
            )
            if self.by_content:
                digest.update(f"{content_hash(self.root, self.files[i])}\n".encode())
            for kind, map_of in self.maps.items():
                digest.update(f"{kind}\0{file_size(self.root, map_of(self.files[i]))}\n".encode())
        if not isinstance(self.files, Names):
            digest.update("\n".join(self.files).encode(errors="surrogateescape"))
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels.values).tobytes())
        return digest.hexdigest()[:12]
