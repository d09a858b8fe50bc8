"""What a RECIPE on the command line stands for; where it stands for none, why, before anything is drawn or trained."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.core.errors import UserError, nearest
from benchmark.recipe.catalogue import all_recipes, find_recipes, get_recipe
from benchmark.recipe.contract import Recipe
from benchmark.tables.ledger import by_any_name, read_names

if TYPE_CHECKING:
    from benchmark.runs.run import Run


WEIGHTS = (".pth", ".pt", ".tar", ".ckpt", ".bin", ".npz", ".pkl", ".safetensors")


def recipe_called(name: str, extra: Path | None = None) -> Recipe:
    """The recipe, of the benchmark's or of a user's folder. Raises UserError, which tells apart a file, a method that
    papers report and nothing here runs, another name of a recipe, and a name that is misspelt."""
    if name not in (known := all_recipes(extra)):
        _refuse_what_is_no_recipe(name, known)
    return get_recipe(name, extra)


def require_backbone(run: Run, extra: Path | None = None) -> None:
    """A run that is there may be scored, whatever recipe it was. extra: a user's own recipes. Raises UserError where it
    is not: how to make it, or why that cannot be done."""
    if run.backbone.is_file():
        return
    recipe, _, changes = run.name.partition("@")
    known = set(all_recipes(extra))
    there = {folder.name for folder in (run.runs / run.scale).glob("*/")}
    there |= {file.stem for file in run.imported.parent.glob("*.safetensors")}
    if recipe not in known | {name.partition("@")[0] for name in there}:
        _refuse_what_is_no_recipe(recipe, known)
        raise UserError(
            f"no recipe and no run {run.name!r}{nearest(run.name, known | there)}; `sslbench list` shows the recipes, "
            "and a recipe of your own must be pretrained first"
        )
    same = " and the settings that were changed, as --recipe.KEY VALUE, --images or --init," if changes else ""
    own = f" --recipes-dir {extra}" if extra and recipe not in find_recipes() else ""
    mend = f"`sslbench pretrain {recipe} --scale {run.scale} --seed {run.seed}{own}`{same} makes it"
    raise UserError(f"{run.backbone}: not there yet; {mend}")


def require_untaken(run: Run) -> None:
    """Raises UserError where weights were imported under the run's name: scores would be of those."""
    if run.imported.is_file():
        raise UserError(
            f"{run.name} is the name of an imported backbone, {run.imported}, so nothing is pretrained under it: "
            f"`sslbench transfer {run.name} TRANSFER` scores it. A recipe needs another name"
        )


def name_for_import(name: str, runs: Path) -> None:
    """Raises UserError for a name that an imported backbone cannot have: a recipe's, one of a run that is there, or
    none that a folder can have."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UserError(f"--as {name}: letters, digits, dots, dashes and underscores make a name; give such a one")
    bare = name
    while Path(bare).suffix in WEIGHTS:
        bare = Path(bare).stem
    if bare != name:
        raise UserError(f"--as {name}: a file's name; give a backbone's, such as {bare}")
    if name in find_recipes():
        raise UserError(f"--as {name}: a recipe is called so; give another name, such as {name}_imported")
    if there := sorted(runs.glob(f"*/{name}/seed*/backbone.safetensors")):
        raise UserError(f"--as {name}: {there[0]} is called so; give another name")


def require_init(run: Run, extra: Path | None = None) -> None:
    """Raises UserError, as `require_backbone` does, where the weights that the run starts from are not there."""
    if run.init:
        require_backbone(replace(run, name=run.init, init=""), extra)


def backbones_before(run: Run, recipe: Recipe, extra: Path | None = None) -> dict[str, Path]:
    """The backbone files that the recipe is given. Raises UserError where one is not there: how to make it."""
    for earlier in run.before(recipe).values():
        require_backbone(earlier, extra)
    return run.after(recipe)


def _refuse_what_is_no_recipe(name: str, known: Collection[str]) -> None:
    """Returns if nothing is known of the name: then it is misspelt."""
    if name.endswith(".py"):
        raise UserError(
            f"{name}: a file, not a recipe's name; `sslbench list` shows the names, and --recipes-dir takes a folder "
            "of your own recipe files"
        )
    if os.sep in name or Path(name).exists() or Path(name).suffix in WEIGHTS:
        what = "folder" if Path(name).is_dir() else "file"
        raise UserError(
            f"{name}: a {what}, not a recipe's name. What `sslbench pretrain RECIPE` made is scored by that name, as "
            "in `sslbench transfer RECIPE TRANSFER`; other weights get a name by `sslbench import FILE --as NAME`. "
            "`sslbench list` shows the recipes"
        )
    methods = read_names()["method"]
    method = by_any_name(methods).get(name.lower())
    if method in known:
        raise UserError(f"no recipe {name!r}; here it is called {method}")
    if method:
        raise UserError(
            f"{name}: {methods[method].title} is in the ledger as papers report it, and no recipe here runs it; "
            f"`sslbench show {method}` shows its numbers, `sslbench list` what can be run"
        )
