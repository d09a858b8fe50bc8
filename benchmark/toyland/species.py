"""Six families of four species each. Each two families share a kind of brick, so that eight species look alike in small
patches."""

from __future__ import annotations

from benchmark.toyland.plans import SPECIES_PLANS
from benchmark.toyland.shapes import BRICKS, Shape, built

FAMILIES_A_KIND = 2  # that share a kind of brick

# (supercategory, shape) of every category, in the order of the category ids.
SPECIES: tuple[tuple[str, Shape], ...] = tuple(
    (family, built(name, list(BRICKS)[number // FAMILIES_A_KIND], plan))
    for number, (family, members) in enumerate(SPECIES_PLANS.items())
    for name, plan in members.items()
)
