"""What the numbers of a metric are, so that records, the gate and the tables can judge them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmark.core.errors import UserError


@dataclass(frozen=True)
class Metric:
    """unit: as papers print it; "" for a plain number. range: the least and the most that it can be. higher: whether
    more is better."""

    unit: str = ""
    range: tuple[float, float] = (-math.inf, math.inf)
    higher: bool = True

    def __post_init__(self) -> None:
        low, high = self.range
        if not low < high:
            raise UserError(f"Metric: its range goes from the least to the most, not {self.range!r}")


PERCENT = Metric("%", (0.0, 100.0))
