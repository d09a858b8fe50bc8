"""Backbones: one architecture, one file, torchvision's parameter names. A file here with `build` is a backbone."""

from __future__ import annotations

import importlib
import pkgutil

from benchmark.backbones.contract import Backbone, InputSpec
from benchmark.core.errors import UserError
from benchmark.recipe.contract import Architecture


def build_backbone(architecture: Architecture, spec: InputSpec) -> Backbone:
    """A freshly initialised backbone. Raises UserError for a name no file of this folder knows."""
    known: list[str] = []
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        names = getattr(module, "NAMES", ())
        if architecture.name in names:
            return module.build(architecture, spec)
        known += names
    raise UserError(f"backbone {architecture.name!r} is not known; there are: {', '.join(known)}")
