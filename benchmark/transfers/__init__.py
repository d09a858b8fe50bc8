"""Transfers: one protocol family, one file. Its module-level `Transfer` values are found by looking; none registers."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

from benchmark.core.errors import UserError, nearest
from benchmark.transfers.contract import Transfer


def find_transfers(extra: Path | None = None) -> dict[str, Transfer]:
    """Card id -> transfer, in alphabetical order: all in this folder, and in the Python files of `extra`. Raises
    UserError for a folder that is not there, or an id taken twice."""
    found: dict[str, Transfer] = {}
    for module in (*_own(), *_files(extra)):
        for value in vars(module).values():
            if not isinstance(value, Transfer):
                continue
            if found.setdefault(value.card.id, value) is not value:
                raise UserError(f"{module.__name__}: the transfer id {value.card.id!r} is taken; give it another")
    return dict(sorted(found.items()))


def get_transfer(name: str, known: Mapping[str, Transfer]) -> Transfer:
    """Raises UserError with the nearest ids there are."""
    if name not in known:
        raise UserError(f"no transfer {name!r}{nearest(name, known)}; `sslbench list` shows all {len(known)}")
    return known[name]


def _own() -> Iterator[ModuleType]:
    for info in pkgutil.iter_modules(__path__):
        yield importlib.import_module(f"{__name__}.{info.name}")


def _files(folder: Path | None) -> Iterator[ModuleType]:
    if folder and not folder.is_dir():
        raise UserError(f"{folder}: no such folder of transfers")
    for path in sorted(folder.glob("*.py")) if folder else ():
        spec = importlib.util.spec_from_file_location(f"extra_transfers.{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
