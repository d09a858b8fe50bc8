"""Runs on a user's own images: they lie apart from the benchmark's, follow the images' counts, and are in no table."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import handmade
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from test_own_images import tree, zipped

from benchmark import cli
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.weights import load_backbone, read_facts, save_backbone
from benchmark.core.bounds import of_images, queues
from benchmark.core.errors import UserError
from benchmark.core.own_images import OWN_IMAGES
from benchmark.data.datasets import open_dataset
from benchmark.engine.method_file import classes_of
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Recipe, recipe_hash, value_at
from benchmark.recipe.inputs import Grey, InputSpec
from benchmark.recipe.scales import SCALES, at_scale
from benchmark.records.publish import publish_run
from benchmark.records.record import Record, read_record
from benchmark.runs import current, feature_pictures
from benchmark.runs.feature_pictures import embedding, map_picture, nearest_images, neighbours_picture
from benchmark.runs.image_features import ImageFeatures
from benchmark.runs.own_images import OwnImages, called, images_called_in, own_images, recipe_on, require_enough
from benchmark.runs.run import Run
from benchmark.runs.sound_data import checked_data
from benchmark.transfers import find_transfers
from benchmark.transfers.preprocessing import centre_crop

KNN, LINEAR, FEW_LABELS = "knn_imagenet_wu", "linear_imagenet_pirl", "semi_supervised_10pct_pirl"
ON = ["--scale", "smoke", "--device", "cpu", "--workers", "0"]
CLASSES = ("ein Hund", "katze", "Ütze")
RECIPES = find_recipes()
SMALL = ResNet(depth=14, width=0.0625, zero_init_residual=True).build  # smoke scale's


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures of each of three classes, which a colour tells apart."""
    folder = tmp_path_factory.mktemp("of") / "photos"
    rng = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        for i in range(10):
            pixels = rng.integers(0, 20, (40, 48, 3), dtype=np.uint8)
            pixels[..., number] += 230
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def home(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where photos/ lies, and `mine` has been imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    torch.manual_seed(1)
    save_backbone(Path("runs/imported/mine.safetensors"), SMALL(InputSpec(64)), {"recipe_hash": "x", "resolved": {}})
    return tmp_path


def record_at(name: str, transfer: str) -> Record:
    return read_record(Path(f"runs/smoke/{name}/seed0/{transfer}@images=photos.json"))


def test_a_run_on_own_images_is_called_after_them(home: Path):
    """Its bank has a row an image, and its origin tells the images by their fingerprint."""
    assert cli.run(["pretrain", "npid", *ON, "--images", "photos"]) == 0
    path = Path("runs/smoke/npid@images=photos/seed0/backbone.safetensors")
    origin = read_facts(path)["origin"]
    train = open_dataset(Path("photos"), OWN_IMAGES, "train")
    assert origin["num_images"] == len(train) == 21
    assert origin["data"] == "own_images/train"
    assert origin["data_fingerprint"] == train.without_labels().fingerprint()
    assert origin["resolved"]["data"]["dataset"] == OWN_IMAGES
    assert not Path("runs/smoke/npid").exists()
    before = path.stat().st_mtime_ns
    assert cli.run(["pretrain", "npid", *ON, "--images", "photos"]) == 0
    assert path.stat().st_mtime_ns == before


def test_images_that_changed_are_another_run(home: Path, capsys: pytest.CaptureFixture[str]):
    tree(home / "own", *(f"{i}.jpg" for i in range(20)))
    flags = ["pretrain", "npid", *ON, "--images", "own"]
    assert cli.run(flags) == 0
    handmade.image(home / "own" / "new.jpg")
    assert cli.run(flags) == 2
    assert "belongs to another run (data_fingerprint was" in capsys.readouterr().err


def test_a_zip_pretrains_as_the_folder_does(home: Path):
    """Whatever holds the images, the weights are the same: they are the same images in the same order."""
    folder = tree(home / "plain", *(f"{i:02d}.jpg" for i in range(20)))
    zipped(folder, home / "plain.zip")
    for source in ("plain", "plain.zip"):
        assert cli.run(["pretrain", "npid", *ON, "--images", source]) == 0
    one, other = (
        load_backbone(Path(f"runs/smoke/npid@images={source}/seed0/backbone.safetensors"))[0].state_dict()
        for source in ("plain", "plain.zip")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_classes_follow_the_folders(home: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["pretrain", "supervised", *ON, "--images", "photos"]) == 0
    assert classes_of(Path("runs/smoke/supervised@images=photos/seed0/method.safetensors")) == tuple(sorted(CLASSES))
    tree(home / "plain", *(f"{i}.jpg" for i in range(20)))
    assert cli.run(["pretrain", "supervised", *ON, "--images", "plain"]) == 2
    assert "pool 'main' gives no labels, and the method learns from them" in capsys.readouterr().err


def test_linear_nearest_neighbours_and_fine_tuning(home: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["transfer", "mine", KNN, LINEAR, FEW_LABELS, *ON, "--images", "photos"]) == 0
    for transfer in (KNN, LINEAR, FEW_LABELS):
        record = record_at("mine", transfer)
        assert record.transfer == f"{transfer}@images=photos"
        assert {*record.transfer_data} == {"own_images/train", "own_images/val"}
        assert "9 of 30 images, which are held out" in record.detail["skipped"]["own_images/train"][0]
        assert 0 <= record.metrics["top1"] <= 100
    assert record_at("mine", KNN).metrics["top1"] == 100, "a colour tells them apart, even to random weights"
    capsys.readouterr()
    assert cli.run(["transfer", "mine", KNN, *ON, "--images", "photos"]) == 0
    assert capsys.readouterr().out.startswith("record: "), "it is current, so nothing runs"


def test_tables_list_own_scores_by_themselves(home: Path, capsys: pytest.CaptureFixture[str]):
    cli.run(["pretrain", "random_init", *ON, "--images", "photos"])
    cli.run(["transfer", "random_init@images=photos", KNN, *ON, "--images", "photos"])
    cli.run(["transfer", "mine", LINEAR, *ON, "--images", "photos"])
    capsys.readouterr()
    assert cli.run(["tables", "--scale", "smoke"]) == 0
    inside, _, own = capsys.readouterr().out.partition("## Results that no paper's table shows")
    assert not inside.strip()
    assert f"{KNN}@images=photos v1" in own
    assert f"{LINEAR}@images=photos v2" in own
    assert cli.run(["tables", "--scale", "smoke", "--with", "mine"]) == 0
    assert not capsys.readouterr().out.partition("## Results that no paper's table shows")[0].strip()
    (home / "photos").unlink()  # nothing can be held against them now
    current.split_fingerprint.cache_clear()
    assert cli.run(["tables", "--scale", "smoke"]) == 0
    assert "No number at smoke scale" in capsys.readouterr().out


def test_own_scores_are_not_published(home: Path):
    cli.run(["transfer", "mine", KNN, *ON, "--images", "photos"])
    with pytest.raises(UserError, match=f"{KNN}@images=photos came from your own images"):
        publish_run(Path("runs/smoke/mine/seed0"), home / "measured", allow_dirty=True)


def test_nor_are_those_whose_backbone_saw_some(home: Path):
    origin = {
        "data": "imagenet/train",
        "init_from": {"data": "voc2007/trainval", "init_from": {"data": "own_images/train"}},
    }
    cli.run(["transfer", "mine", KNN, *ON, "--images", "photos"])
    record = replace(record_at("mine", KNN), transfer="x", transfer_data={"imagenet/val": "0"}, origin=origin)
    handmade.text(home / "one" / "x.json", record.to_bytes().decode())
    with pytest.raises(UserError, match="x came from your own images"):
        publish_run(home / "one", home / "measured", allow_dirty=True)


def trained_on(split: str) -> dict[str, Any]:
    """The origin of a backbone that learned the labels of photos."""
    pool = {"dataset": OWN_IMAGES, "split": split, "labels": True}
    fingerprint = open_dataset(Path("photos"), OWN_IMAGES, split).fingerprint()
    return {"recipe": "x@images=photos", "data_fingerprint": fingerprint, "resolved": {"data": pool}}


def test_labels_of_images_that_changed_are_refused(home: Path):
    """Images that the backbone learned may be among the scored ones now, wherever they lie."""
    folder = tree(home / "own", *(f"{name}/{i}.jpg" for name in "xy" for i in range(10)))
    own_images(Path("photos"), Path("runs"))
    origin, knn = trained_on("train"), find_transfers()[KNN]
    here = Run("x", "smoke", 0, folder, Path("runs"))
    checked_data(knn.on_own_images("own"), here, origin, incomplete=False)
    changed = {**origin, "data_fingerprint": "0"}
    with pytest.raises(UserError, match="photos, and images there have changed since"):
        checked_data(knn.on_own_images("own"), here, {"init_from": changed}, incomplete=False)
    (home / "photos").unlink()
    with pytest.raises(UserError, match="photos, which is gone"):
        checked_data(knn.on_own_images("own"), here, origin, incomplete=False)


@pytest.mark.parametrize(
    ("recipe", "changes"), [("supervised", []), ("s4l_rotation_10pct", ["--recipe.data.labelled.percent", "50"])]
)
def test_photos_that_came_since_stop_a_score(
    recipe: str, changes: list[str], home: Path, capsys: pytest.CaptureFixture[str]
):
    """Whether the recipe learns all labels or those of a part that the seed draws."""
    shutil.copytree(home / "photos", home / "own")
    current.split_fingerprint.cache_clear()  # of another test's images of this name
    assert cli.run(["pretrain", recipe, *ON, "--images", "own", *changes]) == 0
    (run,) = Path("runs/smoke").iterdir()
    flags = ["transfer", run.name, KNN, *ON, "--images", "own"]
    assert cli.run(flags) == 0
    tree(home / "own" / CLASSES[0], *(f"new {i}.png" for i in range(9)))
    current.split_fingerprint.cache_clear()
    capsys.readouterr()
    assert cli.run(flags) == 2
    assert "own, and images there have changed since" in capsys.readouterr().err


def test_images_that_were_learned_under_another_name(home: Path):
    """What is scored is below another folder than what the backbone saw, and links to it."""
    own_images(Path("photos"), Path("runs"))
    for file in open_dataset(Path("photos"), OWN_IMAGES, "train").files:
        link = home / "own" / ("val" if Path(file).stem in "01234" else "train") / file
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((home / "photos" / file).resolve())
    run = Run("x", "smoke", 0, home / "own", Path("runs"))
    with pytest.raises(UserError, match="images of own_images/val are in own_images/train too"):
        checked_data(find_transfers()[KNN].on_own_images("own"), run, trained_on("train"), incomplete=False)


@pytest.mark.parametrize("through", ["itself", "init"])
def test_what_was_trained_on_with_labels_is_not_scored(through: str, home: Path):
    """Nor where the run only started from such weights."""
    own_images(Path("photos"), Path("runs"))
    seen = trained_on("val")
    origin = seen if through == "itself" else {"resolved": {"data": {}}, "init_from": {"init_from": seen}}
    run = Run("x", "smoke", 0, Path("photos"), Path("runs"))
    knn = find_transfers()[KNN].on_own_images("photos")
    with pytest.raises(UserError, match="9 of the 9 images of own_images/val are in own_images/val too"):
        checked_data(knn, run, origin, incomplete=False)
    checked_data(knn, run, {}, incomplete=False)


def test_a_split_without_labels_teaches_none(home: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["pretrain", "supervised", *ON, "--images", "photos", "--recipe.data.split", "all"]) == 2
    assert "gives no labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ["transfer", "mine", "voc07_svm_goyal", "--images", "photos"],
            "voc07_svm_goyal reads voc2007; --images takes",
        ),
        (["transfer", "mine", KNN, "--images", "photos", "--data", "photos"], "give one of the two"),
        (["transfer", "mine", KNN, "--images", "absent"], "--images absent: there is no such folder or file"),
        (["pretrain", "npid", "--images", "photos/katze/0.png"], "is a single image"),
        (["pretrain", "wang_gupta", "--images", "photos"], "learns from files that belong together of youtube_patches"),
        (["pretrain", "ren_lee", "--images", "photos"], "learns from maps of"),
        (["pretrain", "npid", "--images", "photos", "--recipe.batch-size", "64"], "more than the 21 images there are"),
        (["pretrain", "npid", "--images", "photos", "--init", "absent"], "no recipe and no run 'absent'"),
        (
            ["pretrain", "npid", "--images", "photos", "--init", "pirl"],
            "`sslbench pretrain pirl --scale smoke --seed 0",
        ),
        (["features", "mine"], "give --images"),
        (["features", "mine", "--images", "photos", "--to", "x.csv"], "must end in .npz or .parquet"),
    ],
)
def test_bad_flags(flags: list[str], told: str, home: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run([*flags, *ON]) == 2
    assert told in capsys.readouterr().err


def test_two_folders_of_one_name_share_no_runs(home: Path):
    other = tree(home / "elsewhere" / "photos", "a.jpg")
    assert own_images(Path("photos"), Path("runs")).label == "photos"
    with pytest.raises(UserError, match="is called photos too"):
        own_images(other, Path("runs"))
    (home / "photos").rename(home / "gone")
    assert own_images(other, Path("runs")).label == "photos", "images that moved keep their name"


def test_an_empty_folder_takes_no_name(home: Path):
    (home / "a" / "own").mkdir(parents=True)
    with pytest.raises(UserError, match="contains no images"):
        own_images(home / "a" / "own", Path("runs"))
    assert own_images(tree(home / "b" / "own", "1.jpg"), Path("runs")).label == "own"


@pytest.mark.parametrize(
    ("count", "told"), [(3, "3 images are too few"), (6, "the features of all images are the same")]
)
def test_features_without_a_map(count: int, told: str, home: Path, capsys: pytest.CaptureFixture[str]):
    folder = home / "few"
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", (40, 40), (9, 9, 9)).save(folder / f"{i}.png")
    assert cli.run(["features", "mine", *ON, "--images", "few", "--to", "f.npz"]) == 0
    assert f"no map: {told}" in capsys.readouterr().out
    assert sorted(path.name for path in home.glob("f.*")) == ["f.neighbours.png", "f.npz"]


def test_names_of_runs():
    assert called("moco", "images", "photos") == "moco@images=photos"
    assert called("moco@K=8", "init", "a@images=b,c=d") == "moco@K=8,init=a-images-b-c-d"
    assert images_called_in("moco@K=8,images=photos,init=a") == "photos"
    assert images_called_in("moco@init=a-images-b") == images_called_in("moco") == ""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> OwnImages:
    """128 images: a ten-thousandth of ImageNet."""
    folder = tree(tmp_path_factory.mktemp("of") / "many", *(f"{i}.jpg" for i in range(128)))
    return OwnImages(folder, "many")


def needs_more(recipe: Recipe) -> bool:
    """Maps of every pixel, or both ends of a track."""
    return any(pool.maps or pool.dataset == "youtube_patches" for pool in recipe.pools.values())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_own_images_or_says_why_not(name: str, many: OwnImages):
    recipe = RECIPES[name]
    if needs_more(recipe):
        with pytest.raises(UserError, match="which images alone do not have"):
            recipe_on(recipe, many)
        return
    own = recipe_on(recipe, many)
    for scale in SCALES:
        here, usual = at_scale(own, scale), at_scale(recipe, scale)
        assert {(pool.dataset, pool.split) for pool in here.pools.values()} == {(OWN_IMAGES, "train")}
        assert all(pool.labels == usual.pools[key].labels for key, pool in here.pools.items())
        assert all(pool.labels or pool.percent == 100 for pool in here.pools.values())
        assert all("@images=many" in earlier for earlier in here.after.values())
        assert recipe_hash(here) != recipe_hash(usual)


def test_clusters_are_as_large_as_in_the_paper(many: OwnImages):
    """128 of 1,281,167 images: 10,000 clusters become one, and two is the least."""
    found = {name: of_images(type(recipe.method)) for name, recipe in RECIPES.items()}
    asked = {(name, key) for name, keys in found.items() for key in keys}
    assert {("deepcluster", "k"), ("cc_jigsaw_pp", "clusters"), ("pcl", "k_m"), ("pcl", "r")} <= asked
    for name, key in sorted(asked):
        value = value_at(at_scale(recipe_on(RECIPES[name], many), "desk"), f"method.{key}")
        paper = value_at(RECIPES[name], f"method.{key}")
        wanted = [max(2, round(one / 10_000)) for one in (paper if isinstance(paper, tuple) else (paper,))]
        assert list(value if isinstance(value, tuple) else (value,)) == wanted


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if queues(type(recipe.method))])
def test_a_queue_is_no_longer_than_the_images(name: str, many: OwnImages):
    recipe = at_scale(recipe_on(RECIPES[name], many), "photos")
    if recipe.method.K > 128:
        with pytest.raises(UserError, match=r"has only 128: .* Set --recipe\.method\.K to less than that, such as 64"):
            require_enough(recipe, {"main": many.opened()})
    for length in (64, 128):
        require_enough(replace(recipe, method=replace(recipe.method, K=length)), {"main": many.opened()})


def test_every_protocol_takes_own_images_or_says_why_not():
    taken = set()
    for name, transfer in find_transfers().items():
        if {dataset for dataset, _ in transfer.card.datasets} in ({"imagenet"}, {"tiny_imagenet"}):
            card = transfer.on_own_images("x").card
            assert card.id == f"{name}@images=x"
            assert card.at("photos").datasets == card.datasets
            assert card.datasets[-1] == (OWN_IMAGES, "val")
            assert not any("/" in one for one in card.lists)
            assert transfer.card.id == name, "the protocol itself stays as it is"
            taken.add(name)
        else:
            with pytest.raises(UserError, match="--images takes the place of ImageNet,"):
                transfer.on_own_images("x")
    assert {KNN, LINEAR, "linear_imagenet_moco", FEW_LABELS, "semi_supervised_1pct_pirl"} <= taken


def test_what_scores_a_run_is_printed_whole(home: Path, capsys: pytest.CaptureFixture[str]):
    (home / "photos").rename(home / "my photos")
    flags = ["--images", "my photos", "--seed", "3", "--runs", "here"]
    assert cli.run(["pretrain", "random_init", *ON, *flags]) == 0
    for command in re.findall(r"`sslbench (.+?)`", capsys.readouterr().out):
        assert cli.run([KNN if word == "TRANSFER" else word for word in shlex.split(command)]) == 0
    assert Path(f"here/smoke/random_init@images=my-photos/seed3/{KNN}@images=my-photos.json").is_file()
    assert Path("features/random_init@images=my-photos.npz").is_file()


def test_what_has_no_classes_is_not_scored(home: Path, capsys: pytest.CaptureFixture[str]):
    tree(home / "plain", *(f"{number}.jpg" for number in range(48)))
    assert cli.run(["pretrain", "random_init", *ON, "--images", "plain"]) == 0
    assert re.findall(r"`sslbench (\w+) ", capsys.readouterr().out) == ["features"]
    assert cli.run(["transfer", "random_init@images=plain", KNN, *ON, "--images", "plain"]) == 2
    assert "`sslbench features` shows nearest neighbours without classes" in capsys.readouterr().err


def test_init_gives_the_run_these_weights(home: Path):
    """random_init trains nothing: what comes out is what went in."""
    assert cli.run(["pretrain", "random_init", *ON, "--images", "photos", "--init", "mine"]) == 0
    path = Path("runs/smoke/random_init@images=photos,init=mine/seed0/backbone.safetensors")
    backbone, facts = load_backbone(path)
    mine, _ = load_backbone(Path("runs/imported/mine.safetensors"))
    assert all(torch.equal(one, mine.state_dict()[key]) for key, one in backbone.state_dict().items())
    assert len(facts["origin"]["init"]) == 12
    assert facts["origin"]["init_from"]["recipe_hash"] == "x"
    assert cli.run(["pretrain", "random_init", *ON, "--images", "photos"]) == 0
    other, facts = load_backbone(Path("runs/smoke/random_init@images=photos/seed0/backbone.safetensors"))
    assert not torch.equal(other.state_dict()["conv1.weight"], mine.state_dict()["conv1.weight"])
    assert "init" not in facts["origin"]


def test_other_weights_under_the_name_are_another_run(home: Path, capsys: pytest.CaptureFixture[str]):
    flags = ["pretrain", "npid", *ON, "--images", "photos", "--init", "mine"]
    assert cli.run(flags) == 0
    assert cli.run(flags) == 0
    save_backbone(Path("runs/imported/mine.safetensors"), SMALL(InputSpec(64)), {})
    assert cli.run(flags) == 2
    assert "belongs to another run (init was" in capsys.readouterr().err


def test_a_run_of_ones_own_can_be_gone_on_from(home: Path):
    assert cli.run(["pretrain", "npid", *ON, "--images", "photos"]) == 0
    assert cli.run(["pretrain", "rotation", *ON, "--images", "photos", "--init", "npid@images=photos"]) == 0
    origin = read_facts(Path("runs/smoke/rotation@images=photos,init=npid-images-photos/seed0/backbone.safetensors"))
    assert origin["origin"]["init_from"]["recipe"] == "npid@images=photos"


@pytest.mark.parametrize(
    ("width", "spec", "told"),
    [
        (0.125, InputSpec(64), "its backbone is ResNet(width=0.125), and the recipe's is ResNet("),
        (0.0625, InputSpec(32), "its input is InputSpec(size=32"),
        (0.0625, InputSpec(64, Grey()), "its input is"),
    ],
)
def test_weights_of_another_network_or_input(
    width: float, spec: InputSpec, told: str, home: Path, capsys: pytest.CaptureFixture[str]
):
    save_backbone(Path("runs/imported/mine.safetensors"), ResNet(width=width).build(spec), {})
    assert cli.run(["pretrain", "npid", *ON, "--images", "photos", "--init", "mine"]) == 2
    said = capsys.readouterr().err
    assert f"runs/imported/mine.safetensors: {told}" in said
    assert "so the run cannot start from it" in said


def test_features_are_the_backbones_output(home: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["features", "mine", *ON, "--images", "photos", "--to", "out/f.npz"]) == 0
    assert "out/f.npz: 30 images, 128 numbers each" in capsys.readouterr().out
    found = np.load("out/f.npz")
    images = open_dataset(Path("photos"), OWN_IMAGES, "all")
    assert found["files"].tolist() == list(images.files)
    assert found["folders"].tolist() == [file.partition("/")[0] for file in images.files]
    backbone, _ = load_backbone(Path("runs/imported/mine.safetensors"))
    views = [centre_crop(64)(images.open(place))["image"] for place in range(len(images))]
    with torch.no_grad():
        wanted = backbone(backbone.input.prepare(torch.stack(views)))
    np.testing.assert_allclose(found["features"], wanted.numpy(), rtol=1e-4, atol=1e-5)
    about = json.loads(str(found["about"]))
    assert about["backbone"] == "mine"
    assert about["fingerprint"] == images.fingerprint()
    assert [Image.open(f"out/f.{name}.png").format for name in ("map", "neighbours")] == ["PNG", "PNG"]

    assert cli.run(["features", "mine", *ON, "--images", "photos", "--to", "out/g.parquet"]) == 0
    table = pd.read_parquet("out/g.parquet")
    assert table["file"].tolist() == list(images.files)
    assert np.array_equal(np.stack(table["features"].to_list()), found["features"])
    assert json.loads(pq.read_schema("out/g.parquet").metadata[b"sslbench"])["backbone"] == "mine"
    assert Path("out/f.map.png").read_bytes() == Path("out/g.map.png").read_bytes()


def pictured(folder: Path, *names: str) -> ImageFeatures:
    """Of red images whose features are drawn at random."""
    for name in names:
        handmade.image(folder / name, (250, 0, 0))
    images = open_dataset(folder, OWN_IMAGES, "all")
    values = np.random.default_rng(0).normal(size=(len(images), 8)).astype(np.float32)
    return ImageFeatures(images, values, {"backbone": "mine"})


def test_what_no_folder_tells_apart_is_shown_by_pictures_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    monkeypatch.setattr(feature_pictures, "_short", lambda name, most: told.append(name) or name)
    for folder, names, tells in (
        ("plain", [f"{i}.jpg" for i in range(8)], [f"{i}.jpg" for i in range(8)]),
        ("sorted", [f"{c}/{i}.jpg" for c in "ab" for i in range(4)], ["a", "b"]),
    ):
        features = pictured(tmp_path / folder, *names)
        told.clear()
        neighbours_picture(features)
        assert sorted({*told}) == tells
        pixels = np.array(Image.open(io.BytesIO(map_picture(features, 0))).convert("RGB")).astype(int)
        is_red = ((pixels - (250, 0, 0)) ** 2).sum(axis=2) < 1000
        assert (is_red.sum() > 1000) == (folder == "plain")


def test_nearest_images_by_hand():
    values = np.array([[1, 0], [3, 0.1], [0, 1], [-1, 0], [0.9, 0.5]], dtype=np.float32)
    near, cosines = nearest_images(values, [0, 2], 2)
    assert near.tolist() == [[1, 4], [4, 1]]
    np.testing.assert_allclose(cosines[0], [3 / np.hypot(3, 0.1), 0.9 / np.hypot(0.9, 0.5)], rtol=1e-6)


def test_the_map_keeps_apart_what_is_apart():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.eye(3, 16), 20, axis=0) + rng.normal(0, 0.02, (60, 16))
    places = embedding(groups, 0)
    assert np.array_equal(places, embedding(groups, 0))
    distances = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(60)
    assert np.array_equal(distances.argmin(axis=1) // 20, np.arange(60) // 20)
