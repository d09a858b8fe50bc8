"""Every transfer found runs on a small world, the same twice; and what each protocol must never do."""

from __future__ import annotations

import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC
from test_results import a_record

from benchmark.backbones.alex64 import Alex64
from benchmark.backbones.alexnet import ROTNET
from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.weights import save_backbone
from benchmark.backbones.with_head import WithProjectionHead
from benchmark.core.errors import UserError
from benchmark.core.optimisation import Milestones, Steps
from benchmark.data.datasets import open_dataset
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes, Presence
from benchmark.data.splits import percent_of
from benchmark.engine.train import Machine
from benchmark.recipe.contract import Architecture
from benchmark.recipe.inputs import InputSpec
from benchmark.records.per_image import KEY
from benchmark.records.soundness import faults
from benchmark.runs import scoring
from benchmark.runs.current import is_scored
from benchmark.runs.run import Run
from benchmark.toyland import build_world
from benchmark.toyland.layouts import voc
from benchmark.transfers import contract, find_transfers, pictures, training
from benchmark.transfers.contract import Context, Scores, Transfer
from benchmark.transfers.features import GOYAL_TAPS, NotFrozenError, extract, state_hash
from benchmark.transfers.linear import LinearTransfer
from benchmark.transfers.metrics import area_ap
from benchmark.transfers.preprocessing import squash
from benchmark.transfers.training import Course
from benchmark.transfers.voc_svm import normalized, rotated, svm

# those that ask for more than a backbone are in tests/test_own_classifier.py
TRANSFERS = {name: transfer for name, transfer in find_transfers().items() if not transfer.card.asks}
FROZEN = sorted(name for name, transfer in TRANSFERS.items() if transfer.card.frozen.startswith("everything"))
DATASETS = ("imagenet", "places205", "inat2018", "voc2007", "voc2012", "coco2017")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"), "smoke", datasets=DATASETS, progress=False)


def small(architecture: str = "ResNet") -> Backbone:
    torch.manual_seed(0)
    network: Architecture = replace({"AlexNet": ROTNET, "Alex64": Alex64()}.get(architecture, ResNet()), width=0.0625)
    if architecture == "WithProjectionHead":
        network = WithProjectionHead(network, dim=8, layers=2)
    return network.build(InputSpec(32)).eval()


def small_for(name: str) -> Backbone:
    """One that the transfer takes."""
    return small(*TRANSFERS[name].card.takes[:1])


def context(world: Path, workspace: Path, workers: int = 0, seed: int = 0) -> Context:
    return Context(world, "smoke", seed, workspace, torch.device("cpu"), workers, lambda *_: None)


def short_paper(name: str) -> LinearTransfer:
    """A linear protocol as it is at paper scale (new views in every epoch, the best iterate), but six steps long."""
    transfer = TRANSFERS[name]
    assert isinstance(transfer, LinearTransfer)
    course = Course(Steps(6), 16, Milestones((Steps(3),)))
    track = transfer.values["paper"].track_every and Steps(2)
    return LinearTransfer(transfer.card, {"smoke": replace(transfer.values["paper"], course=course, track_every=track)})


@pytest.mark.parametrize("name", TRANSFERS)
def test_runs_and_gives_the_same_twice(name: str, world: Path, tmp_path: Path):
    transfer, backbone = TRANSFERS[name], small_for(name)
    before = state_hash(backbone)
    first = transfer.run(backbone, context(world, tmp_path / "first"))
    assert first.metrics.keys() == transfer.card.metrics.keys()
    assert all(math.isfinite(value) and 0 <= value <= 100 for value in first.metrics.values())
    assert len(first.data) == len(transfer.card.datasets)
    assert json.loads(json.dumps(first.detail)) == first.detail
    assert list(faults(a_record(metrics=first.metrics, detail=first.detail), transfer.card.metrics)) == []
    assert (KEY in first.detail) == ("_det_" not in name), "what each image contributes"
    assert state_hash(backbone) == before
    assert not list(tmp_path.rglob("*.pt")), "a checkpoint outlived its run"
    assert transfer.run(backbone, context(world, tmp_path / "second")) == first


@pytest.mark.parametrize(
    "transfer",
    [
        short_paper("linear_imagenet_goyal"),
        *(TRANSFERS[name] for name in ("semi_supervised_10pct_pirl", "voc07_svm_goyal")),
        *(TRANSFERS[name] for name in ("voc12_seg_fcn_moco", "voc0712_det_c4_moco", "coco_det_c4_moco")),
        *(TRANSFERS[name] for name in ("voc07_cls_krahenbuhl", "voc12_seg_fcn32s")),
    ],
    ids=lambda transfer: transfer.card.id,
)
def test_the_number_of_workers_changes_nothing(transfer: Transfer, world: Path, tmp_path: Path):
    backbone = small_for(transfer.card.id)
    alone, with_two = (transfer.run(backbone, context(world, tmp_path / str(n), workers=n)) for n in (0, 2))
    assert alone == with_two


@pytest.mark.parametrize("name", FROZEN)
def test_a_backbone_in_training_mode_is_an_error(name: str, world: Path, tmp_path: Path):
    with pytest.raises(NotFrozenError):
        TRANSFERS[name].run(small_for(name).train(), context(world, tmp_path))


@pytest.mark.parametrize("name", TRANSFERS)
def test_features_that_are_not_finite_are_an_error(name: str, world: Path, tmp_path: Path):
    backbone = small_for(name)
    next(backbone.parameters()).data.fill_(math.nan)
    with pytest.raises(UserError, match=r"loss is nan at step|not finite"):
        TRANSFERS[name].run(backbone, context(world, tmp_path))


@pytest.mark.parametrize("name", [name for name in FROZEN if name != "knn_imagenet_wu"])
def test_the_test_images_choose_nothing(name: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Below paper scale, other test labels change nothing that was selected."""
    test = TRANSFERS[name].card.at("smoke").datasets[1]

    def reversed_labels(root: Path, *dataset: str) -> ImageSet:
        images = open_dataset(root, *dataset)
        assert images.labels is not None
        turned = images.labels.at(np.arange(len(images))[::-1])
        return replace(images, labels=turned) if dataset == test else images

    honest = TRANSFERS[name].run(small_for(name), context(world, tmp_path))
    monkeypatch.setattr(contract, "open_dataset", reversed_labels)
    other = TRANSFERS[name].run(small_for(name), context(world, tmp_path / "other"))
    assert other.detail["selected"] == honest.detail["selected"]
    assert other.data != honest.data


def test_at_paper_scale_the_best_stage_and_iterate_count(world: Path, tmp_path: Path):
    found = short_paper("linear_imagenet_goyal").run(small(), context(world, tmp_path))
    assert list(found.detail["per_stage"]) == ["conv1", "res2", "res3", "res4", "res5", "res5_average"]
    assert found.metrics["top1"] == max(found.detail["per_stage"].values())
    assert found.detail["selected"]["on"] == "imagenet/val"


KILLED = """
    import os, signal, sys
    sys.path[:0] = {path!r}
    from pathlib import Path
    import test_transfer_protocols as here
    from benchmark.transfers import training
    training.CHECKPOINT_SECONDS = -1.0
    saves, write = [], training.write_state
    def write_and_die(path, content):
        write(path, content)
        saves.append(path)
        if len(saves) == {saves}:
            os.kill(os.getpid(), signal.SIGKILL)
    training.write_state = write_and_die
    {transfer}.run(here.small_for({transfer}.card.id), here.context(Path({world!r}), Path({workspace!r})))
"""


@pytest.mark.parametrize(
    ("transfer", "saves"),
    [
        ("here.TRANSFERS['linear_places205_pirl']", 1),
        ("here.short_paper('linear_imagenet_goyal')", 5),
        ("here.short_paper('linear_imagenet_moco')", 5),  # which keeps the best of its iterates
        ("here.TRANSFERS['semi_supervised_10pct_pirl']", 1),
        ("here.TRANSFERS['voc12_seg_fcn_moco']", 2),
        ("here.TRANSFERS['voc12_seg_fcn32s']", 2),
        ("here.TRANSFERS['voc07_cls_krahenbuhl']", 3),
        ("here.TRANSFERS['voc07_det_c4_pirl']", 3),
        ("here.TRANSFERS['voc0712_det_c4_moco']", 4),
    ],
)
def test_killed_and_started_again_it_ends_the_same(
    transfer: str, saves: int, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    script = KILLED.format(
        path=[str(Path(__file__).parent), str(Path(__file__).parent.parent)],
        transfer=transfer,
        saves=saves,
        world=str(world),
        workspace=str(tmp_path),
    )
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert died.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("*.pt"))) == 1

    restored, restore = [], training._restore
    monkeypatch.setattr(training, "_restore", lambda *given: restored.append(restore(*given)) or restored[-1])
    resumed = eval(transfer, {"here": sys.modules[__name__]})
    backbone = small_for(resumed.card.id)
    again, whole = (resumed.run(backbone, context(world, at)) for at in (tmp_path, tmp_path / "whole"))
    assert again == whole
    assert restored == [saves, 0]


def test_a_file_that_is_no_checkpoint_is_named(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(training, "write_state", lambda path, _: (path.write_bytes(b"no"), sys.exit(1)))
    with pytest.raises(SystemExit):
        TRANSFERS["linear_imagenet_pirl"].run(small(), context(world, tmp_path))
    (path,) = tmp_path.glob("*.pt")
    with pytest.raises(UserError, match=path.name):
        TRANSFERS["linear_imagenet_pirl"].run(small(), context(world, tmp_path))


def fair_script(
    x: np.ndarray, codes: np.ndarray, x_test: np.ndarray, test_codes: np.ndarray, costs: tuple[float, ...]
) -> float:
    """AP of one class, written plainly: ±1 labels, three folds by hand, no rotation of the features."""

    def fitted(cost: float, rows: np.ndarray) -> LinearSVC:
        machine = LinearSVC(C=cost, class_weight={1: 2, -1: 1}, dual=True, max_iter=2000, random_state=0)
        return machine.fit(x[rows], y[rows])

    y = np.where(codes == 0, -1, codes)
    chosen: list[tuple[float, float]] = []
    for cost in costs:
        folds = [
            average_precision_score(y[held], fitted(cost, fit).decision_function(x[held]))
            for fit, held in StratifiedKFold(3).split(x, y)
        ]
        chosen.append((float(np.mean(folds)), -cost))
    tested = test_codes != -1
    scores = fitted(-max(chosen)[1], np.arange(len(y))).decision_function(x_test[tested])
    return area_ap(scores, test_codes[tested] == 1)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("dimensions", [40, 600])
def test_the_svm_is_scikit_learns_without_the_rotation(dimensions: int):
    generator = np.random.default_rng(dimensions)
    codes, test_codes = generator.choice([-1, 0, 1], (2, 150, 4), p=[0.1, 0.6, 0.3])
    means = generator.standard_normal((2, dimensions)) * 2 / dimensions**0.5

    def features(given: np.ndarray) -> np.ndarray:
        noise = generator.standard_normal((len(given), dimensions))
        return normalized((noise + means[(given[:, 0] == 1).astype(int)] + 0.1).astype(np.float32))

    x, x_test, costs = features(codes), features(test_codes), (0.1, 1.0, 10.0)
    z, z_test = rotated(x, x_test)
    assert z.shape[1] == min(150, dimensions)
    ours = [svm(z, codes[:, c], z_test, test_codes[:, c], costs).ap for c in range(4)]
    theirs = [fair_script(x, codes[:, c], x_test, test_codes[:, c], costs) for c in range(4)]
    assert ours[0] > 45  # there is something to find in the first class
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.1)


def test_the_voc_map_is_that_of_a_plain_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The whole protocol on a small world, whose classes are shown often enough, against raw features and the script
    above."""
    monkeypatch.setitem(voc.SIZES[2007], "smoke", {"train": 30, "val": 30, "test": 40})
    world = build_world(tmp_path / "world", "smoke", datasets=["voc2007"], progress=False)
    here, backbone = context(world, tmp_path), small()
    found = TRANSFERS["voc07_svm_goyal"].run(backbone, here)
    train, test = (open_dataset(world, "voc2007", split) for split in ("trainval", "test"))
    codes, test_codes = (images.labelled(Presence).values for images in (train, test))
    stage, scored = found.detail["selected"]["stage"], found.detail["per_class"]
    x, x_test = (extract(backbone, images, squash(32), GOYAL_TAPS, here)[stage] for images in (train, test))
    enough = [c for c, name in enumerate(train.classes) if name in scored[stage] and (codes[:, c] == 1).sum() >= 3]
    assert len(enough) > 5
    for c in enough:
        args = normalized(x), codes[:, c], normalized(x_test), test_codes[:, c]
        assert scored[stage][train.classes[c]] == pytest.approx(fair_script(*args, (0.1, 1.0)), abs=0.1)
    assert found.metrics["map"] == pytest.approx(np.mean(list(scored[stage].values())))
    assert {*found.detail["classes_without_a_positive"], *scored[stage]} == {*train.classes}


def test_ignored_images_are_negatives_in_training_and_absent_from_the_test():
    x = np.eye(12)
    codes = np.array([1, 1, 1, 1, -1, -1, -1, -1, 0, 0, 0, 0])
    ignored, negative = (svm(x, trained, x, codes, (1.0,)) for trained in (codes, np.where(codes == -1, 0, codes)))
    assert ignored.ap == negative.ap
    assert ignored.folds_ap == negative.folds_ap
    assert np.array_equal(ignored.scores, negative.scores)
    best = svm(x, codes, x, np.where(codes == 1, 1, -1), (1.0,))  # only positives are left to be scored
    assert best.ap == 100.0


def test_ten_percent_lists_beside_the_images_are_used(world: Path, tmp_path: Path):
    train = open_dataset(world, "imagenet", "train")
    drawn = percent_of(train, 10, seed=0)
    assert len(set(drawn.labelled(Classes).values.tolist())) == len(train.classes)
    assert percent_of(train, 10, seed=1).files != drawn.files
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet/10percent.txt").write_text("\n".join(Path(train.files[i]).name for i in (3, 1)))
    listed = percent_of(replace(train, root=tmp_path / "imagenet"), 10, seed=0)
    assert list(listed.files) == [train.files[i] for i in (1, 3)]


def test_a_transfer_in_a_file_of_its_own_is_found(tmp_path: Path):
    body = """
        from benchmark.records.metric import Metric
        from benchmark.transfers.contract import ProtocolCard, Transfer

        class Mine(Transfer):
            card = ProtocolCard("{}", 1, "", "", {{"x": Metric()}}, (), "nothing", "nothing")

        mine = Mine()
    """
    (tmp_path / "mine.py").write_text(textwrap.dedent(body.format("mine_me")))
    assert find_transfers(tmp_path).keys() == {*find_transfers(), "mine_me"}
    (tmp_path / "other.py").write_text(textwrap.dedent(body.format("knn_imagenet_wu")))
    with pytest.raises(UserError, match="knn_imagenet_wu"):
        find_transfers(tmp_path)


class Engined(Transfer):
    """Says which engine it ran on."""

    card = replace(TRANSFERS["knn_imagenet_wu"].card, id="engined_nobody")
    engines = ("one", "two")

    def run(self, backbone: Backbone, context: Context) -> Scores:
        return Scores(dict.fromkeys(self.card.metrics, float(len(context.engine or ""))), picture=b"a picture")


def test_the_engine_is_part_of_the_record(world: Path, tmp_path: Path):
    run = Run("norm", "smoke", 0, world, tmp_path)
    origin = {"recipe_hash": "h", "resolved": {}}
    save_backbone(run.backbone, small(), origin)
    machine = Machine(torch.device("cpu"), 0)
    record = scoring.score(Engined(), run, machine)
    assert record.detail["engine"] == "one"
    assert is_scored(Engined(), run)
    assert is_scored(Engined(), run, "one")
    assert not is_scored(Engined(), run, "two")
    assert scoring.score(Engined(), run, machine, "two").detail["engine"] == "two"
    assert not is_scored(Engined(), run)
    with pytest.raises(UserError, match="no engine 'three'; it has one, two"):
        scoring.score(Engined(), run, machine, "three")
    with pytest.raises(UserError, match="knn_imagenet_wu has no engine 'one'"):
        scoring.score(TRANSFERS["knn_imagenet_wu"], run, machine, "one")


def test_pictures_are_linked_from_the_report_of_the_run(world: Path, tmp_path: Path):
    run = Run("norm", "smoke", 0, world, tmp_path)
    save_backbone(run.backbone, small(), {"recipe_hash": "h", "resolved": {}})
    scoring.score(Engined(), run, Machine(torch.device("cpu"), 0))
    assert (run.folder / "engined_nobody.png").read_bytes() == b"a picture"
    page = (run.folder / "report.md").read_text()
    assert page.count("## engined_nobody") == 1
    (link,) = re.findall(r"!\[[^]]*\]\(([^)]*)\)", page)
    assert (run.folder / link).is_file()
    assert "| top1 | 3.0 |" in page


@pytest.mark.parametrize("name", [name for name in TRANSFERS if name.startswith("voc12") or "_det_" in name])
def test_a_picture_shows_test_images(name: str, world: Path, tmp_path: Path):
    found = TRANSFERS[name].run(small_for(name), context(world, tmp_path))
    with Image.open(io.BytesIO(found.picture)) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) >= 256
        assert len(set(picture.convert("RGB").getdata())) > 100


def test_images_with_boxes_and_masks():
    grey = Image.new("RGB", (100, 50), (90, 90, 90))
    boxes = np.array([[10, 10, 40, 40], [60, 10, 90, 40]], dtype=np.float32)
    tile = pictures.with_boxes(grey, boxes[:1], boxes, np.array([0.3, 0.9]), np.array([0, 14]))
    assert tile.size == (256, 128)
    left, right = (set(tile.crop((x, 0, x + 128, 128)).getdata()) for x in (0, 128))
    assert pictures.TRUTH in left
    assert pictures.FOUND not in left  # its score is too low to be drawn
    assert pictures.FOUND in right
    truth, found = np.full((50, 100), 255, np.uint8), np.full((50, 100), 15, np.uint8)
    whole = pictures.with_masks(grey, truth, found)
    assert [whole.getpixel((x, 5)) for x in (5, 260, 520)] == [(90, 90, 90), (255, 255, 255), (192, 128, 128)]
