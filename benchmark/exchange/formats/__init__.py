"""Formats of weights: one project, one file, which is named as the format is. They are found by looking here."""

from __future__ import annotations

import importlib
import pkgutil

from benchmark.core.errors import UserError, nearest
from benchmark.exchange.contract import WeightsFormat


def find_formats() -> dict[str, WeightsFormat]:
    """Name -> format, in alphabetical order."""
    found: dict[str, WeightsFormat] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for value in vars(module).values():
            if isinstance(value, WeightsFormat):
                found[info.name] = value
    return dict(sorted(found.items()))


def get_format(name: str) -> WeightsFormat:
    """Raises UserError with the names there are."""
    known = find_formats()
    if name not in known:
        raise UserError(f"--format {name}: there is no such format{nearest(name, known)}; known: {', '.join(known)}")
    return known[name]
