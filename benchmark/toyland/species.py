"""Six families of four species each, which differ in one or two bricks, as in fine-grained recognition."""

from __future__ import annotations

from benchmark.toyland.plans import SPECIES_PLANS
from benchmark.toyland.shapes import BRICKS, Shape, built

# (supercategory, shape) of every category, in the order of the category ids.
SPECIES: tuple[tuple[str, Shape], ...] = tuple(
    (family, built(name, brick, plan))
    for brick, (family, members) in zip(BRICKS, SPECIES_PLANS.items(), strict=True)
    for name, plan in members.items()
)
