"""Permutation sets of a large mean Hamming distance (Noroozi & Favaro, ECCV 2016, Algorithm 1), or of a smaller one."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np

from benchmark.core.errors import UserError

TILES = 9
NEAR = 0.05  # of a wanted mean distance
OUT = np.iinfo(np.int32).max // 2  # more agreements than any set could have


@cache
def all_permutations() -> np.ndarray:
    """(9! = 362,880, 9) uint8 in lexicographic order."""
    return np.array(list(permutations(range(TILES))), dtype=np.uint8)


@cache
def permutation_set(size: int, seed: int = 0, least_distance: int = 1, mean: float | None = None) -> np.ndarray:
    """(size, 9) uint8. Starts with a random permutation, then keeps adding the one with the largest summed Hamming
    distance to those chosen so far; among equals, the first in lexicographic order. Any two differ in at least
    `least_distance` places. mean: what the mean distance of two shall come near, instead of the largest there is.
    Raises UserError where the algorithm comes to an end before there are so many, or comes no nearer than NEAR.

    NOTE: as printed, the algorithm appends P_i where its argmax is j. The argmax is meant, and is appended here.
    """
    candidates = np.ascontiguousarray(all_permutations().T)  # (9, 9!)
    agreements = np.zeros(candidates.shape[1], dtype=np.int32)  # summed agreements with the chosen; distance = 9 - that
    taken = int(np.random.default_rng(seed).integers(candidates.shape[1]))
    chosen: list[int] = []
    distances = 0  # summed over all pairs of the chosen
    for _ in range(size):
        if agreements[taken] >= OUT:
            raise UserError(
                f"only {len(chosen):,} permutations of {TILES} tiles are found of which any two differ in "
                f"{least_distance} places or more; set the number of permutations to that or lower, not {size:,}"
            )
        distances += TILES * len(chosen) - int(agreements[taken])
        chosen.append(taken)
        alike = np.zeros_like(candidates[0])
        for place in range(TILES):
            alike += candidates[place] == candidates[place, taken]
        agreements += alike
        agreements[alike > TILES - least_distance] = OUT  # leaves the pool
        taken = int(_unwanted(agreements, len(chosen), distances, mean).argmin())
    reached = 2 * distances / max(size * (size - 1), 1)
    if mean is not None and abs(reached - mean) > NEAR:
        raise UserError(f"{size:,} permutations come to a mean distance of {reached:.2f}, not {mean:g}; ask for that")
    return all_permutations()[chosen]


def _unwanted(agreements: np.ndarray, count: int, distances: int, mean: float | None) -> np.ndarray:
    """The candidates by how little they are wanted. count: of those chosen; distances: between them, in all."""
    if mean is None:
        return agreements
    wanted = round(mean * count * (count + 1) / 2) - distances  # of the next one to all that were chosen
    return np.abs(agreements - (TILES * count - wanted))
