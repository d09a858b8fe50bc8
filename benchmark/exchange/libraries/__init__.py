"""Libraries that a backbone can be written for: one file each, which is named as the library is. They are found by
looking here."""

from __future__ import annotations

import importlib
import pkgutil

from benchmark.core.errors import UserError, nearest
from benchmark.exchange.contract import ExportFormat


def find_libraries() -> dict[str, ExportFormat]:
    """Name -> what is written for it, in alphabetical order."""
    found: dict[str, ExportFormat] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for value in vars(module).values():
            if isinstance(value, ExportFormat):
                found[info.name] = value
    return dict(sorted(found.items()))


def get_library(name: str) -> ExportFormat:
    """Raises UserError with the names there are."""
    known = find_libraries()
    if name not in known:
        raise UserError(f"--to {name}: there is no such library here{nearest(name, known)}; known: {', '.join(known)}")
    return known[name]
