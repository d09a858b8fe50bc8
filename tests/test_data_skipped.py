"""What readers pass over is counted and named, aloud and in ImageSet.skipped; what would shift labels is an error."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import handmade
import pytest

from benchmark.data.datasets import open_dataset
from benchmark.data.doctor import examine
from benchmark.data.findings import BadData, denied
from benchmark.data.image_set import ImageSet


def opened(root: Path, name: str, split: str = "train") -> tuple[ImageSet, str]:
    """The images, and what was said."""
    said: list[str] = []
    images = open_dataset(root, name, split, said.append)
    assert len(said) <= 1
    return images, "".join(said)


def doctors(root: Path) -> list[tuple[str, str]]:
    return [(one.level, f"{one.path}: {one.message}") for one in examine(root, deep=False, progress=False)]


def is_told(root: Path, level: str, *words: str) -> bool:
    return any(grade == level and all(word in text for word in words) for grade, text in doctors(root))


# --- links to what is not there


def dangle(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to("/nowhere/at/all")


@pytest.mark.parametrize("flat", [True, False])
def test_a_class_behind_a_dangling_link_does_not_vanish(tmp_path: Path, flat: bool) -> None:
    home = handmade.imagenet(tmp_path, flat)
    for split in ("train",) if flat else ("train", "val"):
        dangle(home / split / "n02105855")
    with pytest.raises(BadData, match=r"1 of the classes are links to what is not there: n02105855"):
        open_dataset(tmp_path, "imagenet", "train")
    assert is_told(tmp_path, "error", "links to what is not there: n02105855")


def test_nor_does_one_of_tiny_imagenet(tmp_path: Path) -> None:
    dangle(handmade.tiny_imagenet(tmp_path) / "train" / "n01440764")
    with pytest.raises(BadData, match="links to what is not there: n01440764"):
        open_dataset(tmp_path, "tiny_imagenet", "train")


@pytest.mark.parametrize("what", ["file", "archive"])
def test_nor_one_that_is_no_folder(tmp_path: Path, what: str) -> None:
    home = handmade.imagenet(tmp_path, flat=False)
    for split in ("train", "val"):
        shutil.rmtree(home / split / "n02105855")
        handmade.text(home / split / ("n02105855" if what == "file" else "n02105855.tar"), "")
    with pytest.raises(BadData, match=r"are files, not folders: n021|are still archives: n02105855\.tar"):
        open_dataset(tmp_path, "imagenet", "train")


@pytest.mark.parametrize(("name", "folder"), [("yfcc100m", "0"), ("yfcc100m_zips", "00")])
def test_nor_folders_of_loose_files_and_zips(tmp_path: Path, name: str, folder: str) -> None:
    handmade.yfcc(tmp_path)
    handmade.yfcc_zips(tmp_path, {"00/000.zip": ["000.jpg"], "01/000.zip": ["000.jpg"]})
    dangle(tmp_path / name / folder)
    with pytest.raises(BadData, match="links to what is not there"):
        open_dataset(tmp_path, name, "train")


def test_a_list_behind_a_dangling_link_is_not_taken_for_none(tmp_path: Path) -> None:
    (handmade.yfcc(tmp_path) / "files.txt").symlink_to("/nowhere/at/all")
    with pytest.raises(BadData, match=r"files\.txt: cannot be read"):
        open_dataset(tmp_path, "yfcc100m", "train")


def test_a_dangling_link_to_an_image_is_named_as_one(tmp_path: Path) -> None:
    home = handmade.imagenet(tmp_path, flat=False)
    image = home / "train/n02105855/n02105855_4.JPEG"
    image.unlink()
    image.symlink_to("/nowhere/at/all")
    images, _ = opened(tmp_path, "imagenet")
    assert len(images) == 9
    with pytest.raises(BadData.__base__, match=r"n02105855_4\.JPEG: not a usable image: it is a link to what is not"):
        images.open(images.files.index("train/n02105855/n02105855_4.JPEG"))
    assert is_told(tmp_path, "error", "1 file(s) missing: train/n02105855/n02105855_4.JPEG")


def test_a_folder_that_may_not_be_read_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, whole = handmade.yfcc(tmp_path), os.scandir

    def refuse(path: str | Path) -> object:
        if Path(path) == home / "1":
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(BadData, match=r"yfcc100m/1: cannot be read: Permission denied"):
        open_dataset(tmp_path, "yfcc100m", "train")


# --- images beside the places where they are read


@pytest.mark.parametrize("split", ["train", "val"])
def test_images_beside_class_folders_are_told_and_an_error_to_the_doctor(tmp_path: Path, split: str) -> None:
    home = handmade.imagenet(tmp_path, flat=False)
    before = open_dataset(tmp_path, "imagenet", split).fingerprint()
    handmade.image(home / split / "ILSVRC2012_val_00000007.JPEG")
    images, said = opened(tmp_path, "imagenet", split)
    (text,) = images.skipped
    assert text == f"1 image(s) beside the class folders: {split}/ILSVRC2012_val_00000007.JPEG"
    assert said == f"imagenet/{split}: skipped {text}"
    assert images.fingerprint() == before  # of what is read, and that has not changed
    assert is_told(tmp_path, "error", f"imagenet/{split}: 1 image(s) beside the class folders")


def test_so_are_those_beside_tiny_imagenets_images(tmp_path: Path) -> None:
    handmade.image(handmade.tiny_imagenet(tmp_path) / "train/n01440764/n01440764_9.JPEG")
    images, said = opened(tmp_path, "tiny_imagenet")
    assert images.skipped == ("1 image(s) beside their class's images/: train/n01440764/n01440764_9.JPEG",)
    assert images.skipped[0] in said
    assert is_told(tmp_path, "error", "1 image(s) beside their class's images/: n01440764/n01440764_9.JPEG")


def test_and_a_class_that_wnids_does_not_list(tmp_path: Path) -> None:
    handmade.text(handmade.tiny_imagenet(tmp_path) / "wnids.txt", "n03018349\n")
    images, said = opened(tmp_path, "tiny_imagenet")
    assert images.skipped == ("1 class folder(s) that wnids.txt does not list: train/n01440764",)
    assert images.skipped[0] in said


@pytest.mark.parametrize("name", ["imagenet", "tiny_imagenet"])
def test_an_image_in_another_classs_folder_is_refused(tmp_path: Path, name: str) -> None:
    home = handmade.imagenet(tmp_path, flat=False) if name == "imagenet" else handmade.tiny_imagenet(tmp_path)
    below = "" if name == "imagenet" else "images"
    source = next((home / "train/n01440764" / below).glob("*.JPEG"))
    source.rename(home / "train/n03018349" / below / source.name)
    with pytest.raises(BadData, match=rf"1 image\(s\) that are called like another class's: {source.name}"):
        open_dataset(tmp_path, name, "train")


# --- hidden files and folders


PLACES: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    # layout: its maker, a folder that a listing reads, an image to copy there
    "imagenet": (lambda root: handmade.imagenet(root, flat=True), "val", "train/n01440764/n01440764_4.JPEG"),
    "imagenet ": (lambda root: handmade.imagenet(root, False), "train/n01440764", "train/n01440764/n01440764_4.JPEG"),
    "tiny_imagenet": (handmade.tiny_imagenet, "train/n01440764/images", "val/images/val_0.JPEG"),
    "coco2017": (handmade.coco, "train2017", "val2017/000000139.jpg"),
    "yfcc100m": (handmade.yfcc, "1/0", "z.jpg"),
    "yfcc100m_zips": (lambda root: handmade.yfcc_zips(root, {"00/000.zip": ["1.jpg"]}), "00", "00/000.zip"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", ".Trash-1000", "@eaDir", "__MACOSX", "._x.jpg"])
def test_hidden_files_and_folders_are_no_photos(tmp_path: Path, place: str, hidden: str) -> None:
    make, folder, source = PLACES[place]
    home, name = make(tmp_path), place.strip()
    split = "val" if folder == "val" else "train"
    before = open_dataset(tmp_path, name, split)
    if hidden.endswith(".jpg"):
        shutil.copy(home / source, home / folder / hidden)
    else:
        (home / folder / hidden).mkdir()
        shutil.copy(home / source, home / folder / hidden)
    images, said = opened(tmp_path, name, split)
    assert list(images.files) == list(before.files)
    (text,) = {*images.skipped} - {*before.skipped}
    assert text == f"1 hidden file(s) or folder(s): {folder}/{hidden}"
    assert text in said
    assert images.fingerprint() == before.fingerprint()
    assert is_told(tmp_path, "note", f"skipped 1 hidden file(s) or folder(s): {folder}/{hidden}")


# --- loops and double ways


@pytest.mark.parametrize("target", [".", "1", "1/0"])
def test_loops_through_links_end(tmp_path: Path, target: str) -> None:
    home = handmade.yfcc(tmp_path)
    before = open_dataset(tmp_path, "yfcc100m", "train")
    (home / "1/0/again").symlink_to(home / target)
    images, said = opened(tmp_path, "yfcc100m")
    assert list(images.files) == list(before.files)
    assert any("another way: 1/0/again" in text for text in images.skipped)
    assert "1/0/again" in said


def test_links_to_other_disks_are_followed_and_their_loops_end(tmp_path: Path) -> None:
    home = handmade.yfcc(tmp_path)
    shutil.move(home / "0", tmp_path / "disk2")
    (home / "0").symlink_to(tmp_path / "disk2")
    (tmp_path / "disk2/loop").symlink_to(tmp_path / "disk2")
    (tmp_path / "disk2/back").symlink_to(home)
    images, said = opened(tmp_path, "yfcc100m")
    assert list(images.files) == ["z.jpg", "0/a.jpg", "0/b.jpg", "1/0/c.png.jpg"]
    assert "0/back, 0/loop" in said


def test_a_link_into_a_hidden_folder_is_followed(tmp_path: Path) -> None:
    """As some tools for large files keep the data."""
    home = handmade.yfcc(tmp_path)
    (home / ".store").mkdir()
    shutil.move(home / "0", home / ".store/0")
    (home / "0").symlink_to(home / ".store/0")
    assert "0/a.jpg" in opened(tmp_path, "yfcc100m")[0].files


# --- entries and names of lists


def test_denied_says_why_without_a_system_message() -> None:
    assert "cannot be read" in str(denied("x", OSError("odd")))


def test_the_same_line_is_said_once_in_a_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = handmade.imagenet(tmp_path, flat=False)
    handmade.text(home / "train/notes.txt", "x")
    for _ in range(2):
        open_dataset(tmp_path, "imagenet", "train")
    assert capsys.readouterr().err == "imagenet/train: skipped 1 file(s) beside the class folders: train/notes.txt\n"
