"""Kinds of numbers that settings are, which a dataclass's hints name: `tau: Positive = 0.07`. Imports no torch."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass, fields
from typing import Annotated, Any

from benchmark.core.errors import UserError
from benchmark.core.plain import hints_of


@dataclass(frozen=True)
class Bounds:
    """From `low` to `high`; `low` itself is one of them unless `above` says that all are more. Of a tuple this holds
    for every number, and `rising` for one after another."""

    low: float
    high: float = math.inf
    above: bool = False
    rising: bool = False

    def hold(self, value: Any) -> bool:
        numbers = value if isinstance(value, tuple) else (value,)
        if self.rising and list(numbers) != sorted(numbers):
            return False
        return all(self.low <= one <= self.high and not (self.above and one == self.low) for one in numbers)

    @property
    def words(self) -> str:
        least = f"more than {self.low:g}" if self.above else f"{self.low:g} or more"
        most = f", at most {self.high:g}" if self.high < math.inf else ""
        return least + most + (", the smaller one first" if self.rising else "")


@dataclass(frozen=True)
class OfImages:
    """The number is meant for as many images as the paper has, and of other data is the same share."""


@dataclass(frozen=True)
class Kept:
    """The number is of the last images, of which something is kept: with more than there are, some twice."""


Count = Annotated[int, Bounds(1)]
Counts = Annotated[tuple[int, ...], Bounds(1)]
Clusters = Annotated[int, Bounds(1), OfImages()]
ClustersOfEach = Annotated[tuple[int, ...], Bounds(1), OfImages()]
Queue = Annotated[int, Bounds(1), Kept()]
CountOrNone = Annotated[int, Bounds(0)]
Positive = Annotated[float, Bounds(0, above=True)]
NotNegative = Annotated[float, Bounds(0)]
Probability = Annotated[float, Bounds(0, 1)]
Area = Annotated[tuple[float, float], Bounds(0, 1, above=True, rising=True)]  # parts of an image, least and most
Jitter = Annotated[tuple[float, float, float, float], Bounds(0)]  # brightness, contrast, saturation, hue
Sigmas = Annotated[tuple[float, float], Bounds(0, above=True, rising=True)]  # of a blur, least and most


def check_bounds(instance: Any) -> None:
    """Raises UserError for a field outside of what its hint names. One of another type is told elsewhere."""
    hints = hints_of(type(instance), extras=True)
    for field in fields(instance):
        value = getattr(instance, field.name)
        for bounds in _bounds_of(hints[field.name]):
            if _is_numbers(value) and not bounds.hold(value):
                raise UserError(f"{type(instance).__name__}: {field.name} must be {bounds.words}, not {value!r}")


def of_images(kind: type) -> list[str]:
    """The fields of a dataclass whose numbers go with the number of images."""
    return _marked(kind, OfImages())


def queues(kind: type) -> list[str]:
    """The fields of a dataclass whose numbers should be no more than there are images."""
    return _marked(kind, Kept())


def _marked(kind: type, mark: object) -> list[str]:
    hints = hints_of(kind, extras=True)
    return [name for name, hint in hints.items() if mark in getattr(hint, "__metadata__", ())]


def _bounds_of(hint: Any) -> list[Bounds]:
    """Those of a hint, or of the kinds that it lets choose between, as `Positive | None` does."""
    kinds = (hint, *typing.get_args(hint))
    return [one for kind in kinds for one in getattr(kind, "__metadata__", ()) if isinstance(one, Bounds)]


def _is_numbers(value: Any) -> bool:
    return all(isinstance(one, int | float) for one in (value if isinstance(value, tuple) else (value,)))
