"""Backbones: one family, one file. Its `Architecture` values are found by looking in this folder; none registers."""

from __future__ import annotations

import importlib
import pkgutil

from benchmark.core.plain import subclasses
from benchmark.recipe.contract import Architecture


def architectures() -> dict[str, type]:
    """Every kind of architecture by name: those of this folder, and those of recipe files that have been imported."""
    for info in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{info.name}")
    return subclasses(Architecture)
