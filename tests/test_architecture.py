"""The harness knows no recipe, a name means one thing, and a method or a protocol is one file that runs as it is.

Who may import whom is checked by import-linter, in `make lint`.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark import cli
from benchmark.recipe.catalogue import find_recipes
from benchmark.records.record import read_record

HARNESS = Path(__file__).parents[1] / "benchmark"
FILES = sorted(HARNESS.rglob("*.py"))
RECIPES = set(find_recipes()) | {path.stem for path in (HARNESS.parent / "recipes").glob("[a-z]*.py")}
# What several modules define because a contract asks each of them for it: a layout's functions, and a drawing's.
BY_CONTRACT = {"read", "check", "pictures", "draw", "finish"}


def branches(source: str, names: set[str]) -> Iterator[int]:
    """Lines on which something is decided by one of these names: compared with it, matched against it, looked up by it,
    handed to a function, or kept in a constant for any of that. A view of a batch may be called what it likes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare | ast.MatchValue):
            deciding = [node]
        elif isinstance(node, ast.Dict):
            deciding = [key for key in node.keys if key]
        elif isinstance(node, ast.Subscript):
            deciding = [] if isinstance(node.value, ast.Attribute) and node.value.attr == "views" else [node.slice]
        elif isinstance(node, ast.Call):
            deciding = [*node.args, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            is_list = isinstance(node.value, ast.Tuple | ast.List | ast.Set | ast.Constant)
            deciding = [node.value] if is_list else []
        else:
            deciding = []
        values = (inner for one in deciding for inner in ast.walk(one))
        yield from (v.lineno for v in values if isinstance(v, ast.Constant) and v.value in names)


def test_the_harness_decides_nothing_by_a_recipes_name():
    assert {f"{path}:{line}" for path in FILES for line in branches(path.read_text(), RECIPES)} == set()


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("if name == 'pirl': pass", True),
        ("if name in ('npid', 'pirl'): pass", True),
        ("if name.startswith('pirl'): pass", True),
        ("rates = {'pirl': 1}", True),
        ("rate = rates['pirl']", True),
        ("rate = rates.get('pirl', 0)", True),
        ("match name:\n    case 'pirl': pass", True),
        ("SPECIAL = ('pirl',)", True),
        ("re.match('pirl', name)", True),
        ("getattr(recipes, 'pirl')", True),
        ("rates.pop('pirl')", True),
        ("x = batch.views['pirl']", False),
        ("'''As PIRL does, and pirl.'''", False),
        ("linear_imagenet_pirl = f'linear_{dataset}_pirl'  # pirl's", False),
        ("class TripletLoss: pass", False),
        ("if name == 'pirouette': pass", False),
    ],
)
def test_what_counts_as_a_decision(source: str, caught: bool):
    assert bool(list(branches(source, {"pirl", "npid"}))) is caught


def test_a_name_means_one_thing():
    """No class or type twice, and no public function but where a contract asks for it; a command is called as what it
    does."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in FILES:
        if path.name == "cli.py":
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) or (
                isinstance(node, ast.FunctionDef) and node.name not in BY_CONTRACT and not node.name.startswith("_")
            ):
                places[node.name].append(str(path.relative_to(HARNESS)))
            if isinstance(node, ast.Assign) and re.fullmatch(r"[A-Z][a-z]\w*", ast.unparse(node.targets[0])):
                places[ast.unparse(node.targets[0])].append(str(path.relative_to(HARNESS)))  # a type's other name
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_few_modules_lie_directly_in_the_package():
    assert {path.name for path in HARNESS.glob("*.py")} == {"__init__.py", "__main__.py", "cli.py", "method.py"}


RECIPE = '''
from dataclasses import dataclass

from torch import nn
from torchvision.transforms import v2

from benchmark.backbones.resnet import ResNet
from benchmark.method import Method
from benchmark.recipe import SGD, Change, Constant, Pool, Recipe, Settings, Steps

@dataclass(frozen=True)
class Brightness(Settings):
    """Tell how bright the image is."""

    def views(self, image, spec):
        return {"image": v2.functional.pil_to_tensor(v2.Resize((spec.size, spec.size))(image))}

    def build(self, backbone, given):
        return Meter(backbone)

class Meter(Method):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.out_channels, 1)

    def loss(self, batch):
        x = self.backbone.input.prepare(batch.views["image"])
        return (self.head(self.backbone(x))[:, 0] - x.mean(dim=(1, 2, 3))).square().mean()

brightness = Recipe(
    title="Brightness", method=Brightness(), backbone=ResNet(), data=Pool("imagenet"), length=Steps(2),
    batch_size=16, optimizers={"main": SGD(lr=0.01)}, schedule=Constant(),
    desk=(Change("input.size", 32, "small"), Change("backbone.width", 0.125, "small")),
)
'''

TRANSFER = """
import torch

from benchmark.data.datasets import open_dataset
from benchmark.records.metric import Metric
from benchmark.transfers.contract import ProtocolCard, Scores, Transfer

class Norm(Transfer):
    card = ProtocolCard(
        id="norm_nobody", version=1, title="Norm of a feature", citation="nobody",
        metrics={"norm": Metric(range=(0, float("inf")), higher=False)},
        datasets=(("imagenet", "val"),), frozen="everything", selected="nothing",
    )

    def run(self, backbone, context):
        images = open_dataset(context.data_root, "imagenet", "val")
        size = backbone.input.size
        with torch.no_grad():
            x = torch.full((1, 3, size, size), len(images), dtype=torch.uint8)
            return Scores({"norm": float(backbone(backbone.input.prepare(x)).norm())})

norm_nobody = Norm()
"""


def test_one_file_each_is_found_run_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for folder, text in (("recipes", RECIPE), ("transfers", TRANSFER)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    options = ["--scale", "smoke", "--workers", "0", "--device", "cpu"]
    score = ["transfer", "brightness", "norm_nobody", *options, "--transfers-dir", "transfers"]
    assert cli.run(["pretrain", "brightness", *options, "--recipes-dir", "recipes"]) == 0
    assert cli.run(score) == 0
    path = Path("runs/smoke/brightness/seed0/norm_nobody.json")
    record = read_record(path)
    assert (record.recipe, record.transfer, record.scale) == ("brightness", "norm_nobody", "smoke")
    assert record.settings["length"] == {"is": "Steps", "steps_total": 4}
    assert record.transfer_data.keys() == {"imagenet/val"}

    first, backbone = path.read_bytes(), Path("runs/smoke/brightness/seed0/backbone.safetensors")
    weights = backbone.read_bytes()
    changed = path.stat().st_mtime_ns
    assert cli.run(score) == 0
    assert path.stat().st_mtime_ns == changed, "a current record is not made again"
    path.unlink()
    backbone.unlink()
    assert cli.run(["pretrain", "brightness", *options, "--recipes-dir", "recipes"]) == 0
    assert cli.run(score) == 0
    assert backbone.read_bytes() == weights
    assert path.read_bytes() == first, "the same run gives the same bytes"


MOST_ALIKE = 4


def test_no_five_lines_in_a_row_stand_in_two_recipes():
    """What two recipes share belongs to blocks/, views/ or recipe/. Left out are imports, whose order is fixed,
    comments, and the paper's values, which each file states for itself: NPID++ trains as PIRL does, because the paper
    says so."""
    runs: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for path in (HARNESS.parent / "recipes").glob("*.py"):
        lines = own_lines(path.read_text(encoding="utf-8"))
        for start in range(len(lines) - MOST_ALIKE):
            runs[tuple(lines[start : start + MOST_ALIKE + 1])].add(path.name)
    assert {run: sorted(files) for run, files in runs.items() if len(files) > 1} == {}


def own_lines(source: str) -> list[str]:
    """Without comments: what `ast` prints again has none, and strings stay whole."""
    tree = ast.parse(source)
    tree.body = [one for one in tree.body if not isinstance(one, ast.Import | ast.ImportFrom)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Recipe":
            node.keywords = [one for one in node.keywords if one.arg == "desk"]
    lines = (line.strip() for line in ast.unparse(tree).splitlines())
    return [part for line in lines for part in re.split(r"(?<=\),) ", line) if part]  # a desk's changes, one by one


def test_five_alike_lines_are_found():
    body = "\n".join(f"    x{number} = {number}  # {{name}}" for number in range(5))
    one, two = (own_lines(f"import {name}\n\ndef {name}():\n{body.format(name=name)}\n") for name in ("a", "b"))
    assert one[1:] == two[1:]
    assert len(one) == 6
    (desk,) = {tuple(own_lines(f"{name} = Recipe(title='{name}', desk=(Change(1), Change(2)))")[1:]) for name in "ab"}
    assert desk == ("Change(2)))",)
