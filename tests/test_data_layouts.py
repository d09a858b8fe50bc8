"""Readers of ImageNet, Tiny ImageNet, Places205 and iNaturalist 2018, on layouts written by hand, right and wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import handmade
import numpy as np
import pytest

from benchmark.core.errors import UserError
from benchmark.data.datasets import DATASETS, open_dataset
from benchmark.data.images import UnreadableImage
from benchmark.data.unreadable import UNREADABLE


def refuses(data_root: Path, name: str, split: str, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        open_dataset(data_root, name, split)
    for word in words:
        assert word in str(caught.value)


# --- every layout


def test_all_layouts_are_found() -> None:
    known = {"imagenet", "tiny_imagenet", "voc2007", "voc2012", "coco2017", "places205", "inat2018"}
    known |= {"yfcc100m", "yfcc100m_zips", "youtube_patches", "suncg_scenenet", "places365"}
    assert known <= set(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_missing_folder_is_named(tmp_path: Path, name: str) -> None:
    refuses(tmp_path, name, "train", str(tmp_path / DATASETS[name].HOME), "--data")


@pytest.mark.parametrize("name", DATASETS)
def test_empty_folder_is_a_clear_error(tmp_path: Path, name: str) -> None:
    (tmp_path / DATASETS[name].HOME).mkdir(parents=True)
    for split in DATASETS[name].SPLITS:
        refuses(tmp_path, name, split, str(tmp_path))


def test_unknown_names(tmp_path: Path) -> None:
    refuses(tmp_path, "imagenette", "train", "imagenette", "places205")
    refuses(tmp_path, "imagenet", "test", "'test'", "train, val")


def test_readers_do_not_import_torch() -> None:
    code = "import sys, benchmark.data.doctor, benchmark.data.splits; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- ImageNet


def test_imagenet_train_is_in_image_folder_order(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    home = handmade.imagenet(tmp_path, flat=True)
    images = open_dataset(tmp_path, "imagenet", "train")
    folder = ImageFolder(home / "train")
    assert [
        (str(images.root / file), int(label)) for file, label in zip(images.files, images.labels.values, strict=True)
    ] == [(path, label) for path, label in folder.samples]
    assert list(images.classes) == folder.classes
    assert images.open(0).size == (10, 8)


@pytest.mark.parametrize("flat", [True, False])
def test_imagenet_val_labels_go_through_wnids(tmp_path: Path, flat: bool) -> None:
    handmade.imagenet(tmp_path, flat)
    images = open_dataset(tmp_path, "imagenet", "val")
    label_of = {Path(file).name: int(label) for file, label in zip(images.files, images.labels.values, strict=True)}
    assert label_of == {f"ILSVRC2012_val_{i:08d}.JPEG": label for i, label in enumerate(handmade.VAL_LABELS, start=1)}
    assert images.classes == handmade.WNIDS


def test_flat_val_without_train(tmp_path: Path) -> None:
    home = handmade.imagenet(tmp_path, flat=True)
    shutil.rmtree(home / "train")
    assert open_dataset(tmp_path, "imagenet", "val").labels.values.tolist() == list(handmade.VAL_LABELS)


def test_devkit_beside_imagenet(tmp_path: Path) -> None:
    home = handmade.imagenet(tmp_path, flat=True)
    shutil.move(home / "ILSVRC2012_devkit_t12", tmp_path)
    assert open_dataset(tmp_path, "imagenet", "val").labels.values.tolist() == list(handmade.VAL_LABELS)


def test_missing_class_folder_never_shifts_labels(tmp_path: Path) -> None:
    home = handmade.imagenet(tmp_path, flat=False)
    shutil.rmtree(home / "train" / "n02105855")
    for split in ("train", "val"):
        refuses(tmp_path, "imagenet", split, str(home / "train"), "n02105855", "both train/ and val/")


def test_missing_class_folder_with_flat_val(tmp_path: Path) -> None:
    home = handmade.imagenet(tmp_path, flat=True)
    shutil.rmtree(home / "train" / "n02105855")
    refuses(tmp_path, "imagenet", "val", "n02105855")


def test_empty_class_folder(tmp_path: Path) -> None:
    home = handmade.imagenet(tmp_path, flat=True)
    shutil.rmtree(home / "train" / "n02105855")
    (home / "train" / "n02105855").mkdir()
    refuses(tmp_path, "imagenet", "train", "n02105855", "no image")


def test_other_files_are_no_images(tmp_path: Path) -> None:
    home = handmade.imagenet(tmp_path, flat=True)
    handmade.text(home / "train" / "n02105855" / "._n02105855_1.JPEG", "macOS")
    handmade.text(home / "train" / "n02105855" / "Thumbs.db", "Windows")
    (home / "train" / ".cache").mkdir()
    assert len(open_dataset(tmp_path, "imagenet", "train")) == 9


def test_archives_not_unpacked(tmp_path: Path) -> None:
    handmade.text(tmp_path / "imagenet" / "train" / "n01440764.tar", "")
    refuses(tmp_path, "imagenet", "train", "archives")


def test_flat_val_faults(tmp_path: Path) -> None:
    home = handmade.imagenet(tmp_path, flat=True)
    truth = home / "ILSVRC2012_devkit_t12" / "data" / "ILSVRC2012_validation_ground_truth.txt"
    (home / "val" / "ILSVRC2012_val_00000003.JPEG").rename(home / "spare")
    refuses(tmp_path, "imagenet", "val", "ILSVRC2012_val_00000003.JPEG", "1 of the 6")
    (home / "spare").rename(home / "val" / "ILSVRC2012_val_00000007.JPEG")
    refuses(tmp_path, "imagenet", "val", "ILSVRC2012_val_00000003.JPEG")
    (home / "val" / "ILSVRC2012_val_00000007.JPEG").rename(home / "val" / "ILSVRC2012_val_00000003.JPEG")
    handmade.text(truth, "1\n3\n2\n2\n1\n")
    refuses(tmp_path, "imagenet", "val", "6 images but only 5 labels")
    handmade.text(truth, "1\n3\n4\n2\n1\n3\n")  # 4 is a parent in the hierarchy, no class
    refuses(tmp_path, "imagenet", "val", "line 3", "'4'")
    handmade.text(truth, "1\n3\n²\n2\n1\n3\n")
    refuses(tmp_path, "imagenet", "val", "line 3", "'²'")
    (truth.parent / "meta.mat").write_bytes(b"MATLAB 5.0 MAT-file, cut off")
    refuses(tmp_path, "imagenet", "val", "meta.mat")
    shutil.rmtree(home / "ILSVRC2012_devkit_t12")
    refuses(tmp_path, "imagenet", "val", "needs the devkit")


# --- Tiny ImageNet


def test_tiny_imagenet(tmp_path: Path) -> None:
    handmade.tiny_imagenet(tmp_path)
    train, val = (open_dataset(tmp_path, "tiny_imagenet", split) for split in ("train", "val"))
    assert train.classes == val.classes == ("n01440764", "n03018349")  # sorted, as wnids.txt is not
    assert train.labels.values.tolist() == [0, 0, 1, 1]
    assert train.files[2] == "train/n03018349/images/n03018349_0.JPEG"
    assert dict(zip(val.files, val.labels.values.tolist(), strict=True)) == {
        "val/images/val_0.JPEG": 1,
        "val/images/val_1.JPEG": 0,
        "val/images/val_2.JPEG": 1,
    }
    assert val.open(2).size == (64, 64)


def test_tiny_imagenet_faults(tmp_path: Path) -> None:
    home = handmade.tiny_imagenet(tmp_path)
    annotations = home / "val" / "val_annotations.txt"
    original = annotations.read_text()
    handmade.text(annotations, original + "../../../secret.JPEG\tn01440764\t0\t0\t1\t1\n")
    refuses(tmp_path, "tiny_imagenet", "val", f"{annotations}, line 4", "outside")
    handmade.text(annotations, original.replace("n01440764", "n99999999"))
    refuses(tmp_path, "tiny_imagenet", "val", f"{annotations}, line 2")
    handmade.text(annotations, original)
    (home / "val" / "images" / "val_1.JPEG").unlink()
    refuses(tmp_path, "tiny_imagenet", "val", f"{annotations}, line 2", "val_1.JPEG")
    shutil.rmtree(home / "train" / "n01440764")
    refuses(tmp_path, "tiny_imagenet", "train", "n01440764")


# --- Places205


def test_places205(tmp_path: Path) -> None:
    handmade.places205(tmp_path)
    images = open_dataset(tmp_path, "places205", "train")
    assert images.classes == ("abbey", "airport", "mountain/snowy")
    assert list(images.files) == [
        "a/abbey/gsun_1.jpg",
        "m/mountain/snowy/gsun_2.jpg",
        "a/airport/gsun 3.jpg",  # a blank in a name
        "a/abbey/gsun_4.jpg",
    ]
    assert images.labels.values.tolist() == [0, 2, 1, 0]
    images.open(2)


@pytest.mark.parametrize("lists", ["places205", "beside"])
def test_places205_other_placements(tmp_path: Path, lists: str) -> None:
    home = handmade.places205(tmp_path)
    images = home / "data" / "vision" / "torralba" / "deeplearning" / "images256"
    if lists == "places205":
        shutil.move(images, home)
    for csv in (home / "trainvalsplit_places205").iterdir():
        shutil.move(csv, home if lists == "places205" else images.parent)
    assert len(open_dataset(tmp_path, "places205", "val")) == 4


OUTSIDE = ["../../../../../../etc/passwd.jpg", "/etc/passwd.jpg", "a/../../b.jpg", "..\\x.jpg", "link.jpg", "out/x.jpg"]


def plant_links(folder: Path, outside: Path) -> None:
    """A linked file and a linked folder that lead out of `folder`."""
    handmade.image(outside / "x.jpg")
    (folder / "link.jpg").symlink_to(outside / "x.jpg")
    (folder / "out").symlink_to(outside)


@pytest.mark.parametrize("entry", OUTSIDE)
def test_places205_entry_outside(tmp_path: Path, entry: str) -> None:
    home = handmade.places205(tmp_path)
    plant_links(home / "data" / "vision" / "torralba" / "deeplearning" / "images256", tmp_path / "elsewhere")
    csv = home / "trainvalsplit_places205" / "train_places205.csv"
    handmade.text(csv, csv.read_text() + f"{entry} 0\n")
    refuses(tmp_path, "places205", "train", f"{csv}, line 5", "outside")


def test_whole_image_folder_may_be_a_link(tmp_path: Path) -> None:
    home = handmade.places205(tmp_path)
    images = home / "data" / "vision" / "torralba" / "deeplearning" / "images256"
    shutil.move(images, tmp_path / "disk2")
    images.symlink_to(tmp_path / "disk2")
    assert len(open_dataset(tmp_path, "places205", "train")) == 4


def test_places205_faults(tmp_path: Path) -> None:
    home = handmade.places205(tmp_path)
    csv = home / "trainvalsplit_places205" / "train_places205.csv"
    original = csv.read_text()
    handmade.text(csv, original + "a/abbey/gone.jpg 0\na/abbey\n")
    refuses(tmp_path, "places205", "train", f"{csv}, line 6")
    handmade.text(csv, original + "a/abbey/gone.jpg 0\n")
    refuses(tmp_path, "places205", "train", f"{csv}, line 5", "gone.jpg", "1 of 5")
    for label in ("²", "-1", "99999999999", "9" * 5000):
        handmade.text(csv, original.replace("gsun_4.jpg 0", f"gsun_4.jpg {label}"))
        refuses(tmp_path, "places205", "train", f"{csv}, line 4", "is not a file name and a label")
    handmade.text(csv, original.replace("gsun_4.jpg 0", "gsun_4.jpg 1"))
    refuses(tmp_path, "places205", "train", "line 4", "label 1")
    handmade.text(csv, original.replace("snowy/gsun_2.jpg 2", "snowy/gsun_2.jpg 9"))
    refuses(tmp_path, "places205", "train", "no image has label 2")
    handmade.text(csv, "")
    refuses(tmp_path, "places205", "train", "empty")
    csv.write_bytes(b"\xff\xfe\x00")
    refuses(tmp_path, "places205", "train", "not a text file")


# --- iNaturalist 2018


def test_inat2018(tmp_path: Path) -> None:
    handmade.inat2018(tmp_path)
    images = open_dataset(tmp_path, "inat2018", "train")
    assert images.classes == ("species 3", "species 5", "species 7")
    label_of = dict(zip(images.files, images.labels.values.tolist(), strict=True))
    assert label_of == {
        "train_val2018/Plantae/7/b.jpg": 2,
        "train_val2018/Aves/3/a.jpg": 0,
        "train_val2018/Aves/3/c.jpg": 0,
    }
    images.open(0)


def edited(path: Path, edit: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("entry", [*OUTSIDE, "val2018.json"])
def test_inat2018_entry_outside(tmp_path: Path, entry: str) -> None:
    home = handmade.inat2018(tmp_path)
    plant_links(home / "train_val2018", tmp_path / "elsewhere")
    name = entry if entry[0] == "/" or entry == "val2018.json" else f"train_val2018/{entry}"
    edited(home / "train2018.json", lambda content: content["images"][1].update(file_name=name))
    refuses(tmp_path, "inat2018", "train", f"{home / 'train2018.json'}, images[1]", "outside")


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda c: c["annotations"].pop(), "images[0]"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "annotated twice"),
        (lambda c: c["annotations"][1].update(category_id=4), "annotations[1]"),
        (lambda c: c["annotations"][1].pop("image_id"), "annotations[1]"),
        (lambda c: c["annotations"].__setitem__(2, 5), "annotations[2]"),
        (lambda c: c["annotations"][0].update(image_id=[]), "annotations[0]"),
        (lambda c: c["images"][2].pop("file_name"), "images[2]"),
        (lambda c: c["images"].__setitem__(2, None), "images[2]"),
        (lambda c: c["images"][2].update(id={}), "images[2]"),
        (lambda c: c["categories"][1].pop("id"), "categories"),
        (lambda c: c.pop("categories"), "categories"),
        (lambda c: c.update(images={}), "images"),
    ],
)
def test_inat2018_faults(tmp_path: Path, edit: Callable[[dict], object], word: str) -> None:
    home = handmade.inat2018(tmp_path)
    edited(home / "train2018.json", edit)
    refuses(tmp_path, "inat2018", "train", str(home / "train2018.json"), word)


def test_inat2018_is_not_json(tmp_path: Path) -> None:
    home = handmade.inat2018(tmp_path)
    for content in ("{", "[" * 100_000, "[]", ""):
        handmade.text(home / "train2018.json", content)
        refuses(tmp_path, "inat2018", "train", str(home / "train2018.json"))


# --- unreadable images


def test_listed_files_are_left_out_counted_and_named(tmp_path: Path) -> None:
    home = handmade.imagenet(tmp_path, flat=False)
    bad = "train/n02105855/n02105855_4.JPEG"
    (home / bad).write_bytes(b"")
    complete = open_dataset(tmp_path, "imagenet", "train")
    with pytest.raises(UnreadableImage, match="n02105855_4"):
        complete.open(complete.files.index(bad))
    handmade.text(home / UNREADABLE, f"# a comment\n{bad}\tempty\nval/gone.JPEG\n")
    said: list[str] = []
    images = open_dataset(tmp_path, "imagenet", "train", said.append)
    assert list(images.files) == [file for file in complete.files if file != bad]
    assert images.labels.values.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert len(said) == 1
    assert "1 of 9" in said[0]
    assert bad in said[0]
    assert images.fingerprint() != complete.fingerprint()
    open_dataset(tmp_path, "imagenet", "val", said.append)
    assert len(said) == 1


# --- fingerprints


def test_fingerprint_follows_the_data_not_its_place(tmp_path: Path) -> None:
    home = handmade.imagenet(tmp_path / "a", flat=False)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    images = open_dataset(tmp_path / "a", "imagenet", "train")
    first = images.fingerprint()
    assert open_dataset(tmp_path / "b", "imagenet", "train").fingerprint() == first
    assert images.without_labels().fingerprint() != first
    assert images.subset(np.arange(3), "3").fingerprint() != first
    os.truncate(home / images.files[3], 100)
    assert images.fingerprint() != first
    (home / images.files[3]).rename(home / "train" / "n01440764" / "n01440764_11.JPEG")
    assert open_dataset(tmp_path / "a", "imagenet", "train").fingerprint() != first
