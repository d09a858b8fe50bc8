"""Toyland, the drawn stand-in for the real datasets: deterministic, in their exact layouts, seconds to make."""

from benchmark.toyland.sheet import contact_sheet
from benchmark.toyland.world import WORLD_DATASETS, build_world, drawn_for

__all__ = ["WORLD_DATASETS", "build_world", "contact_sheet", "drawn_for"]
