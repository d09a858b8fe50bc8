"""`python tests/released_permutations.py --file permutations_100_max.bin`: rows 5 to 11 of Jigsaw's Table 4.

The file is its authors', from MehdiNoroozi/JigsawPuzzleSolver. It is not here, so the suite's own sets are other
permutations with nearly the same numbers: the 95 have a least distance of 4.

The rule, which no paper gives: for each least distance k, every permutation goes that is closer than k to any later one
of the hundred. Survivors are not checked again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tyro

PRINTED = {3: (95, 8.08), 4: (85, 8.07), 5: (71, 8.07), 6: (35, 8.13), 7: (10, 8.57), 8: (7, 8.95), 9: (6, 9.0)}


def hamming_distances(chosen: np.ndarray) -> tuple[float, int]:
    """(mean, minimum) Hamming distance over all unordered pairs of different rows of an (N, 9) set."""
    distance = (chosen[:, None, :] != chosen[None, :, :]).sum(axis=2)  # (N, N)
    pairs = distance[np.triu_indices(len(chosen), k=1)]
    return float(pairs.mean()), int(pairs.min())


def main(file: Path) -> None:
    whole = np.frombuffer(file.read_bytes(), dtype="<i4")
    count, tiles = whole[:2]
    rows = whole[2:].reshape(count, tiles)
    distances = (rows[:, None] != rows[None]).sum(axis=2)
    for least, (printed, mean) in PRINTED.items():
        left = rows[~np.triu(distances < least, k=1).any(axis=1)]
        average, minimum = hamming_distances(left)
        print(
            f"least {least}: {len(left)} permutations, mean {average:.4f}, least {minimum}; "
            f"printed {printed}, {mean}, {least}"
        )
        if (len(left), minimum) != (printed, least) or abs(average - mean) > 0.01:
            raise SystemExit("this is not the table's row")


if __name__ == "__main__":
    tyro.cli(main)
