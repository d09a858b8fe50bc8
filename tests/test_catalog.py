"""Recipes are found by scanning, their settings changed by flags; what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from benchmark.core.optimisation import Epochs, Steps
from benchmark.core.plain import as_plain
from benchmark.recipe.catalogue import find_recipes, get_recipe
from benchmark.recipe.contract import Recipe, recipe_hash
from benchmark.recipe.overrides import override, renamed, split_flags
from benchmark.recipe.scales import SCALES, at_scale

RECIPE_FILE = """
from dataclasses import dataclass

from benchmark.backbones.resnet import ResNet
from benchmark.recipe import SGD, Cosine, Epochs, Pool, Recipe, Settings

@dataclass(frozen=True)
class Dummy(Settings):
    tau: float = 0.07
    patches: tuple[int, int] = (3, 3)
    use_head: bool = True

{names} = Recipe(
    title="Dummy", method=Dummy(), backbone=ResNet(), data=Pool("imagenet"), length=Epochs(8),
    batch_size=64, optimizers={{"main": SGD(lr=0.1)}}, schedule=Cosine(),
)
"""


@pytest.fixture
def dummy(tmp_path: Path) -> Recipe:
    (tmp_path / "dummy.py").write_text(RECIPE_FILE.format(names="dummy"))
    return get_recipe("dummy", tmp_path)


def test_own_recipes_resolve_at_every_scale():
    for recipe in find_recipes().values():
        for scale in SCALES:
            as_plain(at_scale(recipe, scale))


def test_a_dropped_file_is_found(tmp_path: Path):
    (tmp_path / "one.py").write_text(RECIPE_FILE.format(names="one"))
    (tmp_path / "two.py").write_text(RECIPE_FILE.format(names="two") + "three: Recipe = two\n_hidden = two\n")
    (tmp_path / "_part.py").write_text("raise RuntimeError('never imported')")
    assert list(find_recipes(tmp_path)) == ["one", "two", "three"]


def test_an_imported_recipe_is_not_the_importers(tmp_path: Path):
    (tmp_path / "one.py").write_text(RECIPE_FILE.format(names="one"))
    (tmp_path / "zoo.py").write_text("from sslbench_recipes_one import one\n")
    assert list(find_recipes(tmp_path)) == ["one"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"broken.py": "import no_such_module_anywhere"}, "broken.py.*ModuleNotFoundError"),
        ({"broken.py": "def f(:"}, "broken.py.*SyntaxError"),
        ({"broken.py": "1 / 0"}, "broken.py.*ZeroDivisionError"),
        (
            {"a.py": RECIPE_FILE.format(names="same"), "b.py": RECIPE_FILE.format(names="same")},
            "'same': in .*a.py and in .*b.py",
        ),
    ],
)
def test_faulty_folders_name_the_file(tmp_path: Path, files: dict[str, str], said: str):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        find_recipes(tmp_path)


def test_unknown_names_come_with_near_ones(tmp_path: Path):
    (tmp_path / "dummy.py").write_text(RECIPE_FILE.format(names="dummy"))
    with pytest.raises(UserError, match="did you mean dummy"):
        get_recipe("dumy", tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        find_recipes(tmp_path / "nowhere")


def test_flags_change_settings_by_type(dummy: Recipe):
    first = ["plan", "dummy", "--recipe.method.tau", "0.2", "--recipe.batch-size=32", "--scale", "desk"]
    rest = ["length 10steps", "method.use-head false", "optimizers.main.lr 1", "method.patches (2,2)"]
    others, changes = split_flags([*first, *(f"--recipe.{'='.join(pair.split())}" for pair in rest)])
    assert others == ["plan", "dummy", "--scale", "desk"]
    changed = at_scale(override(dummy, changes, "paper"), "paper")
    assert as_plain(changed.method) == {"is": "Dummy", "tau": 0.2, "patches": [2, 2], "use_head": False}
    assert (changed.batch_size, changed.length) == (32, Steps(10))
    assert changed.optimizers["main"].lr == 1.0
    assert isinstance(changed.optimizers["main"].lr, float)
    assert at_scale(override(dummy, [("length.epochs", "3")], "paper"), "paper").length == Epochs(3.0)
    assert at_scale(override(dummy, [("length.epochs", "0.5")], "paper"), "paper").length == Epochs(0.5)
    whole, same = override(dummy, [("length.epochs", "8")], "paper"), at_scale(dummy, "paper")
    assert recipe_hash(at_scale(whole, "paper")) == recipe_hash(same)
    assert renamed("dummy", changes[:2]) == "dummy@method.tau=0.2,batch_size=32"
    assert renamed("dummy", []) == "dummy"


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("method.tua", "0.1", "did you mean method.tau"),
        ("method.tau", "warm", "tau warm: not a valid value .it is 0.07 now."),
        ("method.tau", "nan", "not a valid value"),
        ("batch_size", "1.5", "not a valid value"),
        ("precision", "fp8", "takes fp32 or bf16"),
        ("method", "x", "--recipe.method.tau"),
        ("method.use_head", "perhaps", "not a valid value"),
        ("desk", "()", "no such setting"),
        ("length", "-5", "epochs must be at least 0, not -5"),
        ("length", "-5steps", "steps_total must be at least 0, not -5"),
        ("length.epochs", "-0.5", "epochs must be at least 0"),
        ("length", "1e999", "epochs must be at least 0, not inf"),
        ("backbone.width", "-1", "width must be more than 0"),
        ("backbone.width", "0", "width must be more than 0"),
        ("batch_size", "0", "batch_size must be at least 1"),
        ("input.size", "0", "size must be at least 1"),
        ("seed", "-1", "seed must be at least 0"),
        ("method.patches", "(3,)", "has the wrong type"),
        ("method.patches", "(3, 3, 3)", "has the wrong type"),
        ("method.patches", "('a', 'b')", "has the wrong type"),
        ("method.patches", "(3, 0.5)", "has the wrong type"),
        ("method.patches", "(3, True)", "has the wrong type"),
        ("method.patches", "3", "has the wrong type"),
        ("method.patches", "{[]: 3}", "not a valid value"),
        ("schedule.warmup", "3", "has the wrong type"),
        ("optimizers.main.lr", "True", "not a valid value"),
    ],
)
def test_bad_flags_are_named(dummy: Recipe, key: str, text: str, said: str):
    with pytest.raises(UserError, match=said):
        override(dummy, [(key, text)], "paper")


def test_a_flag_without_a_value_is_named():
    for arguments in (["--recipe.method.tau"], ["--recipe.method.tau", "--scale"], ["--recipe.method.tau="]):
        with pytest.raises(UserError, match=r"--recipe\.method\.tau needs a value"):
            split_flags(arguments)


def test_a_users_recipe_may_not_take_a_name(tmp_path: Path):
    taken = next(iter(find_recipes()))
    (tmp_path / "mine.py").write_text(RECIPE_FILE.format(names=taken))
    with pytest.raises(UserError, match=f"recipes called {taken} already"):
        get_recipe(taken, tmp_path)
