"""What a layout says of each image: its class, which classes it shows, or the values of what varies in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from benchmark.core.errors import UserError


@dataclass(frozen=True)
class Labels:
    """Base of the kinds. values: one row an image. names: what its numbers stand for."""

    values: np.ndarray
    names: tuple[str, ...]

    what: ClassVar[str]
    ndim: ClassVar[int] = 2
    types: ClassVar[tuple[str, ...]] = ("int64",)

    def __post_init__(self) -> None:
        shape, given = np.shape(self.values), getattr(self.values, "dtype", type(self.values).__name__)
        if len(shape) != self.ndim or (self.ndim == 2 and shape[1] != len(self.names)) or given not in self.types:
            wanted = f"{type(self).__name__} are {self.what}, {' or '.join(self.types)}"
            raise UserError(f"{wanted}; {given} {shape} does not fit {len(self.names)} names")
        if not self.make_sense():
            found = f"{self.values.min()} to {self.values.max()}"
            raise UserError(f"{type(self).__name__}: values from {found} mean nothing for {len(self.names)} names")

    def make_sense(self) -> bool:
        """Whether every value is one that the kind has."""
        raise NotImplementedError(f"{type(self).__name__}.make_sense")

    def at(self, places: np.ndarray) -> Self:
        """Those of the images at `places`, in that order."""
        return replace(self, values=self.values[places])

    def absent(self) -> tuple[str, ...]:
        """The names that no image has, where names are classes."""
        return ()


@dataclass(frozen=True)
class Classes(Labels):
    """values: (N,) int64, indices of names."""

    what = "one class an image, (N,)"
    ndim = 1

    def make_sense(self) -> bool:
        return self.values.min(initial=0) >= 0 and self.values.max(initial=-1) < len(self.names)

    def absent(self) -> tuple[str, ...]:
        counts = np.bincount(self.values, minlength=len(self.names))
        return tuple(name for name, count in zip(self.names, counts, strict=True) if not count)


@dataclass(frozen=True)
class Presence(Labels):
    """values: (N, C) int64 of VOC's meanings: 1 the class is present, 0 absent, -1 not to be judged."""

    what = "presence of each class, (N, classes)"

    def make_sense(self) -> bool:
        return self.values.min(initial=0) >= -1 and self.values.max(initial=0) <= 1

    def absent(self) -> tuple[str, ...]:
        there = (self.values == 1).any(axis=0)
        return tuple(name for name, one in zip(self.names, there, strict=True) if not one)


@dataclass(frozen=True)
class Factors(Labels):
    """values: (N, F) of what an image was made from, e.g. its object's pose: int64 where each is one of so many values,
    counted from 0, else float32."""

    what = "values of each factor, (N, factors)"
    types = ("int64", "float32")

    def make_sense(self) -> bool:
        counted = self.values.dtype == np.int64
        return bool(np.isfinite(self.values).all()) and not (counted and self.values.min(initial=0) < 0)
