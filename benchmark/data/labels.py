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
        shape, given = self.values.shape, self.values.dtype.name
        if len(shape) != self.ndim or (self.ndim == 2 and shape[1] != len(self.names)) or given not in self.types:
            wanted = f"{type(self).__name__} are {self.what}, {' or '.join(self.types)}"
            raise UserError(f"{wanted}; {given} {shape} does not fit {len(self.names)} names")

    def at(self, places: np.ndarray) -> Self:
        """Those of the images at `places`, in that order."""
        return replace(self, values=self.values[places])


@dataclass(frozen=True)
class Classes(Labels):
    """values: (N,) int64, indices of names."""

    what = "one class an image, (N,)"
    ndim = 1


@dataclass(frozen=True)
class Presence(Labels):
    """values: (N, C) int64 of VOC's meanings: 1 the class is present, 0 absent, -1 not to be judged."""

    what = "presence of each class, (N, classes)"


@dataclass(frozen=True)
class Factors(Labels):
    """values: (N, F) of what an image was made from, e.g. its object's pose: int64 where each is one of so many values,
    counted from 0, else float32."""

    what = "values of each factor, (N, factors)"
    types = ("int64", "float32")
