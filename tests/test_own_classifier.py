"""What a run keeps of the trained method, and the protocol that scores the method's own classifier."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from handmade import image
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_runs import drawn_images, in_processes, on_cpu, record_in_small_batches
from torch import Tensor, nn

from benchmark import cli
from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.weights import load_backbone, read_facts
from benchmark.blocks.memory_bank import MemoryBank
from benchmark.core.errors import UserError
from benchmark.core.optimisation import SGD, Constant, Steps
from benchmark.core.plain import as_plain
from benchmark.data.batch import Batch
from benchmark.data.datasets import open_dataset
from benchmark.engine.method_file import load_method
from benchmark.engine.train import build_method, pretrain
from benchmark.method import Method
from benchmark.recipe.catalogue import all_recipes, find_recipes
from benchmark.recipe.contract import Recipe, Settings, with_change
from benchmark.recipe.inputs import InputSpec
from benchmark.recipe.pools import Given, Pool
from benchmark.recipe.scales import at_scale
from benchmark.records.metric import Metric
from benchmark.runs.reproduce import RowWork
from benchmark.runs.run import Run, pretraining_images
from benchmark.runs.scoring import score
from benchmark.tables.layout import read_layouts, recipes_of
from benchmark.transfers import find_transfers
from benchmark.transfers.contract import Context, ProtocolCard, Scores, Transfer

OWN = find_transfers()["own_classifier_imagenet"]
CLASSES = 7
SMALL = ResNet(width=0.0625)


@dataclass(frozen=True)
class Labels(Settings):
    """A linear classifier, and a bank that does nothing."""

    scale: float = 1.0

    def views(self, image: Image.Image, spec: InputSpec) -> dict[str, Tensor]:
        return self.still(image, spec)

    def build(self, backbone: Backbone, given: Given) -> Method:
        return Linear(self, backbone, given)


class Linear(Method):
    def __init__(self, settings: Labels, backbone: Backbone, given: Given) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        self.fc = nn.Linear(backbone.out_channels, given.num_classes)
        self.teacher = given.backbones.get("teacher")
        self.bank = MemoryBank(given.num_images)

    def classify(self, images: Tensor) -> Tensor:
        return self.settings.scale * self.fc(self.backbone(self.backbone.input.prepare(images)))

    def loss(self, batch: Batch) -> Tensor:
        assert batch.labels is not None
        return nn.functional.cross_entropy(self.classify(batch.views["image"]), batch.labels)

    def players(self) -> dict[str, list[nn.Parameter]]:
        return {"main": [*self.backbone.parameters(), *self.fc.parameters()]}


LABELS = Recipe(
    title="Labels",
    method=Labels(scale=0.5),
    backbone=SMALL,
    input=InputSpec(32),
    data=Pool("imagenet", labels=True),
    length=Steps(3),
    batch_size=8,
    optimizers={"main": SGD(lr=0.1)},
    schedule=Constant(),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet with seven classes of noise, told apart by their colour."""
    root, rng = tmp_path_factory.mktemp("world"), np.random.default_rng(0)
    for label in range(CLASSES):
        for split, count in (("train", 6), ("val", 3 + label)):
            for number in range(count):
                path = root / f"imagenet/{split}/n0000000{label}/{split}_{label}_{number}.JPEG"
                colour = tuple(int(c) for c in rng.integers(0, 256, 3))
                image(path, colour, (40 + 3 * number, 50))  # type: ignore[arg-type]
    return root


@pytest.fixture(scope="module")
def supervised(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return pretrained("supervised", world, tmp_path_factory.mktemp("runs"))


def pretrained(name: str, world: Path, runs: Path) -> Run:
    run = Run(name, "smoke", 0, world, runs)
    recipe = run.resolved(find_recipes()[name])
    pretrain(recipe, name, pretraining_images(recipe, world), run.folder, on_cpu())
    return run


def test_it_is_the_accuracy_of_the_methods_last_layer(world: Path, supervised: Run):
    """From the two files and the pictures, image by image, in numpy."""
    record = score(OWN, supervised, on_cpu())
    backbone, facts = load_backbone(supervised.backbone)
    assert facts["origin"]["recipe"] == "supervised"
    weights = load_file(supervised.method)
    fc, bias = (weights[f"fc.{name}"].double().numpy() for name in ("weight", "bias"))
    val, places = open_dataset(world, "imagenet", "val"), []
    short, side = round(64 * 256 / 224), 64
    for number, label in enumerate(val.labels.values):
        picture = val.open(number)
        scale = short / min(picture.size)
        size = [max(int(length * scale), short) for length in picture.size]
        resized = picture.resize(size, Image.Resampling.BILINEAR)
        left, top = (round((length - side) / 2) for length in size)
        pixels = torch.from_numpy(np.array(resized.crop((left, top, left + side, top + side)))).permute(2, 0, 1)
        with torch.no_grad():
            feature = backbone(backbone.input.prepare(pixels[None]))[0].double().numpy()
        logits = fc @ feature + bias
        places.append(int((logits > logits[label]).sum()))
    assert record.metrics["top1"] == pytest.approx(100 * np.mean(np.array(places) < 1))
    assert record.metrics["top5"] == pytest.approx(100 * np.mean(np.array(places) < 5))
    assert 0 < record.metrics["top1"] < record.metrics["top5"] < 100, "a chance or perfect score would prove little"


def test_two_processes_write_the_record_of_one(supervised: Run):
    alone, pair = (in_processes(count, record_in_small_batches, OWN, supervised) for count in (1, 2))
    assert [outcome.error for outcome in (*alone, *pair)] == [None] * 3
    assert [outcome.value for outcome in pair] == [alone[0].value] * 2


def test_s4l_is_scored_by_its_own_classifier(world: Path, tmp_path: Path):
    run = pretrained("s4l_rotation_10pct", world, tmp_path)
    record = score(OWN, run, on_cpu())
    assert record.origin["method"]["offers"] == ["classify"]
    assert record.transfer_data.keys() == {"imagenet/val"}
    head = load_file(run.method)["classes.weight"]
    assert head.shape == (CLASSES, load_backbone(run.backbone)[0].out_channels)


def test_a_method_without_a_classifier_is_refused(world: Path, tmp_path: Path):
    run = pretrained("rotation", world, tmp_path)
    assert not run.method.exists()
    assert "method" not in read_facts(run.backbone)["origin"]
    with pytest.raises(
        UserError,
        match=r"own_classifier_imagenet asks the trained method for classify; this run's method offers nothing",
    ):
        score(OWN, run, on_cpu())


class Turned(Linear):
    """Answers something of its own."""

    answers = ("share_of_turned",)

    def share_of_turned(self, images: Tensor) -> float:
        return float((self.classify(images.rot90(1, (2, 3))) != self.classify(images)).double().mean())


class Promising(Linear):
    answers = ("share_of_turned",)


class HowOftenTurned(Transfer):
    card = ProtocolCard(
        "turned", 1, "", "", {"share": Metric(range=(0, 1), higher=False)}, (("imagenet", "val"),), "", "",
        asks=("share_of_turned",),
    )  # fmt: skip

    def run(self, backbone: Backbone, context: Context) -> Scores:
        assert context.trained
        images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        return Scores({"share": context.trained.method.share_of_turned(images)})


TURNED = """
from dataclasses import dataclass, replace
from test_own_classifier import LABELS, Labels, Turned

@dataclass(frozen=True)
class Turns(Labels):
    def build(self, backbone, given):
        return Turned(self, backbone, given)

turned = replace(LABELS, method=Turns())
"""


def test_a_transfer_may_ask_what_a_method_answers(world: Path, supervised: Run, tmp_path: Path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/turned.py").write_text(TURNED)
    run = Run("turned", "paper", 0, world, tmp_path / "runs")
    recipe = run.resolved(all_recipes(tmp_path / "own")["turned"])
    pretrain(recipe, run.name, pretraining_images(recipe, world), run.folder, on_cpu())
    assert read_facts(run.backbone)["origin"]["method"]["offers"] == ["classify", "share_of_turned"]
    own = tmp_path / "own"
    assert score(HowOftenTurned(), run, on_cpu(), recipes_dir=own, incomplete=True).metrics["share"] == 1.0
    said = "asks the trained method for share_of_turned; this run's method offers classify"
    with pytest.raises(UserError, match=said):
        score(HowOftenTurned(), supervised, on_cpu())
    with pytest.raises(UserError, match=r"Promising.answers names 'share_of_turned', which is not a method of it"):
        Promising(Labels(), SMALL.build(InputSpec(32)), Given(4, 2)).offers()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metrics": {"top1": "%"}}, "metrics is .*, which is not of type"),
        ({"metrics": {}}, "it has no metrics"),
        ({"takes": "ResNet"}, "takes is 'ResNet', which is not of type"),
    ],
)
def test_a_card_that_says_something_else_is_refused(change: dict[str, Any], said: str):
    with pytest.raises(UserError, match=f"the card of turned: {said}"):
        replace(HowOftenTurned.card, **change)
    with pytest.raises(UserError, match="Metric: "):
        Metric("s", (0, 1), "lower")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="Metric: "):
        Metric("s", (1, 1))


def test_a_table_with_such_a_column_leaves_that_row_out_without_failing(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pretrained("rotation", world, tmp_path)
    steps = RowWork([OWN.card.id], on_cpu())(Run("rotation", "smoke", 0, world, tmp_path))
    assert steps.failures == {}
    assert "transfer to own_classifier_imagenet: left out" in capsys.readouterr().out
    assert steps.done == steps.total == 2


def test_every_row_that_a_table_scores_by_its_own_classifier_has_one():
    recipes = find_recipes()
    tables = [one for one in read_layouts() if any(column.transfer == OWN.card.id for column in one.columns)]
    assert len(tables) == 3
    scored = {*recipes_of(tables), *(name for one in tables for name in one.references)}
    for name in {name for name in scored if not recipes[name].after}:  # tests/test_simclr_transfers.py has the others
        recipe = at_scale(recipes[name], "smoke")
        assert build_method(recipe, Given(8, CLASSES)).offers() == ["classify"], name


def test_a_users_recipe_is_scored_where_its_folder_is_named(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/mine.py").write_text("from recipes.supervised import supervised\n\nmine = supervised\n")
    flags = ["--scale", "smoke", "--data", str(world), "--runs", str(tmp_path), "--workers", "0", "--device", "cpu"]
    folder = ["--recipes-dir", str(tmp_path / "own")]
    assert cli.run(["pretrain", "mine", *flags, *folder]) == 0
    assert cli.run(["transfer", "mine", OWN.card.id, *flags]) == 2
    assert "no recipe 'mine' to build it by; give its folder as --recipes-dir" in capsys.readouterr().err
    assert cli.run(["transfer", "mine", OWN.card.id, *flags, *folder]) == 0
    assert (tmp_path / "smoke/mine/seed0/own_classifier_imagenet.json").is_file()


def rewritten(path: Path, change: Callable[[dict[str, Tensor], dict], object]) -> None:
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["sslbench"])
    tensors = load_file(path)
    change(tensors, facts)
    save_file(tensors, path, {"sslbench": json.dumps(facts)})


def copied(run: Run, runs: Path) -> Run:
    run_there = dataclasses.replace(run, runs=runs)
    run_there.folder.mkdir(parents=True)
    for path in (run.backbone, run.method):
        (run_there.folder / path.name).write_bytes(path.read_bytes())
    return run_there


def test_another_runs_method_is_refused(supervised: Run, tmp_path: Path):
    run = copied(supervised, tmp_path)
    rewritten(run.method, lambda tensors, _: tensors["fc.bias"].add_(1))
    with pytest.raises(UserError, match=r"method.safetensors: gone, or not this backbone's; delete"):
        score(OWN, run, on_cpu())
    run.method.unlink()
    with pytest.raises(UserError, match=r"method.safetensors: gone"):
        score(OWN, run, on_cpu())


def test_a_changed_run_is_built_with_its_own_settings(world: Path, tmp_path: Path):
    run = Run("supervised@method.crop_area=-0.5-1.0-", "smoke", 0, world, tmp_path)
    recipe = with_change(run.resolved(find_recipes()["supervised"]), "method.crop_area", (0.5, 1.0))
    pretrain(recipe, run.name, pretraining_images(recipe, world), run.folder, on_cpu())
    assert score(OWN, run, on_cpu()).recipe == run.name
    assert load_method(run.method, type(recipe.method)).method is not None
    with safe_open(run.method, framework="pt") as file:
        assert json.loads(file.metadata()["sslbench"])["settings"] == as_plain(recipe.method)


@pytest.mark.parametrize(
    ("pool", "width", "said"),
    [
        (Pool("imagenet", labels=True), 5, r"Linear.classify gave \(42, 5\) scores, not \(42, 7\)"),
        (Pool("imagenet"), CLASSES, "trained on other classes than those of imagenet/val"),
    ],
)
def test_a_method_that_classifies_something_else_is_told(
    pool: Pool, width: int, said: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Fewer scores than classes; and a classifier of what no label named."""
    monkeypatch.setattr(Linear, "loss", lambda self, batch: self.classify(batch.views["image"]).mean())
    monkeypatch.setattr(Labels, "build", lambda self, net, given: Linear(self, net, replace(given, num_classes=width)))
    run = Run("mine", "smoke", 0, world, tmp_path)
    recipe = replace(LABELS, data=pool)
    pretrain(recipe, run.name, pretraining_images(recipe, world), run.folder, on_cpu())
    monkeypatch.setattr("benchmark.runs.scoring.all_recipes", lambda _: {"mine": recipe})
    with pytest.raises(UserError, match=said):
        score(OWN, run, on_cpu())


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `LABELS` that comes after another."""
    folder = tmp_path_factory.mktemp("after")
    images = drawn_images(folder / "images")
    given = {"teacher": pretrain(LABELS, "teacher", images, folder / "teacher", on_cpu())}
    pretrain(replace(LABELS, after={"teacher": "teacher"}), "student", images, folder / "student", on_cpu(), given)
    return folder / "student"


@pytest.fixture
def kept(student: Path, tmp_path: Path) -> Path:
    """A copy of its method file."""
    return Path(shutil.copy(student / "method.safetensors", tmp_path))


def test_the_method_comes_back_whole_but_for_its_bank(kept: Path, student: Path):
    assert "bank.rows" not in load_file(kept)
    before = torch.random.get_rng_state()
    trained = load_method(kept, Labels)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert trained.classes == ("a", "b", "c", "d")
    method = trained.method
    assert isinstance(method, Linear)
    assert method.settings == Labels(scale=0.5)
    assert not any(module.training for module in method.modules())
    assert method.bank.rows.shape == (48, 128)
    state = method.state_dict()
    for name, tensor in load_file(kept).items():
        assert torch.equal(state[name], tensor), name
    teacher = load_backbone(student.parent / "teacher" / "backbone.safetensors")[0]
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(state[f"teacher.{name}"], tensor), name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors, facts: tensors.pop("fc.bias"), "missing: fc.bias"),
        (lambda tensors, facts: tensors.update(more=torch.zeros(1)), "unexpected: more"),
        (lambda tensors, facts: facts["given"].update(num_classes=5), "fc.weight is .4, .* wanted .5"),
        (lambda tensors, facts: facts["settings"].update(tau=1.0), "unexpected keyword argument 'tau'"),
        (lambda tensors, facts: facts["settings"].update({"is": "Path"}), "there is no 'Path'"),
        (lambda tensors, facts: facts["backbone"]["architecture"].update(depth=18), "depth is 18"),
        (lambda tensors, facts: facts.update(format="sslbench-backbone-2"), "not a method file of format"),
        (lambda tensors, facts: facts.pop("classes"), "not a method file of format"),
    ],
)
def test_a_method_file_that_is_not_what_it_says_is_refused(kept: Path, change: Callable, said: str):
    rewritten(kept, change)
    with pytest.raises(UserError, match=said) as told:
        load_method(kept, Labels)
    assert str(kept) in str(told.value)


def test_other_classes_are_refused(supervised: Run, world: Path, tmp_path: Path):
    """As many, but others: an index would mean another thing."""
    for split in ("train", "val"):
        for folder in (world / "imagenet" / split).iterdir():
            target = tmp_path / "other" / "imagenet" / split / folder.name.replace("n0000000", "n0000001")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(folder)
    run = dataclasses.replace(copied(supervised, tmp_path / "runs"), data_root=tmp_path / "other")
    with pytest.raises(UserError, match=r"trained on other classes than those of imagenet/val"):
        score(OWN, run, on_cpu())
