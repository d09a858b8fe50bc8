"""Datasets almost where they belong or almost called as they should be, on disks that take no writing, and lists that
disagree with each other: what the readers accept, and what the doctor says."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import handmade
import numpy as np
import pytest
from drawn_layouts import DRAWN

from benchmark.core.errors import UserError
from benchmark.data import voc
from benchmark.data.datasets import DATASETS, open_dataset
from benchmark.data.doctor import examine, print_report
from benchmark.data.findings import BadData, Finding
from benchmark.data.images import _open_zip
from benchmark.data.splits import percent_of
from benchmark.data.unreadable import UNREADABLE, keep_lists_in, list_beside_runs, read_unreadable


def findings(root: Path, deep: bool = False) -> list[Finding]:
    return examine(root, deep, progress=False)


def errors(root: Path, deep: bool = False) -> list[str]:
    return [f"{one.path}: {one.message}" for one in findings(root, deep) if one.level == "error"]


# --- places almost right


MISPLACED: dict[str, tuple[str, str, str]] = {
    # how it lies, from where it belongs: (belongs, lies, dataset)
    "another case": ("imagenet", "ImageNet", "imagenet"),
    "the challenge's name": ("imagenet", "ILSVRC2012", "imagenet"),
    "the devkit twice": ("VOCdevkit", "VOCdevkit/VOCdevkit", "voc2007"),
    "without its devkit": ("VOCdevkit/VOC2007", "VOC2007", "voc2007"),
    "dashes": ("places205", "places-205", "places205"),
    "the year": ("coco", "coco2017", "coco2017"),
    "a short name": ("tiny-imagenet-200", "tiny-imagenet", "tiny_imagenet"),
    "upper case": ("inat2018", "iNat2018", "inat2018"),
    "in the archive's folder": ("VOCdevkit/VOC2012", "VOCtrainval_11-May-2012/VOCdevkit/VOC2012", "voc2012"),
    "as the competition packs it": ("imagenet", "ILSVRC/Data/CLS-LOC", "imagenet"),
}


@pytest.mark.parametrize("way", MISPLACED)
def test_a_dataset_almost_in_place_is_pointed_out(tmp_path: Path, way: str) -> None:
    belongs, lies, name = MISPLACED[way]
    DRAWN[name](tmp_path, np.random.default_rng(0))
    handmade.yfcc(tmp_path)
    spare = tmp_path.parent / f"{tmp_path.name} spare"
    shutil.move(tmp_path / belongs, spare)
    if (tmp_path / belongs).parent != tmp_path:
        (tmp_path / belongs).parent.rmdir()
    (tmp_path / lies).parent.mkdir(exist_ok=True, parents=True)
    shutil.move(spare, tmp_path / lies)
    place = tmp_path / lies / "VOC2007" if way == "the devkit twice" else tmp_path / lies
    assert errors(tmp_path) == [
        f"{place}: looks like {name}, which is only read as a folder {DATASETS[name].HOME}/ in {tmp_path}"
    ]
    with pytest.raises(UserError, match="looks like it"):
        open_dataset(tmp_path, name, "train")


def test_data_that_names_the_dataset_itself(tmp_path: Path) -> None:
    handmade.imagenet(tmp_path, flat=False)
    (error,) = [one for one in findings(tmp_path / "imagenet") if one.level == "error"]
    assert error.fix == f"--data must name the folder that holds imagenet/: try --data {tmp_path}."


@pytest.mark.parametrize("what", ["a dangling link", "a file"])
def test_a_home_that_is_no_folder_is_an_error(tmp_path: Path, what: str) -> None:
    handmade.yfcc(tmp_path)
    handmade.text(tmp_path / "imagenet", "x") if what == "a file" else (tmp_path / "imagenet").symlink_to("/nowhere")
    assert [text.partition(":")[0] for text in errors(tmp_path)] == [str(tmp_path / "imagenet")]


def test_sbd_in_another_place(tmp_path: Path) -> None:
    home = handmade.sbd(tmp_path)
    shutil.move(home.parent, tmp_path / "SBD")
    place = "which is only read as a folder benchmark_RELEASE/dataset/"
    assert errors(tmp_path) == [f"{tmp_path}/SBD/dataset: looks like SBD, {place} in {tmp_path}"]


# --- names of a flat val/ almost right


def renamed(root: Path, name: Callable[[int, str], str], devkit: bool = True) -> Path:
    home = handmade.imagenet(root, flat=True)
    for number, label in enumerate(handmade.VAL_LABELS, start=1):
        path = home / "val" / f"ILSVRC2012_val_{number:08d}.JPEG"
        path.rename(path.with_name(name(number, handmade.WNIDS[label])))
    if not devkit:
        shutil.rmtree(home / "ILSVRC2012_devkit_t12")
    return home / "val"


NAMES: dict[str, Callable[[int, str], str]] = {
    "wnid": lambda number, wnid: f"ILSVRC2012_val_{number:08d}_{wnid}.JPEG",
    "jpg": lambda number, _: f"ILSVRC2012_val_{number:08d}.jpg",
    "jpeg": lambda number, _: f"ILSVRC2012_val_{number:08d}.jpeg",
    "lower case": lambda number, _: f"ilsvrc2012_val_{number:08d}.jpeg",
}


@pytest.mark.parametrize(("way", "devkit"), [(way, True) for way in NAMES] + [("wnid", False)])
def test_other_names_of_a_flat_val_have_the_same_labels(tmp_path: Path, way: str, devkit: bool) -> None:
    renamed(tmp_path, NAMES[way], devkit)
    images = open_dataset(tmp_path, "imagenet", "val")
    assert images.labels.values.tolist() == list(handmade.VAL_LABELS)
    images.open(5)


def test_names_that_contradict_the_devkit(tmp_path: Path) -> None:
    folder = renamed(tmp_path, NAMES["wnid"])
    (folder / "ILSVRC2012_val_00000001_n02105855.JPEG").rename(folder / "ILSVRC2012_val_00000001_n01440764.JPEG")
    with pytest.raises(BadData, match=r"another class than the devkit's: ILSVRC2012_val_00000001_n01440764"):
        open_dataset(tmp_path, "imagenet", "val")


def test_one_image_under_two_names(tmp_path: Path) -> None:
    folder = renamed(tmp_path, NAMES["jpg"])
    handmade.image(folder / "ILSVRC2012_val_00000003.JPEG")
    with pytest.raises(BadData, match=r"val_00000003\.JPEG and ILSVRC2012_val_00000003\.jpg are the same image"):
        open_dataset(tmp_path, "imagenet", "val")


def test_names_that_have_no_number_are_shown(tmp_path: Path) -> None:
    renamed(tmp_path, lambda number, _: f"val_{number}.JPEG")
    with pytest.raises(BadData, match=r"it holds val_1\.JPEG, val_2\.JPEG"):
        open_dataset(tmp_path, "imagenet", "val")


# --- disks that take no writing


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLBENCH_RUNS", "")
    keep_lists_in(tmp_path / "runs")


def test_sound_data_on_a_read_only_disk_is_sound(mount: Callable[[str], Path]) -> None:
    disk = mount("size=4m")
    for name, draw in DRAWN.items():
        draw(disk, np.random.default_rng(len(name)))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    found = findings(disk, deep=True)
    _open_zip.cache_clear()  # open files would keep the disk from being unmounted
    gc.collect()
    assert print_report(found) == 0
    assert [one for one in found if one.level != "note"] == []


def test_the_list_of_a_read_only_disk_lies_beside_the_runs(tmp_path: Path, mount: Callable[[str], Path]) -> None:
    disk = mount("size=4m")
    (handmade.yfcc(disk) / "z.jpg").write_bytes(b"nothing")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    found = findings(disk, deep=True)
    other = tmp_path / "runs/unreadable" / str(disk / "yfcc100m.txt").lstrip("/")
    assert print_report(found) == 0
    assert [one.message for one in found if str(other) in one.message]
    assert other == list_beside_runs(disk / "yfcc100m")
    said: list[str] = []
    images = open_dataset(disk, "yfcc100m", "train", said.append)
    assert "z.jpg" not in images.files
    assert str(other) in said[-1]
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    findings(disk, deep=True)
    assert not other.exists()
    assert (disk / "yfcc100m" / UNREADABLE).is_file()


def test_an_old_list_that_cannot_be_removed_counts_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = handmade.yfcc(tmp_path)
    handmade.text(home / UNREADABLE, "z.jpg\told\n")

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    findings(tmp_path, deep=True)
    assert "z.jpg" in open_dataset(tmp_path, "yfcc100m", "train", lambda _: None).files


def test_where_nothing_can_be_written_both_places_are_named(tmp_path: Path) -> None:
    home = handmade.yfcc(tmp_path)
    (home / "z.jpg").write_bytes(b"nothing")
    (home / UNREADABLE).mkdir()
    handmade.text(tmp_path / "runs", "a file")
    (error,) = [text for text in errors(tmp_path, deep=True) if "cannot be written" in text]
    assert error.startswith(f"{home / UNREADABLE}: cannot be written")
    assert str(list_beside_runs(home)) in error


def test_the_newer_of_two_lists_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLBENCH_RUNS", str(tmp_path / "runs"))
    home = handmade.yfcc(tmp_path)
    for place, name, when in ((list_beside_runs(home), "old.jpg", 1000), (home / UNREADABLE, "new.jpg", 2000)):
        handmade.text(place, f"{name}\t0 bytes\n")
        os.utime(place, (when, when))
    assert read_unreadable(home) == ["new.jpg"]
    os.utime(list_beside_runs(home), (3000, 3000))
    assert read_unreadable(home) == ["old.jpg"]


@pytest.mark.parametrize("name", ["two\twords.jpg", "#1.jpg"])
def test_odd_names_are_listed_and_left_out(tmp_path: Path, name: str) -> None:
    home = handmade.yfcc(tmp_path)
    (home / name).write_bytes(b"nothing")
    findings(tmp_path, deep=True)
    images = open_dataset(tmp_path, "yfcc100m", "train", lambda _: None)
    assert images.unreadable == (name,)
    assert name not in images.files


def test_a_listed_name_that_is_no_image_is_told(tmp_path: Path) -> None:
    handmade.text(handmade.imagenet(tmp_path, flat=False) / UNREADABLE, "n01440764_4.JPEG\n")
    (told,) = [one for one in findings(tmp_path) if one.level == "warning"]
    assert told.message == "1 listed name(s) match no image: n01440764_4.JPEG"


# --- lists that know of each other


def test_a_listed_fraction_may_name_unreadable_images(tmp_path: Path) -> None:
    home = handmade.imagenet(tmp_path, flat=False)
    handmade.text(home / "1percent.txt", "n01440764_4.JPEG\nn02105855_4.JPEG\n")
    handmade.text(home / UNREADABLE, "train/n02105855/n02105855_4.JPEG\t0 bytes\n")
    part = percent_of(open_dataset(tmp_path, "imagenet", "train", lambda _: None), 1, seed=0)
    assert part.files == ["train/n01440764/n01440764_4.JPEG"]
    assert part.skipped[-1] == "1 name(s) in 1percent.txt of images listed as unreadable: n02105855_4.JPEG"
    handmade.text(home / "1percent.txt", "n01440764_4.JPEG\nn02105855_5.JPEG\n")
    with pytest.raises(BadData, match=r"line 2: 'n02105855_5.JPEG' is not in"):
        percent_of(open_dataset(tmp_path, "imagenet", "train", lambda _: None), 1, seed=0)


def lists(root: Path, year: str = "2007") -> Path:
    return handmade.voc(root, year) / "ImageSets/Main"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("person_test.txt", "000001  1", "000001 -1"),
        ("person_test.txt", "000002 -1", "000002  1"),
        ("dog_test.txt", "000001  0", "000001  1"),
        ("dog_test.txt", "000002  1", "000002  0"),
    ],
)
def test_voc_lists_that_contradict_the_xml_are_refused(tmp_path: Path, file: str, old: str, new: str) -> None:
    path = lists(tmp_path) / file
    assert old in path.read_text()
    handmade.text(path, path.read_text().replace(old, new))
    with pytest.raises(BadData, match=rf"{file}: contradicts the xml in 1 of the . images that show a"):
        open_dataset(tmp_path, "voc2007", "test")
    assert any(file in text for text in errors(tmp_path))


def test_a_few_of_many_are_told_and_the_list_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lists(tmp_path) / "dog_test.txt"
    handmade.text(path, path.read_text().replace("000001  0", "000001  1"))
    monkeypatch.setattr(voc, "DIFFERING", 0.5)
    images = open_dataset(tmp_path, "voc2007", "test", lambda _: None)
    assert images.skipped == ("label(s) of the xml that dog_test.txt does not share, 1: 000001",)
    assert images.labels.values[0, voc.CLASSES.index("dog")] == 1


def test_voc_without_xml_is_read_by_its_lists(tmp_path: Path) -> None:
    shutil.rmtree(lists(tmp_path).parents[1] / "Annotations")
    assert len(open_dataset(tmp_path, "voc2007", "test")) == 3


def test_trainval_is_train_and_val(tmp_path: Path) -> None:
    folder = lists(tmp_path)
    for path in folder.glob("*_train.txt"):
        handmade.text(path, path.read_text().splitlines()[0] + "\n")
    handmade.text(folder / "train.txt", "000005\n")
    assert any("trainval.txt: 1 image(s) are either in trainval.txt or" in text for text in errors(tmp_path))


@pytest.mark.parametrize("size", [("<width>0<", "<height>0<"), ("<width>10<", "<height>0<")])
def test_an_xml_without_a_size_is_called_so(tmp_path: Path, size: tuple[str, str]) -> None:
    home = handmade.voc(tmp_path)
    xml = handmade.XML.replace("<width>10<", size[0]).replace("<height>8<", size[1])
    handmade.text(home / "Annotations/000005.xml", xml)
    with pytest.raises(BadData, match=r"000005\.xml: says that its image is \d+ × 0, which none is"):
        voc.annotation(home.parent, "2007", "000005")
    assert any("× 0, which none is" in text for text in errors(tmp_path))


# --- what is listed twice


def test_one_file_under_two_names_is_refused(tmp_path: Path) -> None:
    path = handmade.places205(tmp_path) / "trainvalsplit_places205/train_places205.csv"
    first = path.read_text().splitlines()[0]
    folder, _, file = first.rpartition("/")
    for other in (f"./{first}", f"{folder}/./{file}", f"{folder}//{file}"):
        handmade.text(path, f"{first}\n{other}\n")
        with pytest.raises(BadData, match=r"line 2: .* is listed twice"):
            open_dataset(tmp_path, "places205", "train")


def test_the_doctor_finds_what_yfcc_lists_twice(tmp_path: Path) -> None:
    home = handmade.yfcc(tmp_path)
    file = open_dataset(tmp_path, "yfcc100m", "train").files[0]
    handmade.text(home / "files.txt", f"{file}\n./{file}\n")
    zips = handmade.yfcc_zips(tmp_path, {"00/000.zip": ["000.jpg", "001.jpg"]})
    np.save(zips / "flickr_unique_ids.npy", [1, 0, 1])
    assert errors(tmp_path) == [
        f"{home}/files.txt: 1 name(s) are listed more than once, among them ./{file}, {file}",
        f"{zips}/flickr_unique_ids.npy: 1 number(s) are listed more than once: 00000001",
    ]


# --- what stands in train and test


def test_a_file_in_both_lists_is_an_error(tmp_path: Path) -> None:
    home = handmade.places205(tmp_path) / "trainvalsplit_places205"
    with open(home / "val_places205.csv", "a") as stream:
        stream.write("a/abbey/gsun_1.jpg 0\n")
    said = "images of places205/val are in places205/train too, which is trained on: a/abbey/gsun_1.jpg"
    assert any(said in text for text in errors(tmp_path))


def test_equal_bytes_in_both_are_counted_and_named(tmp_path: Path) -> None:
    home = handmade.imagenet(tmp_path, flat=True)
    shutil.copy(home / "train/n01440764/n01440764_4.JPEG", home / "val/ILSVRC2012_val_00000002.JPEG")
    (told,) = [one for one in findings(tmp_path, deep=True) if one.level != "note"]
    assert told.level == "warning"
    assert told.message.startswith("1 of 6 test images have the same bytes as one of imagenet/train: ")
    assert told.message.endswith("val/ILSVRC2012_val_00000002.JPEG = train/n01440764/n01440764_4.JPEG")
    assert [one for one in findings(tmp_path) if one.level != "note"] == []  # only --deep reads the bytes


def test_a_zip_that_holds_other_files_does_not_stop_the_doctor(tmp_path: Path) -> None:
    handmade.yfcc_zips(tmp_path, {"00/000.zip": ["000.jpg", "notes.txt"]})
    handmade.yfcc(tmp_path)
    for deep in (False, True):
        assert any("hold files that are no images: 00/000.zip" in text for text in errors(tmp_path, deep))


def test_the_environment_is_where_the_runs_are_kept(tmp_path: Path) -> None:
    """So that the processes of a run look there too."""
    assert os.environ["SSLBENCH_RUNS"] == str(tmp_path / "runs")
