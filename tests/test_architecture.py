"""The harness knows no method, and a method or a protocol is one file: nothing else has to change for it to run."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

from benchmark import cli
from benchmark.catalog import find_recipes
from benchmark.results import read_record
from benchmark.transfers import find_transfers

HARNESS = Path(__file__).parents[1] / "benchmark"
FILES = sorted(HARNESS.rglob("*.py"))
# Every method of the survey, whether it has a recipe yet or not, and the names by which prose knows some of them.
METHODS = """
    aae_dim arcface beta_vae bigan cmc colorization context_encoder context_prediction contrastive_siamese counting cpc
    cpc_v2 deepcluster dim exemplar_cnn factor_vae infogan jigsaw jigsaw_pp jigsaw_resnet50 krahenbuhl_init ladder_vae
    moco_ablation moco_v1 moco_v2 nat npid npid_pp pcl pirl pro_vlae ranked_list_loss ren_lee_synthetic rotnet
    s4l_exemplar s4l_rotation simclr simclr_v2 split_brain spot_artifacts supcon triplet vae_dim vat_entmin
    wang_gupta_video
""".split()  # noqa: SIM905 - 45 names without their quotes are easier to compare with a list
ALIASES = {
    "deep_infomax",
    "exemplar",
    "infomax",
    "moco",
    "noise_as_targets",
    "ranked_list",
    "s4l",
    "siamese",
    "vae",
    "vat",
    "vlae",
}
# Names that are words of the trade too (an image's rotation, a tensor's dim): for these, only a string that is the
# whole name counts as knowing the method.
ORDINARY_WORDS = {"rotation", "supervised", "counting", "dim", "nat"}
# The stated exception: a protocol is named after the paper that fixed it, and cites that paper. In transfers/, and only
# there, these names may end an id (`linear_imagenet_pirl`) and stand in comments and docstrings.
NAMED_AFTER = {"pirl", "moco"}


def known_methods(path: Path, names: set[str]) -> list[str]:
    """ "file:line: text" of every token that names a method; line 0 is the file's own name."""
    words = names - ORDINARY_WORDS
    cited = NAMED_AFTER & names if "transfers" in path.relative_to(HARNESS).parts else set()
    never, never_in_code = pattern(words - cited), pattern(cited, not_after="_")
    found = [(0, path.stem)] if pattern(words).search(path.stem) else []
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        text = f"{token.string} {re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', token.string)}"  # NpidBank is npid's too
        prose = token.type == tokenize.COMMENT or text.lstrip("rRfFbB").startswith('"""')
        whole = token.type == tokenize.STRING and token.string.strip("\"'") in names
        if whole or never.search(text) or (not prose and never_in_code.search(text)):
            found.append((token.start[0], token.string[:80]))
    return [f"{path.relative_to(HARNESS)}:{line}: {text}" for line, text in found]


def pattern(names: set[str], not_after: str = "") -> re.Pattern[str]:
    """One of the names as a word or as a part of an identifier, however its own parts are joined ("NPID++" is npid_pp);
    never after one of the characters `not_after`."""
    if not names:
        return re.compile(r"(?!)")
    spelled = "|".join(re.escape(name).replace("_pp", r"(_pp|\+\+)").replace("_", "[-_ ]?") for name in sorted(names))
    return re.compile(rf"(?<![a-z0-9{not_after}])({spelled})(?![a-z0-9])", re.IGNORECASE)


def test_no_method_is_known_to_the_harness():
    recipes = set(find_recipes()) | {path.stem for path in (HARNESS.parent / "recipes").glob("[a-z]*.py")}
    assert len(METHODS) == 45
    names = {*METHODS, *ALIASES, *recipes}
    assert [line for path in FILES for line in known_methods(path, names)] == []


def test_the_exception_is_of_protocols_that_there_are():
    assert {name.rpartition("_")[2] for name in find_transfers()} & {*METHODS, *ALIASES} == NAMED_AFTER


@pytest.mark.parametrize(
    ("where", "text", "caught"),
    [
        ("engine/x.py", "if name == 'pirl': pass", True),
        ("engine/x.py", "pirl_weight = 1", True),
        ("engine/x.py", "# as PIRL does", True),
        ("engine/x.py", "recipe = 'supervised'", True),
        ("engine/x.py", "note = 'a supervised network'", False),
        ("engine/x.py", "spiral = 1", False),
        ("transfers/x.py", "linear_imagenet_pirl = f'linear_{dataset}_pirl'", False),
        ("transfers/x.py", "# PIRL, supplement C", False),
        ("transfers/x.py", "# NPID, supplement C", True),
        ("transfers/x.py", "knn_imagenet_npid = 1", True),
        ("engine/x.py", '"""The NPID++ of npid."""', True),
        ("engine/x.py", "class NpidLoss: pass", True),
        ("engine/x.py", "# SimCLR's", True),
        ("engine/x.py", "def split_brain_loss(): pass", True),
        ("engine/x.py", "# a split-brain of sorts", True),
        ("engine/x.py", "x.mean(dim=1)", False),
        ("engine/x.py", "x = {'dim': 1}", True),
        ("blocks/npid_bank.py", "", True),
        ("transfers/x.py", "if name == 'pirl': pass", True),
    ],
)
def test_the_rule_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str, text: str, caught: bool):
    monkeypatch.setattr("test_architecture.HARNESS", tmp_path)
    path = tmp_path / where
    path.parent.mkdir()
    path.write_text(text + "\n")
    assert bool(known_methods(path, {*METHODS, *ALIASES, "supervised"})) is caught


def test_the_harness_never_imports_recipes():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in modules if name.split(".")[0] == "recipes"], path


RECIPE = '''
from dataclasses import dataclass

from torch import nn
from torchvision.transforms import v2

from benchmark.method import Method
from benchmark.recipe import SGD, Architecture, Change, Constant, Recipe, Settings, Steps

@dataclass(frozen=True)
class Brightness(Settings):
    """Tell how bright the image is."""
    size: int = 32

    def views(self, image):
        return {"image": v2.functional.pil_to_tensor(v2.Resize((self.size, self.size))(image))}

    def build(self, backbone, num_images):
        return Meter(backbone)

class Meter(Method):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(list(backbone.stages.values())[-1].channels, 1)

    def loss(self, batch):
        x = self.backbone.input.normalize(batch.views["image"])
        return (self.head(self.backbone(x))[:, 0] - x.mean(dim=(1, 2, 3))).square().mean()

brightness = Recipe(
    title="Brightness", method=Brightness(), backbone=Architecture("resnet50"), data="imagenet", length=Steps(2),
    batch_size=16, optimizers={"main": SGD(lr=0.01)}, schedule=Constant(),
    desk=(Change("image_size", 32, "small"), Change("backbone.width", 0.125, "small")),
)
'''

TRANSFER = """
import torch

from benchmark.data.datasets import open_dataset
from benchmark.transfers.contract import ProtocolCard, Scores, Transfer

class Norm(Transfer):
    card = ProtocolCard(
        id="norm_nobody", version=1, title="Norm of a feature", citation="nobody", metrics={"norm": ""},
        datasets=(("imagenet", "val"),), frozen="everything", selected="nothing",
    )

    def run(self, backbone, context):
        images = open_dataset(context.data_root, "imagenet", "val")
        size = backbone.input.size
        with torch.no_grad():
            x = torch.full((1, 3, size, size), len(images), dtype=torch.uint8)
            return Scores({"norm": float(backbone(backbone.input.normalize(x)).norm())})

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
