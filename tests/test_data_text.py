"""Lists as editors, Windows and old tools write them: read as they are meant, or refused by the name of the fault."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path

import handmade
import pytest
from rich.console import Console

from benchmark.data.datasets import DATASETS, open_dataset
from benchmark.data.doctor import examine, print_report
from benchmark.data.findings import BadData, printable
from benchmark.data.sbd import sbd_image_ids
from benchmark.data.splits import from_list_file
from benchmark.data.unreadable import read_unreadable


def yfcc_list(root: Path) -> Path:
    home = handmade.yfcc(root)
    handmade.text(home / "files.txt", "z.jpg\n0/b.jpg\n0/a.jpg\n")
    return home


Made = tuple[Callable[[Path], Path], str, str, str]
LISTS: dict[str, Made] = {
    # list: its dataset's maker, the list below the dataset's folder, dataset, split
    "files.txt": (yfcc_list, "files.txt", "yfcc100m", "train"),
    "csv": (handmade.places205, "trainvalsplit_places205/train_places205.csv", "places205", "train"),
    "trainlist": (handmade.youtube_patches, "trainlist.txt", "youtube_patches", "train"),
    "scenes": (handmade.suncg_scenenet, "train_1m_shuffle.txt", "suncg_scenenet", "train"),
    "wnids": (handmade.tiny_imagenet, "wnids.txt", "tiny_imagenet", "train"),
    "val_annotations": (handmade.tiny_imagenet, "val/val_annotations.txt", "tiny_imagenet", "val"),
    "ids": (handmade.voc, "ImageSets/Main/trainval.txt", "voc2007", "trainval"),
    "classes": (handmade.voc, "ImageSets/Main/person_trainval.txt", "voc2007", "trainval"),
    "truth": (
        lambda root: handmade.imagenet(root, flat=True),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
        "imagenet",
        "val",
    ),
    "json": (handmade.inat2018, "train2018.json", "inat2018", "train"),
    "coco json": (handmade.coco, "annotations/instances_train2017.json", "coco2017", "train"),
}
SOUND: dict[str, Callable[[str], bytes]] = {
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "mark and CRLF": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "no newline at the end": lambda text: text.rstrip("\n").encode(),
    "trailing blanks": lambda text: text.replace("\n", " \t\n").encode(),
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("way", SOUND)
def test_other_ways_to_write_a_list_are_the_same_list(tmp_path: Path, name: str, way: str) -> None:
    make, below, dataset, split = LISTS[name]
    path = make(tmp_path) / below
    before = open_dataset(tmp_path, dataset, split)
    names, fingerprint = [*before.files], before.fingerprint()
    path.write_bytes(SOUND[way](path.read_text()))
    after = open_dataset(tmp_path, dataset, split)
    assert [*after.files] == names
    assert after.fingerprint() == fingerprint
    after.open(len(after) - 1)


BROKEN: dict[str, tuple[Callable[[str], bytes], str]] = {
    "UTF-16": (lambda text: text.encode("utf-16"), "is UTF-16 and not a text file in UTF-8"),
    "UTF-16 without a mark": (lambda text: text.encode("utf-16-le"), "line 1: has a NUL byte"),
    "NUL": (lambda text: text.encode() + b"\0", "has a NUL byte"),
}


@pytest.mark.parametrize("name", [name for name in LISTS if "json" not in name])
@pytest.mark.parametrize("way", BROKEN)
def test_what_is_no_text_in_utf_8_is_called_so(tmp_path: Path, name: str, way: str) -> None:
    make, below, dataset, split = LISTS[name]
    path = make(tmp_path) / below
    write, words = BROKEN[way]
    path.write_bytes(write(path.read_text()))
    with pytest.raises(BadData, match=words) as caught:
        open_dataset(tmp_path, dataset, split)
    assert str(path) in str(caught.value)
    assert any(words in f"{one.path}: {one.message}" for one in examine(tmp_path, deep=False, progress=False))


def test_lists_of_sbd_and_of_images_too(tmp_path: Path) -> None:
    home = handmade.sbd(tmp_path)
    (home / "train.txt").write_bytes("000007\r\n000005\r\n\r\n".encode("utf-8-sig"))
    assert sbd_image_ids(tmp_path, "train") == ["000007", "000005"]
    handmade.imagenet(tmp_path, flat=False)
    images = open_dataset(tmp_path, "imagenet", "train")
    path = tmp_path / "1percent.txt"
    path.write_bytes("n01440764_4.JPEG\r\n".encode("utf-8-sig"))
    assert from_list_file(images, path).files == ["train/n01440764/n01440764_4.JPEG"]
    path.write_bytes("n01440764_4.JPEG\n".encode("utf-16"))
    with pytest.raises(BadData, match=r"1percent\.txt: is UTF-16"):
        from_list_file(images, path)


def test_the_list_of_unreadable_images_too(tmp_path: Path) -> None:
    """In UTF-16 it would name nothing, and leave nothing out without a word."""
    path = tmp_path / "unreadable.txt"
    path.write_bytes("a.jpg\r\nb.jpg  \r\n".encode("utf-8-sig"))
    assert read_unreadable(tmp_path) == ["a.jpg", "b.jpg"]
    path.write_bytes("a.jpg\n".encode("utf-16"))
    with pytest.raises(BadData, match="is UTF-16"):
        read_unreadable(tmp_path)


# --- file names that are not UTF-8

LATIN = os.fsdecode(b"caf\xe9.jpg")


def with_latin(root: Path, name: str) -> Path:
    """The dataset with an image of that name, which its list spells in the same bytes. Returns the image."""
    if name == "yfcc100m":
        return handmade.image(handmade.yfcc(root) / LATIN)
    if name == "imagenet":
        return handmade.image(handmade.imagenet(root, flat=False) / "train/n02105855" / LATIN)
    home = handmade.places205(root)
    with open(home / "trainvalsplit_places205/train_places205.csv", "ab") as stream:
        stream.write(b"a/abbey/caf\xe9.jpg 0\n")
    return handmade.image(home / "data/vision/torralba/deeplearning/images256/a/abbey" / LATIN)


@pytest.mark.parametrize("name", ["yfcc100m", "imagenet", "places205"])
def test_names_in_latin_1_are_read_and_printed(tmp_path: Path, name: str) -> None:
    image = with_latin(tmp_path, name)
    images = open_dataset(tmp_path, name, "train")
    (file,) = [file for file in images.files if "caf" in file]
    images.open(images.files.index(file))
    assert len(images.fingerprint()) == 12
    image.write_bytes(b"nothing")
    findings = examine(tmp_path, deep=True, progress=False)
    stream = BytesIO()
    print_report(findings, Console(file=TextIOWrapper(stream, encoding="utf-8"), width=1000))
    assert any("caf\\xe9.jpg" in finding.message for finding in findings)
    said: list[str] = []
    kept = open_dataset(tmp_path, name, "train", said.append)
    assert len(kept) == len(images) - 1
    json.dumps([said, kept.skipped], ensure_ascii=False).encode()
    assert "caf\\xe9.jpg" in said[-1]


def test_a_missing_one_is_named_as_it_can_be_printed(tmp_path: Path) -> None:
    with_latin(tmp_path, "places205").unlink()
    with pytest.raises(BadData, match=r"line 5: a/abbey/caf\\xe9\.jpg is not in") as caught:
        open_dataset(tmp_path, "places205", "train")
    str(caught.value).encode()


@pytest.mark.parametrize("name", ["a\0b.jpg", "\ud800.jpg"])
@pytest.mark.parametrize("dataset", ["inat2018", "coco2017"])
def test_names_that_no_file_can_have(tmp_path: Path, dataset: str, name: str) -> None:
    home = handmade.inat2018(tmp_path) if dataset == "inat2018" else handmade.coco(tmp_path)
    path = next(home.rglob("*train2017.json" if dataset == "coco2017" else "train2018.json"))
    content = json.loads(path.read_text())
    content["images"][1]["file_name"] = "train_val2018/" * (dataset == "inat2018") + name
    path.write_text(json.dumps(content))
    with pytest.raises(BadData, match=r"images\[1\]: .* cannot be the name of a file"):
        open_dataset(tmp_path, dataset, "train")


def test_printable_leaves_text_alone() -> None:
    assert printable("café ☃ [1]") == "café ☃ [1]"
    assert printable(LATIN + "\ud800") == "caf\\xe9.jpg\\ud800"


# --- entries given twice


@pytest.mark.parametrize("name", [name for name in LISTS if name not in ("truth", "wnids", "files.txt")])
def test_an_image_listed_twice_is_refused(tmp_path: Path, name: str) -> None:
    make, below, dataset, split = LISTS[name]
    path = make(tmp_path) / below
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        content["images"].append(content["images"][0])
        path.write_text(json.dumps(content))
    else:
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines, lines[0]]))
    with pytest.raises(BadData, match=r"listed twice|does not list the same 3 images"):
        open_dataset(tmp_path, dataset, split)


def test_the_doctor_finds_lines_given_twice_in_files_txt(tmp_path: Path) -> None:
    handmade.text(yfcc_list(tmp_path) / "files.txt", "z.jpg\n0/b.jpg\nz.jpg\n")
    (error,) = [one for one in examine(tmp_path, deep=False, progress=False) if one.level == "error"]
    assert error.message == "1 name(s) are listed more than once, among them z.jpg"


def test_every_dataset_with_lists_is_tried() -> None:
    assert {dataset for _, _, dataset, _ in LISTS.values()} | {"voc2012", "yfcc100m_zips", "places365"} == set(DATASETS)
