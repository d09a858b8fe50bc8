"""The doctor on every layout, sound and with each planted failure: what it says, what it writes, what runs do then."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import handmade
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from benchmark.core.errors import UserError
from benchmark.data import doctor
from benchmark.data.datasets import DATASETS, open_dataset
from benchmark.data.doctor import examine, print_report
from benchmark.data.findings import Finding
from benchmark.data.unreadable import UNREADABLE
from benchmark.toyland import build_world

SPLITS = {f"{name}/{split}" for name, layout in DATASETS.items() for split in layout.SPLITS}


def everything(root: Path) -> None:
    handmade.imagenet(root, flat=True)
    handmade.tiny_imagenet(root)
    handmade.places205(root)
    handmade.inat2018(root)
    handmade.voc(root, "2007")
    handmade.sbd(root)
    handmade.coco(root)
    handmade.yfcc(root)
    handmade.youtube_patches(root)
    handmade.suncg_scenenet(root)
    handmade.places365(root)
    handmade.yfcc_zips(root, {"00/000.zip": ["000.jpg"]})


def graver(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level != "note"]


def printed(findings: list[Finding]) -> tuple[int, str]:
    stream = io.StringIO()
    code = print_report(findings, Console(file=stream, width=1000))
    return code, stream.getvalue()


@pytest.mark.parametrize("deep", [False, True])
def test_sound_datasets(tmp_path: Path, deep: bool) -> None:
    everything(tmp_path)
    findings = examine(tmp_path, deep, progress=False)
    assert graver(findings) == []
    assert {finding.dataset for finding in findings} == {*SPLITS, "sbd", "sbd/train", "sbd/val"}
    code, report = printed(findings)
    assert code == 0
    assert "3 classes; the complete dataset has 1,281,167 images, 1,000 classes" in report
    assert not list(tmp_path.rglob(UNREADABLE))


def test_toyland_is_sound(tmp_path: Path) -> None:
    build_world(tmp_path, "smoke")
    findings = examine(tmp_path, deep=True, progress=False)
    assert graver(findings) == []
    assert [finding.message for finding in findings if "skipped" in finding.message] == []
    assert {finding.dataset for finding in findings} == {*SPLITS, "sbd", "sbd/train", "sbd/val"}


def test_what_sbds_lists_hold_is_told(tmp_path: Path) -> None:
    """With their images of VOC2012's segmentation val, which is as it should be; and that SBD is not there."""
    handmade.sbd(tmp_path)
    notes = {f.dataset: f.message for f in examine(tmp_path, deep=False, progress=False) if f.dataset.startswith("sbd")}
    assert notes == {
        "sbd/train": "2 images; the complete dataset has 8,498. A subset or stand-in?",
        "sbd/val": "1 images; the complete dataset has 2,857. A subset or stand-in?",
        "sbd": "1 listed ids are in VOC2012's segmentation val; none both trains and tests: 000032",
    }
    shutil.rmtree(tmp_path / "benchmark_RELEASE")
    (note,) = [f for f in examine(tmp_path, deep=False, progress=False) if f.dataset.startswith("sbd")]
    assert (note.level, note.message) == ("note", "is not there; segmentation needs it for training")


def test_boxes_of_coco_that_hold_nothing_are_told(tmp_path: Path) -> None:
    """And are no fault: train2017 has two."""
    handmade.coco(tmp_path)
    edit_coco(tmp_path, lambda content: content["annotations"][2].update(bbox=[2, 1, 4.5, 0]))
    findings = examine(tmp_path, deep=False, progress=False)
    assert graver(findings) == []
    (note,) = [f for f in findings if "boxes" in f.message]
    assert note.dataset == "coco2017/train"
    assert note.message.startswith("1 of 3 boxes are empty")


def test_complete_sbd_lists_are_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handmade.sbd(tmp_path)
    monkeypatch.setattr("benchmark.data.sbd.SPLITS", {"train": 2, "val": 1})
    said = [f.message for f in examine(tmp_path, deep=False, progress=False) if f.dataset.startswith("sbd/")]
    assert said == ["2 images: complete", "1 images: complete"]


def test_many_broken_masks_are_counted(tmp_path: Path) -> None:
    home = handmade.sbd(tmp_path)
    ids = [f"{number:06d}" for number in range(100, 125)]
    for image_id in ids:
        handmade.image(tmp_path / f"VOCdevkit/VOC2012/JPEGImages/{image_id}.jpg")
        handmade.mat(home / f"cls/{image_id}.mat", np.zeros((4, 4)))
    handmade.text(home / "train.txt", "\n".join(ids))
    found = [f.message for f in graver(examine(tmp_path, deep=False, progress=False)) if f.dataset == "sbd"]
    assert len(found) == 21
    assert found[-1] == "and 5 more annotations, masks or images like these"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        examine(tmp_path, deep=False, progress=False)
    for layout in DATASETS.values():
        assert layout.NAME in str(caught.value)
        assert str(tmp_path / layout.HOME) in str(caught.value)


def broken_voc_mask(root: Path) -> None:
    handmade.palette(root / "VOCdevkit/VOC2007/SegmentationClass/000032.png", np.zeros((4, 4), dtype=np.uint8))


def move_val_image(root: Path) -> None:
    """Sorts val into folders as if the devkit's ids were places in WNID order."""
    home = root / "imagenet"
    for number, ilsvrc_id in enumerate(handmade.VAL_IDS, start=1):
        folder = home / "val" / handmade.WNIDS[ilsvrc_id - 1]
        folder.mkdir(exist_ok=True)
        name = f"ILSVRC2012_val_{number:08d}.JPEG"
        (home / "val" / name).rename(folder / name)


def rename_category(root: Path) -> None:
    path = root / "inat2018/val2018.json"
    path.write_text(path.read_text().replace('"species 5"', '"species 6"'))


def shift_places(root: Path) -> None:
    path = root / "places205/trainvalsplit_places205/val_places205.csv"
    handmade.text(path, "a/airport/gsun 3.jpg 0\n")


def edit_coco(root: Path, change: Callable[[dict], object]) -> None:
    path = root / "coco/annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def add_category(content: dict) -> None:
    content["categories"].append({"id": 91, "name": "hair brush"})


SBD = Path("benchmark_RELEASE/dataset")
PLANTED: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    # what: (plant, level, dataset begins with, words of the message)
    "class folder": (lambda r: shutil.rmtree(r / "imagenet/train/n02105855"), "error", "imagenet/val", "n02105855"),
    "devkit class": (
        lambda r: shutil.rmtree(r / "imagenet/train/n02105855"),
        "warning",
        "imagenet",
        "of the devkit's 3",
    ),
    "stray folder": (lambda r: (r / "imagenet/train/dogs").mkdir(), "warning", "imagenet", "dogs"),
    "wrong folder": (move_val_image, "error", "imagenet", "in the wrong class folder"),
    "empty": (lambda r: (r / "yfcc100m/z.jpg").write_bytes(b""), "error", "yfcc100m/train", "empty (0 bytes): z.jpg"),
    "missing": (
        lambda r: handmade.text(r / "yfcc100m/files.txt", "q.jpg\n"),
        "error",
        "yfcc100m/train",
        "missing: q.jpg",
    ),
    "tiny class": (lambda r: shutil.rmtree(r / "tiny-imagenet-200/train/n01440764"), "error", "tiny", "n01440764"),
    "tiny extra": (lambda r: handmade.image(r / "tiny-imagenet-200/val/images/val_9.JPEG"), "warning", "tiny", "val_9"),
    "csv outside": (
        lambda r: handmade.text(r / "places205/trainvalsplit_places205/val_places205.csv", "../x.jpg 0\n"),
        "error",
        "places205/val",
        "'../x.jpg' points outside",
    ),
    "csv order": (shift_places, "error", "places205", "not the same in the same order"),
    "categories": (rename_category, "error", "inat2018", "they are not the same"),
    "json": (lambda r: handmade.text(r / "inat2018/val2018.json", "{"), "error", "inat2018/val", "is not JSON"),
    "xml": (
        lambda r: handmade.text(r / "VOCdevkit/VOC2012/Annotations/000005.xml", "<a>"),
        "error",
        "voc2012",
        "well-formed",
    ),
    "no xml": (lambda r: (r / "VOCdevkit/VOC2007/Annotations/000007.xml").unlink(), "error", "voc2007", "000007"),
    "no mask": (
        lambda r: (r / "VOCdevkit/VOC2007/SegmentationClass/000032.png").unlink(),
        "error",
        "voc2007",
        "no such mask",
    ),
    "box outside": (
        lambda r: handmade.text(
            r / "VOCdevkit/VOC2007/Annotations/000032.xml",
            handmade.XML.replace("<xmin>2</xmin>", "<xmin>12</xmin>").replace("<xmax>9</xmax>", "<xmax>20</xmax>"),
        ),
        "error",
        "voc2007",
        "000032.xml: the box 11, 0, 20, 8 lies outside the image of 10 × 8",
    ),
    "stated size": (
        lambda r: handmade.image(r / "VOCdevkit/VOC2007/JPEGImages/000005.jpg", size=(8, 10)),
        "error",
        "voc2007",
        "000005.jpg: is 8 × 10, but its annotation says 10 × 8",
    ),
    "mask size": (broken_voc_mask, "error", "voc2007", "is 4 × 4, but its image is 10 × 8"),
    "sbd list": (lambda r: (r / SBD / "val.txt").unlink(), "error", "sbd/val", "val.txt: there is no such file"),
    "sbd id": (lambda r: handmade.text(r / SBD / "val.txt", "a b\n"), "error", "sbd/val", "'a b' is not an image id"),
    "sbd twice": (
        lambda r: handmade.text(r / SBD / "val.txt", "000032\n000007\n"),
        "warning",
        "sbd",
        "list 1 ids twice: 000007",
    ),
    "sbd no mat": (
        lambda r: (r / SBD / "cls/000007.mat").unlink(),
        "error",
        "sbd",
        "1 of 3 listed ids have no .mat: 000007",
    ),
    "sbd no image": (
        lambda r: handmade.text(r / SBD / "val.txt", "000032\n000099\n"),
        "error",
        "sbd",
        "1 of 4 listed ids have no image: 000099",
    ),
    "sbd broken": (
        lambda r: (r / SBD / "cls/000007.mat").write_bytes(b"x" * 200),
        "error",
        "sbd",
        "000007.mat: has no GTcls.Segmentation",
    ),
    "sbd size": (
        lambda r: handmade.mat(r / SBD / "cls/000005.mat", np.zeros((8, 9), np.uint8)),
        "error",
        "sbd",
        "000005.mat: is 9 × 8, but its image is 10 × 8",
    ),
    "sbd class": (
        lambda r: handmade.mat(r / SBD / "cls/000007.mat", np.full((8, 10), 21, np.uint8)),
        "error",
        "sbd",
        "000007.mat: has values that are not classes: 21",
    ),
    "val in train": (
        lambda r: handmade.text(r / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt", "000005\n000032\n"),
        "error",
        "voc2012",
        "Segmentation/train.txt: 1 of its images are in val.txt too: 000032",
    ),
    "coco json": (
        lambda r: handmade.text(r / "coco/annotations/instances_val2017.json", "{"),
        "error",
        "coco2017/val",
        "instances_val2017.json: is not JSON",
    ),
    "coco image": (
        lambda r: (r / "coco/train2017/000000139.jpg").unlink(),
        "error",
        "coco2017/train",
        "images[1]: 000000139.jpg is not in",
    ),
    "coco box": (
        lambda r: edit_coco(r, lambda c: c["annotations"][2].update(bbox=[10, 0, 2, 2])),
        "error",
        "coco2017/train",
        "annotations[2]: the box [10, 0, 2, 2] lies outside the image of 10 × 8",
    ),
    "coco category": (
        lambda r: edit_coco(r, lambda c: c["annotations"][2].update(category_id=2)),
        "error",
        "coco2017/train",
        "annotations[2]: category_id 2 is not in categories",
    ),
    "coco size": (
        lambda r: handmade.image(r / "coco/val2017/000000139.jpg", size=(8, 10)),
        "error",
        "coco2017/val",
        "000000139.jpg: is 8 × 10, but its annotation says 10 × 8",
    ),
    "coco classes": (lambda r: edit_coco(r, add_category), "error", "coco2017", "not the same in the same order"),
    "zip": (lambda r: (r / "yfcc100m_zips/00/001.zip").write_bytes(b"PK"), "error", "yfcc100m_zips", "001.zip"),
    "zip ids": (
        lambda r: np.save(r / "yfcc100m_zips/flickr_unique_ids.npy", [0, 1000, 99999999]),
        "error",
        "yfcc100m_zips",
        "2 of 3 zips that flickr_unique_ids.npy needs are missing: 00/001.zip, 99/999.zip",
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_planted_failures_are_found(tmp_path: Path, planted: str) -> None:
    plant, level, dataset, words = PLANTED[planted]
    everything(tmp_path)
    plant(tmp_path)
    findings = examine(tmp_path, deep=False, progress=False)
    found = [
        f for f in findings if f.level == level and f.dataset.startswith(dataset) and words in f"{f.path}: {f.message}"
    ]
    assert len(found) == 1, printed(findings)[1]
    assert found[0].fix
    code, report = printed(findings)
    assert code == (1 if any(f.level == "error" for f in findings) else 0)
    assert found[0].fix in report


@pytest.mark.parametrize("few", [0, 200])
def test_deep_lists_what_runs_then_leave_out(tmp_path: Path, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In worker processes (few = 0) and without."""
    monkeypatch.setattr(doctor, "FEW", few)
    home = handmade.imagenet(tmp_path, flat=False)
    names = list(open_dataset(tmp_path, "imagenet", "train").files)
    cut, empty, page, cmyk = (home / names[i] for i in (1, 3, 5, 7))
    cut.write_bytes(cut.read_bytes()[:400])
    empty.write_bytes(b"")
    page.write_text("<html>")
    Image.new("CMYK", (8, 8)).save(cmyk)  # odd, but sound
    (found,) = graver(examine(tmp_path, deep=True, progress=False))
    assert found.level == "warning"
    assert found.dataset == "imagenet/train"
    assert "3 of 9 images cannot be decoded" in found.message
    listed = (home / UNREADABLE).read_text().splitlines()
    assert [line.split("\t")[0] for line in listed[1:]] == [names[i] for i in (1, 3, 5)]
    assert "0 bytes" in listed[2]

    said: list[str] = []
    images = open_dataset(tmp_path, "imagenet", "train", said.append)
    assert len(images) == 6
    assert "left out 3 of 9" in said[0]
    for i in range(len(images)):
        images.open(i)
    assert graver(examine(tmp_path, deep=False, progress=False)) == []  # the empty file is dealt with

    for path in (cut, empty, page):
        handmade.image(path)
    examine(tmp_path, deep=True, progress=False)
    assert not (home / UNREADABLE).exists()
    assert len(open_dataset(tmp_path, "imagenet", "train")) == 9


def test_splits_that_share_images_share_one_list(tmp_path: Path) -> None:
    home = handmade.voc(tmp_path)
    (home / "JPEGImages" / "000007.jpg").write_bytes(b"nothing")
    findings = graver(examine(tmp_path, deep=True, progress=False))
    assert [finding.dataset for finding in findings] == ["voc2007/train", "voc2007/trainval"]
    assert (home / UNREADABLE).read_text().count("000007") == 1


def test_list_that_cannot_be_written(tmp_path: Path) -> None:
    home = handmade.yfcc(tmp_path)
    (home / "z.jpg").write_bytes(b"nothing")
    (home / UNREADABLE).mkdir()
    with pytest.raises(UserError, match=UNREADABLE):
        open_dataset(tmp_path, "yfcc100m", "train")
    assert any("cannot be written" in f.message for f in examine(tmp_path, deep=True, progress=False))


def test_many_names_are_sampled_for_empty_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handmade.yfcc(tmp_path)
    monkeypatch.setattr(doctor, "MAX_STATS", 2)
    (note,) = [f for f in examine(tmp_path, deep=False, progress=False) if "one in 2" in f.message]
    assert note.level == "note"


def test_forbidden_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handmade.yfcc(tmp_path)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "yfcc100m" / "0"))

    for function in ("read", "check"):
        monkeypatch.setattr(DATASETS["yfcc100m"], function, refuse)
    (finding,) = graver(examine(tmp_path, deep=False, progress=False))
    assert finding.message == "cannot be read: Permission denied"
    with pytest.raises(UserError, match="yfcc100m/0: cannot be read"):
        open_dataset(tmp_path, "yfcc100m", "train")


def test_brackets_in_names_are_printed_as_they_are(tmp_path: Path) -> None:
    _, report = printed([Finding("error", "yfcc100m", "[bold]x[/bold].jpg", "odd name", "rename it")])
    assert "[bold]x[/bold].jpg" in report
