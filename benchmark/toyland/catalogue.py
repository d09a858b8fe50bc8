"""The objects of the world: the twenty of the ImageNet stand-in, and PASCAL VOC's twenty, which are others."""

from __future__ import annotations

from benchmark.toyland.plans import IMAGENET_PLANS, VOC_PLANS
from benchmark.toyland.shapes import Shape, in_families

FAMILY = 4  # objects that share a kind of brick

IMAGENET_OBJECTS = tuple(IMAGENET_PLANS)
VOC_OBJECTS = tuple(VOC_PLANS)
OBJECTS: dict[str, Shape] = in_families(IMAGENET_PLANS, FAMILY) | in_families(VOC_PLANS, FAMILY)
