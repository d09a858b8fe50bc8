"""What the numbers of a metric are, so that records and the gate can judge them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmark.core.errors import UserError
from benchmark.core.plain import is_number


@dataclass(frozen=True)
class Metric:
    """unit: as papers print it; "" for a plain number. range: the least and the most that it can be. higher: whether
    more is better."""

    unit: str = ""
    range: tuple[float, float] = (-math.inf, math.inf)
    higher: bool = True

    def __post_init__(self) -> None:
        numbers = isinstance(self.range, tuple) and len(self.range) == 2 and all(map(is_number, self.range))
        if not numbers or not self.range[0] < self.range[1]:
            raise UserError(f"Metric: its range goes from the least to the most, not {self.range!r}")
        if not isinstance(self.higher, bool):
            raise UserError(f"Metric: higher is True or False, not {self.higher!r}")


PERCENT = Metric("%", (0.0, 100.0))
