"""Data that would give a wrong number gives none: for every transfer found, by one check that all go through."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from handmade import image
from small_runs import on_cpu

from benchmark import cli
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.weights import read_facts, save_backbone
from benchmark.core.errors import UserError
from benchmark.data.completeness import shortfall
from benchmark.data.datasets import DATASETS, open_dataset
from benchmark.data.doctor import examine
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes, Presence
from benchmark.data.pairs import shared_images
from benchmark.recipe.inputs import InputSpec
from benchmark.records.record import read_record
from benchmark.runs import current, scoring, sound_data
from benchmark.runs.run import Run
from benchmark.runs.sound_data import checked_data
from benchmark.toyland import build_world
from benchmark.transfers import find_transfers
from benchmark.transfers.contract import Context, Scores, Transfer

TRANSFERS = find_transfers()
READ = ("imagenet", "tiny_imagenet", "places205", "inat2018", "voc2007", "voc2012", "coco2017")
FLAGS = ("--workers", "0", "--device", "cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"), "smoke", datasets=READ, progress=False)


@pytest.fixture
def root(world: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(world, tmp_path / "data"))


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    yield
    for memory in (current.split_fingerprint, current.annotation_fingerprints, current._pool_fingerprint):
        memory.cache_clear()


def pretrained(root: Path, runs: Path, scale: str = "smoke", **origin: object) -> Run:
    run = Run("some", scale, 0, root, runs)  # type: ignore[arg-type]
    torch.manual_seed(0)
    backbone = ResNet(width=0.0625).build(InputSpec(32)).eval()
    save_backbone(run.backbone, backbone, {"recipe_hash": "h", "resolved": {}, **origin})
    return run


def checked(transfer: Transfer, root: Path, scale: str = "smoke", incomplete: bool = False, **origin: object) -> dict:
    return checked_data(transfer, Run("some", scale, 0, root, Path()), origin, incomplete)  # type: ignore[arg-type]


def changed(monkeypatch: pytest.MonkeyPatch, dataset: tuple[str, str], change: Callable[[ImageSet], ImageSet]) -> None:
    """What the check reads of one split."""

    def opened(root: Path, name: str, split: str, report: Callable[[str], None]) -> ImageSet:
        images = open_dataset(root, name, split, report)
        return change(images) if (name, split) == dataset else images

    monkeypatch.setattr(sound_data, "open_dataset", opened)


def in_turn(images: ImageSet) -> ImageSet:
    """The same classes in another order."""
    assert images.labels is not None
    return replace(images, labels=replace(images.labels, names=images.classes[::-1]))


SPLIT_IN_TWO = [name for name, transfer in TRANSFERS.items() if len(transfer.card.datasets) > 1]


@pytest.mark.parametrize("name", TRANSFERS)
def test_sound_data_passes_and_adds_nothing_to_the_record(name: str, world: Path):
    assert checked(TRANSFERS[name], world) == {}


@pytest.mark.parametrize("name", SPLIT_IN_TWO)
def test_other_classes_in_a_split_are_refused(name: str, world: Path, monkeypatch: pytest.MonkeyPatch):
    for dataset in TRANSFERS[name].card.at("smoke").datasets:
        changed(monkeypatch, dataset, in_turn)
        with pytest.raises(UserError, match=r"which are not the same in the same order: class 0 is"):
            checked(TRANSFERS[name], world)


@pytest.mark.parametrize("name", SPLIT_IN_TWO)
def test_an_image_in_train_and_test_is_refused(name: str, world: Path, monkeypatch: pytest.MonkeyPatch):
    card = TRANSFERS[name].card.at("smoke")
    first, test = open_dataset(world, *card.datasets[0]), open_dataset(world, *card.datasets[-1])

    def leaky(images: ImageSet) -> ImageSet:
        """Its last image is one of the first training set's."""
        return replace(images, files=[*images.files[:-1], first.files[0]])

    assert first.root == test.root, "else no name below one could be an image below the other"
    changed(monkeypatch, card.datasets[-1], leaky)
    if card.shared:
        assert checked(TRANSFERS[name], world) == {}
    else:
        with pytest.raises(UserError, match=rf"1 of the .* images of .* are in .* too.*{re.escape(first.files[0])}"):
            checked(TRANSFERS[name], world)


def test_segmentation_alone_says_why_its_splits_share_images(world: Path):
    """And there it is true: without the field it would be refused."""
    names = [name for name, transfer in TRANSFERS.items() if transfer.card.shared]
    assert names == ["voc12_seg_fcn32s", "voc12_seg_fcn_moco"]
    for name in names:
        train, val = (open_dataset(world, *dataset) for dataset in TRANSFERS[name].card.datasets)
        assert shared_images(val, train) == list(val.files)


@pytest.mark.parametrize("name", TRANSFERS)
def test_nothing_is_scored_or_recorded_of_such_data(
    name: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scoring, "refusal", lambda *_: "")
    monkeypatch.setattr(scoring, "_trained", lambda *_: None)
    monkeypatch.setattr(type(TRANSFERS[name]), "run", lambda *_: pytest.fail("it ran"))
    run = pretrained(world, tmp_path)

    def of_one_class(images: ImageSet) -> ImageSet:
        assert images.labels is not None
        kind, rows = type(images.labels), len(images)
        values = np.zeros(rows, np.int64) if kind is Classes else np.ones((rows, 1), np.int64)
        return replace(images, labels=kind(values, ("thing",)))

    changed(monkeypatch, TRANSFERS[name].card.at("smoke").datasets[-1], of_one_class)
    with pytest.raises(UserError, match=r"not the same in the same order|has only one class"):
        scoring.score(TRANSFERS[name], run, on_cpu())
    assert not list(tmp_path.rglob("*.json"))


def only_species_that_occur(path: Path) -> None:
    """What a script that makes a subset does: two species fewer, and their ids counted again from 0."""
    content = json.loads(path.read_text())
    gone = {one["id"] for one in content["categories"][:2]}
    images = {one["image_id"] for one in content["annotations"] if one["category_id"] in gone}
    content["images"] = [one for one in content["images"] if one["id"] not in images]
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] not in images]
    content["categories"] = [one for one in content["categories"] if one["id"] not in gone]
    path.write_text(json.dumps(content))


def renumbered(path: Path) -> None:
    rows = [line.rsplit(" ", 1) for line in path.read_text().splitlines()]
    last = max(int(label) for _, label in rows)
    path.write_text("".join(f"{name} {last - int(label)}\n" for name, label in rows))


def swapped_species(path: Path) -> None:
    """The list of species stays, and the annotations are of others."""
    content = json.loads(path.read_text())
    ids = [one["id"] for one in content["categories"]]
    for one in content["annotations"]:
        one["category_id"] = ids[(ids.index(one["category_id"]) + 1) % len(ids)]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("transfer", "path", "damage", "said"),
    [
        ("linear_inat18_pirl", "inat2018/val2018.json", only_species_that_occur, "only inat2018/train has"),
        ("linear_places205_pirl", "places205/*/val_places205.csv", renumbered, "class 0 is"),
        ("linear_inat18_pirl", "inat2018/val2018.json", swapped_species, "its folder has"),
    ],
)
def test_lists_that_were_changed_give_no_record(
    transfer: str, path: str, damage: Callable[[Path], None], said: str, root: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    pretrained(root, tmp_path / "runs")
    (found,) = root.glob(path)
    damage(found)
    flags = ["--scale", "smoke", "--data", str(root), "--runs", str(tmp_path / "runs"), *FLAGS]
    assert cli.run(["transfer", "some", transfer, *flags]) == 2
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("*.json"))


def val_is_train(root: Path) -> None:
    shutil.rmtree(root / "imagenet/val")
    (root / "imagenet/val").symlink_to("train")


def coco_val_is_train(root: Path) -> None:
    home = root / "coco"
    shutil.rmtree(home / "val2017")
    (home / "val2017").symlink_to("train2017")
    shutil.copy(home / "annotations/instances_train2017.json", home / "annotations/instances_val2017.json")


def in_place(path: str, damage: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda root: [damage(found) for found in root.glob(path)] and None


def shared_in_list(root: Path) -> None:
    home = root / "VOCdevkit/VOC2007/ImageSets/Main"
    line = (home / "trainval.txt").read_text().splitlines()[0]
    for path in (home / "test.txt", *home.glob("*_test.txt")):
        of = home / path.name.replace("test", "trainval")
        path.write_text(path.read_text() + next(one for one in of.read_text().splitlines() if line in one) + "\n")


REFUSED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "species fewer": ("linear_inat18_pirl", in_place("inat2018/val2018.json", only_species_that_occur)),
    "species of other folders": ("linear_inat18_pirl", in_place("inat2018/val2018.json", swapped_species)),
    "scenes renumbered": ("linear_places205_pirl", in_place("places205/*/val_places205.csv", renumbered)),
    "val a link to train": ("knn_imagenet_wu", val_is_train),
    "COCO's val a link": ("coco_det_c4_moco", coco_val_is_train),
    "in both lists of VOC": ("voc07_svm_goyal", shared_in_list),
}


@pytest.mark.parametrize("way", REFUSED)
def test_what_a_run_refuses_the_doctor_names(way: str, root: Path):
    transfer, damage = REFUSED[way]
    damage(root)
    with pytest.raises(UserError) as refused:
        checked(TRANSFERS[transfer], root)
    errors = [one for one in examine(root, deep=False, progress=False) if one.level == "error"]
    assert any(one.message in str(refused.value) for one in errors), (str(refused.value), errors)


@pytest.mark.parametrize("of", ["folder", "file"])
def test_links_are_followed(of: str, tmp_path: Path):
    """Test images that are links to training images, and a class folder that is a link to another."""
    home = tmp_path / "imagenet"
    for split in ("train", "val"):
        for number in range(2):
            image(home / split / f"n0000000{number}" / f"{split}_{number}.JPEG", (9, 9, number))
    assert checked(TRANSFERS["knn_imagenet_wu"], tmp_path) == {}
    if of == "folder":
        shutil.rmtree(home / "val/n00000001")
        (home / "val/n00000001").symlink_to(home / "train/n00000001")
    else:
        (home / "val/n00000001/more.JPEG").symlink_to("../../train/n00000000/train_0.JPEG")
    with pytest.raises(UserError, match=r"1 of the . images of imagenet/val are in imagenet/train too"):
        checked(TRANSFERS["knn_imagenet_wu"], tmp_path)


def test_a_store_that_keeps_equal_photos_once_is_sound(tmp_path: Path):
    """As git-annex and DVC do: a pair of equal photos, of which the real datasets have some, is one file."""
    home = tmp_path / "imagenet"
    for split in ("train", "val"):
        for number in range(2):
            stored = tmp_path / "store" / ("same" if number else f"{split}_content")
            image(stored.with_suffix(".png"), (9, 9, 9 if number else len(split)))
            link = home / split / f"n0000000{number}" / f"{split}_{number}.png"
            link.parent.mkdir(parents=True)
            link.symlink_to(stored.with_suffix(".png"))
    assert checked(TRANSFERS["knn_imagenet_wu"], tmp_path) == {}


def test_a_backbone_of_data_that_is_half_there_is_scored_on_other_data(root: Path):
    shutil.rmtree(root / "imagenet/train")
    data = {"dataset": "imagenet", "split": "train", "labels": True}
    assert checked(TRANSFERS["voc07_svm_goyal"], root, resolved={"data": data}) == {}


def test_a_dataset_of_which_no_copy_is_complete_lacks_nothing():
    assert shortfall(ImageSet("yfcc100m/train", Path(), ["a.jpg"])) == ""
    assert shortfall(ImageSet("yfcc100m_zips/train", Path(), ["a.jpg"])).startswith("1 of ")


def test_a_backbone_that_saw_the_labels_of_the_test_images_is_refused(world: Path):
    pools = {
        "part": {"dataset": "imagenet", "split": "train", "labels": True},
        "rest": {"dataset": "voc2007", "split": "test", "labels": False},
    }
    for name in ("knn_imagenet_wu", "own_classifier_imagenet", "voc07_svm_goyal"):
        assert checked(TRANSFERS[name], world, resolved={"data": pools}) == {}
    labelled = {"rest": {"dataset": "voc2007", "split": "test", "labels": True}}
    with pytest.raises(UserError, match="voc2007/test too, which is trained on"):
        checked(TRANSFERS["voc07_svm_goyal"], world, resolved={"data": labelled})
    for name in ("knn_imagenet_wu", "own_classifier_imagenet"):
        one = {"dataset": "imagenet", "split": "val", "labels": True}
        with pytest.raises(UserError, match="imagenet/val too, which is trained on"):
            checked(TRANSFERS[name], world, resolved={"data": one})


def without(name: str) -> Callable[[ImageSet], ImageSet]:
    """Nothing that shows a class."""

    def change(images: ImageSet) -> ImageSet:
        labels = images.labelled(Presence)
        values = labels.values.copy()
        values[:, labels.names.index(name)] = 0
        return replace(images, labels=replace(labels, values=values))

    return change


@pytest.mark.parametrize("name", [name for name in TRANSFERS if name.startswith("voc") or name.startswith("coco")])
def test_at_paper_scale_a_mean_is_over_the_cards_classes(name: str, world: Path, monkeypatch: pytest.MonkeyPatch):
    """Whether test or training images lack one; also where data may be incomplete."""
    transfer = TRANSFERS[name]
    whole = open_dataset(world, *transfer.card.datasets[-1]).classes
    monkeypatch.setattr(type(transfer), "absent", lambda *_: (whole[3],))
    with pytest.raises(UserError, match=rf"no image of .* shows {whole[3]}.*{len(whole)} classes"):
        checked(transfer, world, "paper", incomplete=True)
    assert checked(transfer, world) == {}
    monkeypatch.undo()
    monkeypatch.setattr(type(transfer), "absent", lambda *_: ())
    monkeypatch.setattr(Presence, "absent", lambda _: (whole[5],))
    with pytest.raises(UserError, match=f"shows {whole[5]}"):
        checked(transfer, world, "paper", incomplete=True)


def test_what_lacks_is_what_could_not_be_scored(world: Path, root: Path):
    """Of each kind of label: difficult objects, crowds, void and images of no class score nothing."""
    for name, transfer in TRANSFERS.items():
        test = open_dataset(world, *transfer.card.datasets[-1])
        assert len(transfer.absent(world, test)) < len(test.classes), name
    for path in (root / "VOCdevkit/VOC2007/Annotations").glob("*.xml"):
        path.write_text(path.read_text().replace("<difficult>0<", "<difficult>1<"))
    for path in (root / "VOCdevkit/VOC2007/ImageSets/Main").glob("*_*.txt"):
        path.write_text(re.sub(r" 1$", " 0", path.read_text(), flags=re.MULTILINE))
    path = root / "coco/annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    sizes = {one["id"]: [one["height"], one["width"]] for one in content["images"]}
    for one in content["annotations"]:
        height, width = sizes[one["image_id"]]
        one |= {"iscrowd": 1, "segmentation": {"size": [height, width], "counts": [0, height * width]}}
    path.write_text(json.dumps(content))
    on_voc07 = ("voc07_svm_goyal", "voc07_cls_krahenbuhl", "voc07_det_c4_pirl", "voc0712_det_c4_moco")
    for name in (*on_voc07, "coco_det_c4_moco"):
        with pytest.raises(UserError, match=rf"no image shows anything that {name} could score"):
            checked(TRANSFERS[name], root)


def test_a_test_set_of_void_is_refused(root: Path):
    from handmade import palette

    for path in (root / "VOCdevkit/VOC2012/SegmentationClass").glob("*.png"):
        palette(path, np.full((8, 8), 255, np.uint8))
    for name in ("voc12_seg_fcn_moco", "voc12_seg_fcn32s"):
        with pytest.raises(UserError, match=f"no image shows anything that {name} could score"):
            checked(TRANSFERS[name], root)


@pytest.mark.parametrize("name", TRANSFERS)
def test_paper_scale_refuses_what_is_not_complete_unless_told(name: str, world: Path, monkeypatch: pytest.MonkeyPatch):
    transfer = TRANSFERS[name]
    monkeypatch.setattr(type(transfer), "absent", lambda *_: ())
    monkeypatch.setattr(Presence, "absent", lambda _: ())
    with pytest.raises(UserError, match=r"of [\d,]+ images.*--incomplete"):
        checked(transfer, world, "paper")
    said = checked(transfer, world, "paper", incomplete=True)["incomplete"]
    assert {f"{dataset}/{split}" for dataset, split in transfer.card.datasets} <= said.keys()
    assert all(re.search(r"[\d,]+ of [\d,]+ (images|masks)", what) for what in said.values())


def test_masks_are_counted_too(world: Path):
    assert TRANSFERS["voc12_seg_fcn_moco"].shortfalls(world).keys() == {"voc2012/train_aug masks", "voc2012/val masks"}
    wanted = {"sbd/train masks", "voc2012/val masks without SBD's train"}
    assert TRANSFERS["voc12_seg_fcn32s"].shortfalls(world).keys() == wanted


def test_complete_means_the_real_numbers():
    def split(images: int, classes: int) -> ImageSet:
        names = tuple(str(number) for number in range(classes))
        return ImageSet("imagenet/val", Path(), [""] * images, Classes(np.zeros(images, np.int64), names))

    count, classes = DATASETS["imagenet"].SPLITS["val"]
    assert shortfall(split(count, classes)) == ""
    assert shortfall(split(count - 1, classes)) == "49,999 of 50,000 images"
    assert shortfall(split(count + 1, classes)) == "50,001 of 50,000 images"
    assert shortfall(split(5_000, 100)) == "5,000 of 50,000 images, 100 of 1,000 classes"
    assert shortfall(split(count, classes).without_labels()) == ""
    assert shortfall(replace(split(1, 1), name="mine/train")) == ""


def test_classes_without_test_images_are_named(world: Path, monkeypatch: pytest.MonkeyPatch):
    def change(images: ImageSet) -> ImageSet:
        labels = images.labelled(Classes)
        return images.subset(np.flatnonzero(labels.values > 0), "some")

    changed(monkeypatch, ("imagenet", "val"), change)
    (first, *_) = open_dataset(world, "imagenet", "val").classes
    said = checked(TRANSFERS["knn_imagenet_wu"], world, "paper", incomplete=True)["incomplete"]
    assert first in said["imagenet/val[some], classes without an image"]


def test_the_record_says_what_was_skipped(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    transfer = TRANSFERS["knn_imagenet_wu"]
    monkeypatch.setattr(type(transfer), "run", lambda *_: Scores(dict.fromkeys(transfer.card.metrics, 50.0)))
    record = scoring.score(transfer, pretrained(world, tmp_path), on_cpu())
    assert record.detail.keys() == {"data_read"}
    changed(monkeypatch, ("imagenet", "val"), lambda images: replace(images, skipped=("2 hidden folders: .a, .b",)))
    record = scoring.score(transfer, pretrained(world, tmp_path), on_cpu())
    assert record.detail["skipped"] == {"imagenet/val": ["2 hidden folders: .a, .b"]}


def test_the_flag_goes_all_the_way(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """pretrain and transfer at paper scale on a subset: refused, and with the flag done and told."""

    def answer(transfer: Transfer, _: object, context: Context) -> Scores:
        return Scores(dict.fromkeys(transfer.card.metrics, 50.0), {"per_stage": {}})

    for transfer in TRANSFERS.values():
        monkeypatch.setattr(type(transfer), "run", answer)
    monkeypatch.setattr(Presence, "absent", lambda _: ())
    runs = ["--scale", "paper", "--data", str(world), "--runs", str(tmp_path), *FLAGS]
    tiny = ["--recipe.length", "0epochs", "--recipe.batch-size", "2", "--recipe.backbone.width", "0.0625"]
    assert cli.run(["pretrain", "supervised", *runs, *tiny]) == 2
    assert "imagenet/train: " in (said := capsys.readouterr().err)
    assert "--incomplete" in said
    assert cli.run(["pretrain", "supervised", *runs, *tiny, "--incomplete"]) == 0
    (backbone,) = tmp_path.rglob("backbone.safetensors")
    assert read_facts(backbone)["origin"]["incomplete"].keys() == {"imagenet/train"}

    name = backbone.parent.parent.name
    assert cli.run(["transfer", name, "knn_imagenet_wu", *runs]) == 2
    assert cli.run(["transfer", name, "knn_imagenet_wu", *runs, "--incomplete"]) == 0
    record = read_record(backbone.parent / "knn_imagenet_wu.json")
    assert record.detail["incomplete"].keys() == {"imagenet/train", "imagenet/val"}
    assert record.origin["incomplete"].keys() == {"imagenet/train"}


def test_reproduce_passes_it_on(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given: list[bool] = []
    monkeypatch.setattr("benchmark.runs.reproduce.score", lambda *_, incomplete, **__: given.append(incomplete))
    monkeypatch.setattr("benchmark.runs.reproduce.write_tables", lambda *_: "")
    monkeypatch.setattr("benchmark.recipe.pools.Pool.title", "images")
    command = ["reproduce", "random_init", "--scale", "paper", "--data", str(world), "--runs", str(tmp_path), *FLAGS]
    for flags, wanted in (((), False), (("--incomplete",), True)):
        cli.run([*command, *flags])
        assert given
        assert set(given) == {wanted}
        given.clear()
