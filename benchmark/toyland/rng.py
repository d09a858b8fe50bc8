"""One generator per drawn thing, which depends only on its place in the world."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *place: str | int) -> np.random.Generator:
    """The generator of e.g. `(seed, "imagenet", "train", 17)`: the same on every machine, in any process and order.

    Python's own `hash` differs between processes, so the place is hashed with SHA-256.
    """
    name = "/".join(str(part) for part in (seed, *place))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little"))


def hexname(seed: int, *place: str | int, digits: int = 32) -> str:
    """A stable file name that looks like the hashes photo archives use."""
    return hashlib.sha256("/".join(str(part) for part in (seed, *place)).encode()).hexdigest()[:digits]
