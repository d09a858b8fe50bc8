"""The objects of the world: the twenty of the ImageNet stand-in, and PASCAL VOC's twenty, which are others."""

from __future__ import annotations

from benchmark.toyland.plans import IMAGENET_PLANS, VOC_PLANS
from benchmark.toyland.shapes import Shape, in_families

# How many objects share a kind of brick. A kind is what a network learns first: where all objects share one, minutes of
# training do not get as far as the arrangement.
FAMILY = 5

IMAGENET_OBJECTS = tuple(IMAGENET_PLANS)
VOC_OBJECTS = tuple(VOC_PLANS)
OBJECTS: dict[str, Shape] = in_families(IMAGENET_PLANS, FAMILY) | in_families(VOC_PLANS, FAMILY)
