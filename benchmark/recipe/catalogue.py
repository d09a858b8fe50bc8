"""Finds recipes by scanning a folder: dropping a file in is all it takes to add one."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from benchmark.core.errors import UserError, nearest
from benchmark.recipe.contract import Recipe

OWN = Path(__file__).resolve().parents[2] / "recipes"


def find_recipes(folder: Path | None = None) -> dict[str, Recipe]:
    """Every module-level `Recipe` of the folder's files by the name of its variable, in file and line order.

    `folder` is a user's own; without it, the recipes that come with the benchmark. Raises UserError naming the file
    that cannot be imported, or the two that use one name.
    """
    return {name: recipe for of_file in recipes_by_file(folder).values() for name, recipe in of_file.items()}


def recipes_by_file(folder: Path | None = None) -> dict[Path, dict[str, Recipe]]:
    """The same, file by file; a file may hold several recipes of one method, or none."""
    where = OWN if folder is None else folder.resolve()
    if not where.is_dir():
        raise UserError(f"{where}: no such folder of recipes")
    found: dict[Path, dict[str, Recipe]] = {}
    origin: dict[str, Path] = {}
    for path in sorted(where.glob("*.py")):
        if path.name.startswith("_"):
            continue
        module, found[path] = _imported(path, own=folder is None), {}
        for name in assigned_names(path):
            value = getattr(module, name, None)
            if not isinstance(value, Recipe):
                continue
            if name in origin:
                raise UserError(f"two recipes are called {name!r}: in {origin[name]} and in {path}; rename one")
            found[path][name], origin[name] = value, path
    return found


def all_recipes(extra: Path | None = None) -> dict[str, Recipe]:
    """The benchmark's recipes, and those of a user's folder. Raises UserError if a name is in both."""
    own, users = find_recipes(), find_recipes(extra) if extra else {}
    if twice := own.keys() & users.keys():
        raise UserError(f"{extra}: the benchmark has recipes called {', '.join(sorted(twice))} already; rename yours")
    return own | users


def get_recipe(name: str, extra: Path | None = None) -> Recipe:
    """The recipe of that name. Raises UserError with the nearest names there are."""
    found = all_recipes(extra)
    if name not in found:
        raise UserError(f"no recipe {name!r}{nearest(name, found)}; `sslbench list` shows all {len(found)}")
    return found[name]


def _imported(path: Path, own: bool) -> ModuleType:
    """The benchmark's own recipes are imported under their package's name, so that they can build on each other and be
    pickled; a user's folder gets module names of its own."""
    try:
        if own:
            return importlib.import_module(f"{OWN.name}.{path.stem}")
        spec = importlib.util.spec_from_file_location(f"sslbench_recipes_{path.stem}", path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up while it is being executed
        spec.loader.exec_module(module)
        return module
    except Exception as error:  # a recipe file may fail in any way at all; the file is what the user must hear about
        raise UserError(f"{path}: this recipe cannot be imported ({type(error).__name__}: {error})") from error


def assigned_names(path: Path) -> tuple[str, ...]:
    """Names that the file itself gives to values: a recipe imported from another file is not its own."""
    return _assigned(path.read_bytes())


@functools.cache  # parsing all recipes takes a tenth of a second
def _assigned(source: bytes) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for node in ast.parse(source).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names.update(dict.fromkeys(target.id for target in targets if isinstance(target, ast.Name)))
    return tuple(name for name in names if not name.startswith("_"))
