"""An imported backbone by its name: transfers, records, tables, and out again to other libraries."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from foreign_networks import resnet, trained
from safetensors.torch import load_file
from torchvision.models import resnet50

from benchmark import cli
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.weights import load_backbone, save_backbone
from benchmark.core.errors import UserError
from benchmark.engine.train import Machine
from benchmark.exchange import libraries
from benchmark.exchange.exporting import export_backbone
from benchmark.gate.staleness import now_of
from benchmark.recipe.inputs import BGR, RGB, InputSpec
from benchmark.records.currency import reasons
from benchmark.records.record import Record, read_record
from benchmark.runs import current
from benchmark.runs.reproduce import RowWork
from benchmark.runs.run import Run
from benchmark.toyland import build_world

KNN, LINEAR = "knn_imagenet_wu", "linear_imagenet_pirl"
ON = ["--scale", "smoke", "--device", "cpu", "--workers", "0"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the one dataset that nearest neighbours read."""
    folder = tmp_path_factory.mktemp("home")
    build_world(folder / "data", "smoke", datasets=["imagenet"], progress=False)
    torch.save(resnet().state_dict(), folder / "theirs.pth")
    return folder


@pytest.fixture
def home(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `mine` has been imported; data/ and theirs.pth are shared."""
    for name in ("data", "theirs.pth"):
        (tmp_path / name).symlink_to(world / name)
    monkeypatch.chdir(tmp_path)
    current.split_fingerprint.cache_clear()
    assert cli.run(["import", "theirs.pth", "--as", "mine", "--size", "32"]) == 0
    return tmp_path


def score(*flags: str, transfer: str = KNN) -> int:
    return cli.run(["transfer", "mine", transfer, *ON, "--data", "data", *flags])


def record_of(seed: int = 0, transfer: str = KNN) -> Record:
    return read_record(Path(f"runs/smoke/mine/seed{seed}/{transfer}.json"))


def test_from_a_file_to_a_record_that_says_where_it_came_from(home: Path, capsys: pytest.CaptureFixture[str]):
    assert score() == 0
    record = record_of()
    assert record.recipe == "mine"
    assert record.origin["file"] == "theirs.pth"
    assert record.origin["format"] == record.settings["imported"]["format"] == "torchvision"
    assert record.origin["dropped"] == ["fc.weight", "fc.bias"]
    assert record.settings["imported"]["sha256"] == record.origin["sha256"]
    assert record.settings["input"]["size"] == 32
    assert 0 <= record.metrics["top1"] <= 100

    capsys.readouterr()
    assert score() == 0  # it is current, so nothing runs
    assert capsys.readouterr().out.startswith("record: ")
    assert score("--seed", "3") == 0  # one import serves every seed and scale
    assert record_of(3).backbone_hash == record.backbone_hash


def test_another_file_under_the_name_makes_the_record_stale(home: Path):
    score()
    torch.save(resnet(seed=1).state_dict(), "others.pth")
    before = record_of()
    assert cli.run(["import", "others.pth", "--as", "mine", "--size", "32"]) == 0
    assert score() == 0
    assert record_of().backbone_hash != before.backbone_hash
    assert record_of().recipe_hash != before.recipe_hash


def test_weights_that_give_way_to_others_are_told(home: Path, capsys: pytest.CaptureFixture[str]):
    capsys.readouterr()
    assert cli.run(["import", "theirs.pth", "--as", "mine", "--size", "32"]) == 0
    assert "replaced" not in capsys.readouterr().out  # by the same
    torch.save(resnet(seed=1).state_dict(), "others.pth")
    assert cli.run(["import", "others.pth", "--as", "mine", "--size", "32"]) == 0
    digest = hashlib.sha256(Path("theirs.pth").read_bytes()).hexdigest()[:12]
    told = f"mine.safetensors had other weights, of theirs.pth, format torchvision, SHA-256 {digest}; they are replaced"
    assert told in capsys.readouterr().out
    Path("runs/imported/mine.safetensors").write_bytes(b"something")
    assert cli.run(["import", "others.pth", "--as", "mine", "--size", "32"]) == 0
    assert "was there before, and was no backbone file; it is replaced" in capsys.readouterr().out


def test_no_recipe_is_asked_of_an_imported_record(home: Path):
    """Published, it would be stale for the want of one."""
    score()
    assert reasons(record_of(), now_of(record_of())) == []


def test_tables_show_it_beside_the_papers(home: Path, capsys: pytest.CaptureFixture[str]):
    score(transfer=LINEAR)
    tables = ["tables", "--scale", "smoke", "--data", "data"]
    capsys.readouterr()
    assert cli.run(tables) == 0
    shown = capsys.readouterr().out
    assert "## Results that no paper's table shows" in shown
    assert cli.run([*tables, "--with", "mine"]) == 0
    beside = capsys.readouterr().out
    row = next(line for line in beside.splitlines() if line.startswith("mine "))
    assert f"{record_of(transfer=LINEAR).metrics['top1']:.1f}" in row
    assert "## Results that no paper's table shows" not in beside
    assert cli.run([*tables, "--with", "nobody"]) == 2
    assert "--with nobody: it has no number at smoke scale" in capsys.readouterr().err


def test_nothing_is_pretrained_under_an_imported_name(home: Path, capsys: pytest.CaptureFixture[str]):
    """Neither by pretrain nor by reproduce: its scores would be of the imported weights."""
    own, told = Path("own"), "mine is the name of an imported backbone"
    own.mkdir()
    (own / "mine.py").write_text("from recipes.random_init import random_init\n\nmine = random_init\n")
    assert cli.run(["pretrain", "mine", *ON, "--data", "data", "--recipes-dir", "own"]) == 2
    assert told in capsys.readouterr().err
    row = RowWork((), Machine(torch.device("cpu"), 0), own)
    (failure,) = row(Run("mine", "smoke", 0, Path("data"), Path("runs"))).failures.values()
    assert told in failure
    assert cli.run(["reproduce", "mine", *ON, "--data", "data"]) == 2
    assert f"{told}, runs/imported/mine.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("pirl", "a recipe is called so; give another name"),
        ("a/b", "make a name"),
        ("..", "make a name"),
        ("a@b=1", "make a name"),
        ("x.safetensors", "a file's name; give a backbone's, such as x\n"),
        ("x.pth.tar", "a file's name; give a backbone's, such as x\n"),
        ("taken", "is called so; give another name"),
    ],
)
def test_names_that_an_import_cannot_have(name: str, told: str, home: Path, capsys: pytest.CaptureFixture[str]):
    Path("runs/desk/taken/seed0").mkdir(parents=True)
    Path("runs/desk/taken/seed0/backbone.safetensors").touch()
    capsys.readouterr()
    assert cli.run(["import", "theirs.pth", "--as", name]) == 2
    assert told in capsys.readouterr().err


def test_a_misspelt_import_and_a_file_are_told_apart(home: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["transfer", "mime", KNN, *ON, "--data", "data"]) == 2
    assert "did you mean mine" in capsys.readouterr().err
    assert cli.run(["transfer", "theirs.pth", KNN, *ON, "--data", "data"]) == 2
    assert "`sslbench import FILE --as NAME`" in capsys.readouterr().err


def test_bad_input_to_the_command(home: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["import", "absent.pth", "--as", "x"]) == 2
    assert "absent.pth: cannot be read" in capsys.readouterr().err
    assert cli.run(["import", "theirs.pth", "--as", "x", "--format", "moco", "--map", "a.="]) == 2
    assert "--map and --format moco contradict each other" in capsys.readouterr().err
    assert cli.run(["import", "theirs.pth", "--as", "x", "--map", "a.=", "--map=b.="]) == 2
    assert "no key of theirs.pth begins so" in capsys.readouterr().err
    assert not Path("runs/imported/x.safetensors").exists()


@pytest.fixture(scope="module")
def of_torchvision() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return trained(resnet50()).state_dict()


@pytest.fixture
def imported(of_torchvision: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which torchvision's own ResNet-50 has been imported."""
    monkeypatch.chdir(tmp_path)
    torch.save(of_torchvision, "resnet50.pth")
    assert cli.run(["import", "resnet50.pth", "--as", "theirs"]) == 0
    return tmp_path


def test_torchvisions_state_dict_comes_out_as_it_went_in(
    imported: Path, of_torchvision: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
):
    assert cli.run(["export", "theirs", "--to", "torchvision"]) == 0
    assert "input: RGB from 0 to 1, less [0.485, 0.456, 0.406]" in capsys.readouterr().out
    out = torch.load("exported/theirs.torchvision.pth", weights_only=True)
    wanted = {key: one for key, one in of_torchvision.items() if not key.startswith("fc.")}
    assert list(out) == list(wanted)
    assert all(torch.equal(out[key], one) and out[key].dtype == one.dtype for key, one in wanted.items())
    network = resnet50()
    network.fc = torch.nn.Identity()
    network.load_state_dict(out, strict=True)


def test_timm_loads_it_strictly(imported: Path):
    assert cli.run(["export", "theirs", "--to", "timm"]) == 0
    path = "exported/theirs.timm.safetensors"
    network = timm.create_model("resnet50", num_classes=0)
    network.load_state_dict(load_file(path), strict=True)
    made = timm.create_model("resnet50", num_classes=0, checkpoint_path=path).eval()  # as the command says
    backbone, _ = load_backbone(Path("runs/imported/theirs.safetensors"))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(made(x), backbone(x))
    again = ["import", path, "--as", "again"]
    assert cli.run(again) == 0
    back, _ = load_backbone(Path("runs/imported/again.safetensors"))
    assert all(torch.equal(back.state_dict()[key], one) for key, one in backbone.state_dict().items())


def detectron2_layers() -> dict[str, tuple[int, ...]]:
    """Name -> shape of all weights of its ResNet-50, by the structure that its documentation states: a stem, res2 to
    res5, in each block conv1 to conv3 with a norm inside, and in the first a shortcut."""

    def layer(name: str, outputs: int, inputs: int, side: int) -> dict[str, tuple[int, ...]]:
        norm = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (outputs,))
        convolution = {f"{name}.weight": (outputs, inputs, side, side)}
        return convolution | {f"{name}.norm.{key}": shape for key, shape in norm.items()}

    found, inputs = layer("stem.conv1", 64, 3, 7), 64
    for stage, blocks in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True):
        inner, outputs = 64 * 2 ** (stage - 2), 256 * 2 ** (stage - 2)
        for block in range(blocks):
            name = f"res{stage}.{block}"
            found |= layer(f"{name}.shortcut", outputs, inputs, 1) if block == 0 else {}
            found |= layer(f"{name}.conv1", inner, inputs, 1) | layer(f"{name}.conv2", inner, inner, 3)
            found |= layer(f"{name}.conv3", outputs, inner, 1)
            inputs = outputs
    return found


def test_detectron2s_pickle(
    imported: Path, of_torchvision: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
):
    assert cli.run(["export", "theirs", "--to", "detectron2"]) == 0
    assert 'MODEL.PIXEL_MEAN "[123.675, 116.28, 103.53]"' in capsys.readouterr().out  # as its converter says
    content = pickle.loads(Path("exported/theirs.detectron2.pkl").read_bytes())
    assert content.keys() == {"model", "__author__", "matching_heuristics"}
    assert content["matching_heuristics"] is True
    assert {name: one.shape for name, one in content["model"].items()} == detectron2_layers()
    assert {type(one) for one in content["model"].values()} == {np.ndarray}
    theirs = content["model"]
    for ours, name in (
        ("conv1.weight", "stem.conv1.weight"),
        ("bn1.running_mean", "stem.conv1.norm.running_mean"),
        ("layer1.0.downsample.1.bias", "res2.0.shortcut.norm.bias"),
        ("layer3.5.bn2.running_var", "res4.5.conv2.norm.running_var"),
        ("layer4.2.conv3.weight", "res5.2.conv3.weight"),
    ):
        assert np.array_equal(theirs[name], of_torchvision[ours].numpy())


def test_detectron2_itself_loads_it(imported: Path):
    pytest.importorskip("detectron2")
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.modeling import build_backbone

    assert cli.run(["export", "theirs", "--to", "detectron2"]) == 0
    config = get_cfg()
    config.MODEL.RESNETS.STRIDE_IN_1X1, config.MODEL.RESNETS.OUT_FEATURES = False, ["res5"]
    network = build_backbone(config).eval()
    missing = DetectionCheckpointer(network).load("exported/theirs.detectron2.pkl")
    assert not missing.get("unexpected_keys")
    backbone, _ = load_backbone(Path("runs/imported/theirs.safetensors"))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(x)["res5"], backbone.forward_stages(x)["res5"])


@pytest.mark.parametrize(
    ("architecture", "colour", "told"),
    [
        (ResNet(width=0.25), RGB(), r"have width 1 and BatchNorm, and this one has width 0\.25"),
        (ResNet(norm="group"), RGB(), "has width 1 and group norm"),
        (ResNet(), BGR(), "takes RGB images, and this network BGR"),
    ],
)
def test_what_another_library_would_misread_is_refused(architecture: ResNet, colour: RGB, told: str, tmp_path: Path):
    network = architecture.build(InputSpec(colour=colour))
    with pytest.raises(UserError, match=told):
        export_backbone(network, "timm", tmp_path, "x")


def test_a_library_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Which is found, named in errors, and exported for: nothing else knows of it."""
    (tmp_path / "theirs.py").write_text(
        "from benchmark.exchange.contract import ExportFormat\n"
        "write, hint = (lambda state: ' '.join(state).encode()), (lambda how: f'load {how.mean}')\n"
        "FORMAT = ExportFormat('.x', write, hint, white=10)\n"
    )
    monkeypatch.setattr(libraries, "__path__", [*libraries.__path__, str(tmp_path)])
    network = ResNet().build(InputSpec())
    save_backbone(tmp_path / "smoke/x/seed0/backbone.safetensors", network, {})
    flags = ["--scale", "smoke", "--runs", str(tmp_path), "--into", str(tmp_path)]
    assert cli.run(["export", "x", "--to", "theirs", *flags]) == 0
    assert (tmp_path / "x.theirs.x").read_text() == " ".join(network.state_dict())
    assert "load [4.85, 4.56, 4.06]\ninput: RGB from 0 to 10, less [4.85" in capsys.readouterr().out
    assert cli.run(["export", "x", "--to", "tim", *flags]) == 2
    told = "--to tim: there is no such library here (did you mean timm?); known: detectron2, theirs, timm, torchvision"
    assert told in capsys.readouterr().err


def test_another_architecture_is_not_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from benchmark.backbones.alexnet import ROTNET

    network = ROTNET.__class__(ROTNET.channels, width=0.1).build(InputSpec(64))
    save_backbone(tmp_path / "smoke/x/seed0/backbone.safetensors", network, {})
    flags = ["--scale", "smoke", "--runs", str(tmp_path), "--into", str(tmp_path)]
    assert cli.run(["export", "x", "--to", "torchvision", *flags]) == 2
    assert "--to torchvision: takes a ResNet of its own kind, and this is a AlexNet" in capsys.readouterr().err
    assert cli.run(["export", "nobody", "--to", "torchvision", *flags]) == 2
    assert cli.run(["export", str(tmp_path), "--scale", "smoke"]) == 2
    assert "these are for a backbone, with --to; leave out --scale" in capsys.readouterr().err
