"""Permutation sets of maximal mean Hamming distance (Noroozi & Favaro, ECCV 2016, Algorithm 1)."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np

TILES = 9


@cache
def all_permutations() -> np.ndarray:
    """(9! = 362,880, 9) uint8 in lexicographic order."""
    return np.array(list(permutations(range(TILES))), dtype=np.uint8)


@cache
def permutation_set(size: int, seed: int = 0, least_distance: int = 1) -> np.ndarray:
    """(size, 9) uint8. Starts with a random permutation, then keeps adding the one with the largest summed Hamming
    distance to those chosen so far; among equals, the first in lexicographic order. Any two differ in at least
    `least_distance` places.

    NOTE: as printed, the algorithm appends P_i where its argmax is j. The argmax is meant, and is appended here.
    """
    candidates = np.ascontiguousarray(all_permutations().T)  # (9, 9!)
    agreements = np.zeros(candidates.shape[1], dtype=np.int32)  # summed agreements with the chosen; distance = 9 - that
    taken = int(np.random.default_rng(seed).integers(candidates.shape[1]))
    chosen = []
    for _ in range(size):
        chosen.append(taken)
        alike = np.zeros_like(candidates[0])
        for place in range(TILES):
            alike += candidates[place] == candidates[place, taken]
        agreements += alike
        agreements[alike > TILES - least_distance] = np.iinfo(np.int32).max // 2  # leaves the pool
        taken = int(agreements.argmin())
    return all_permutations()[chosen]
