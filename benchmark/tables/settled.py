"""Which of two rows is better, and how sure that is. Imports no torch.

Over seeds: Student's t interval of the mean difference, paired by seed (Student, "The Probable Error of a Mean",
Biometrika 1908; Bouthillier et al., "Accounting for Variance in Machine Learning Benchmarks", MLSys 2021, on why it
takes seeds). It takes the differences for normal, which three cannot show. With three it is wide, 2.5 standard
deviations of a difference to each side, so that a real gap often stays unsettled; and of a hundred pairs of equal
methods five are settled by chance.

Over test images: the percentile bootstrap, paired by image (Efron & Tibshirani, "An Introduction to the Bootstrap",
1993, chapter 13). It says whether these two networks would differ on other images, and nothing of other seeds.
"""

from __future__ import annotations

import functools
import math
import statistics
from dataclasses import dataclass

import numpy as np

from benchmark.records.per_image import per_image
from benchmark.records.record import Record
from benchmark.tables.layout import Column
from benchmark.tables.measured import Seeds

LEVEL = 0.95
ENOUGH = 3  # seeds that both rows have
DRAWS = 10_000
BLOCK = 500  # draws at a time: all at once would be 0.4 GB for the 4,952 images of VOC2007


@dataclass(frozen=True)
class Interval:
    """Of one row less another, at LEVEL. gap: what was found."""

    gap: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def shared_seeds(one: Seeds, other: Seeds) -> list[int]:
    return sorted(one.by_seed.keys() & other.by_seed.keys())


def over_seeds(one: Seeds, other: Seeds) -> Interval | None:
    """None with fewer than ENOUGH seeds in common."""
    seeds = shared_seeds(one, other)
    if len(seeds) < ENOUGH:
        return None
    gaps = [one.by_seed[seed] - other.by_seed[seed] for seed in seeds]
    mean, half = statistics.fmean(gaps), _t(len(gaps) - 1) * statistics.stdev(gaps) / math.sqrt(len(gaps))
    return Interval(mean, mean - half, mean + half)


@functools.cache
def _t(freedom: int) -> float:
    from scipy.stats import t  # a second to import

    return float(t.ppf((1 + LEVEL) / 2, freedom))


@dataclass(frozen=True)
class TwoNetworks:
    """One network less another, on the same test images."""

    seed: int
    images: int
    interval: Interval


def over_images(one: Seeds, other: Seeds, column: Column) -> TwoNetworks | None:
    """Of the lowest seed of which both rows' records hold what each image contributes; None without one."""
    for seed in shared_seeds(one, other):
        ours, theirs = (_per_image(rows.record_of(seed), column) for rows in (one, other))
        if ours is not None and theirs is not None:
            return TwoNetworks(seed, len(ours), bootstrapped(ours - theirs))
    return None


def _per_image(record: Record, column: Column) -> np.ndarray | None:
    has_stages = record.transfer == column.transfer  # else it is of a transfer of the row's own
    return per_image(record, column.stage if column.stage and has_stages else column.metric)


def bootstrapped(gaps: np.ndarray) -> Interval:
    """The mean of (N,), over as many draws of N as DRAWS. Drawn is how often each distinct value comes, which for right
    or wrong are three. By numpy's legacy generator, whose numbers stay the same in every version."""
    values, counts = np.unique(gaps, return_counts=True)
    generator = np.random.RandomState(0)
    shares = counts / len(gaps)
    blocks = (generator.multinomial(len(gaps), shares, size=BLOCK) @ values for _ in range(DRAWS // BLOCK))
    means = np.concatenate(list(blocks)) / len(gaps)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(gaps.mean()), float(low), float(high))
