"""Six families of four species each. Each two families share a kind of brick, so that eight species look alike in small
patches."""

from __future__ import annotations

from benchmark.toyland.plans import SPECIES_PLANS
from benchmark.toyland.shapes import Shape, in_families

SHARING = 8  # that share a kind of brick
_SHAPES = in_families({name: plan for members in SPECIES_PLANS.values() for name, plan in members.items()}, SHARING)

# (supercategory, shape) of every category, in the order of the category ids.
SPECIES: tuple[tuple[str, Shape], ...] = tuple(
    (family, _SHAPES[name]) for family, members in SPECIES_PLANS.items() for name in members
)
