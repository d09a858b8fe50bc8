"""A user's own images as a dataset: every form gives the same pixels, and what is wrong is told by name."""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import handmade
import numpy as np
import pytest
from PIL import Image

from benchmark import cli
from benchmark.core.errors import UserError
from benchmark.core.own_images import OWN_IMAGES
from benchmark.data.datasets import DATASETS, LAYOUTS, open_dataset
from benchmark.data.findings import BadData
from benchmark.data.image_set import ImageSet
from benchmark.data.images import UnreadableImage, file_size
from benchmark.data.labels import Classes
from benchmark.data.pairs import copies
from benchmark.data.tars import tar_index

NAMES = ("b.jpg", "a/1.jpg", "a/2.jpg", "a/deep/er/3.jpg")


def opened(source: Path, split: str = "train") -> ImageSet:
    return open_dataset(source, OWN_IMAGES, split, lambda _: None)


def tree(root: Path, *names: str) -> Path:
    for name in names:
        handmade.image(root / name)
    return root


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(one for one in folder.rglob("*") if one.is_file()):
            archive.write(file, file.relative_to(folder))
    return path


def tarred(folder: Path, path: Path) -> Path:
    """As webdataset packs them: beside each image its label and its text."""
    with tarfile.open(path, "w") as archive:
        for file in sorted(one for one in folder.rglob("*") if one.is_file()):
            key = str(file.relative_to(folder))
            archive.add(file, key)
            for suffix in (".cls", ".json"):
                member = tarfile.TarInfo(key.removesuffix(".jpg") + suffix)
                member.size = 1
                archive.addfile(member, io.BytesIO(b"7"))
    return path


def listed(folder: Path, path: Path, prefix: str = "") -> Path:
    files = sorted(one.relative_to(folder) for one in folder.rglob("*.jpg"))
    return handmade.text(path, "".join(f"{prefix}{file}\n" for file in files))


def folder_of_shards(folder: Path, path: Path) -> Path:
    path.mkdir()
    tarred(folder, path / "shard-000.tar")
    return path


FORMS: dict[str, Callable[[Path, Path], Path]] = {
    "zip": lambda folder, out: zipped(folder, out / "photos.zip"),
    "tar": lambda folder, out: tarred(folder, out / "photos.tar"),
    "shards": lambda folder, out: folder_of_shards(folder, out / "shards"),
    "relative list": lambda folder, out: listed(folder, out / "list.txt", "photos/"),
    "absolute list": lambda folder, out: listed(folder, out / "list.txt", f"{folder}/"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_pixels(form: str, tmp_path: Path):
    """The reference is Pillow on the files themselves."""
    folder = tree(tmp_path / "photos", *NAMES)
    images = opened(FORMS[form](folder, tmp_path))
    assert len(images) == len(NAMES)
    assert images.labels is None
    assert images.classes == ()
    wanted = {name: np.asarray(Image.open(folder / name).convert("RGB")) for name in NAMES}
    for place, file in enumerate(images.files):
        name = next(one for one in NAMES if file.endswith(one))
        assert np.array_equal(np.asarray(images.open(place)), wanted.pop(name))


@pytest.mark.parametrize("below", ["", "train/"])
def test_shards_are_no_classes(below: str, tmp_path: Path):
    folder = tree(tmp_path / "photos", *NAMES)
    (tmp_path / "shards" / below).mkdir(parents=True)
    for number in range(2):
        tarred(folder, tmp_path / "shards" / f"{below}00{number}.tar")
    if below:
        tree(tmp_path / "shards", "val/x/1.jpg", "val/y/1.jpg")
    images = opened(tmp_path / "shards")
    assert len(images) == 2 * len(NAMES)
    assert images.labels is None


def test_a_tar_of_everything_below_a_folder(tmp_path: Path):
    """`tar -C photos .` begins every name with ./"""
    tree(tmp_path / "photos", *NAMES)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "photos", ".")
    images = opened(tmp_path / "x.tar")
    assert sorted(images.files) == sorted(f"x.tar/{name}" for name in NAMES)
    assert images.open(0).size == Image.open(tmp_path / "photos" / images.files[0].removeprefix("x.tar/")).size


def test_what_stands_beside_the_images_of_a_shard_is_counted(tmp_path: Path):
    images = opened(tarred(tree(tmp_path / "photos", *NAMES), tmp_path / "x.tar"))
    assert images.skipped == ("1 archive(s) with 8 file(s) that are not images: x.tar",)


def test_a_folder_without_classes_is_all_for_training(tmp_path: Path):
    folder = tree(tmp_path / "photos", *NAMES, "a/.hidden.jpg")
    handmade.text(folder / "notes.txt", "x")
    images = opened(folder)
    assert list(images.files) == ["b.jpg", "a/1.jpg", "a/2.jpg", "a/deep/er/3.jpg"]
    assert "notes.txt" in "".join(images.skipped)
    with pytest.raises(BadData, match=r"has no classes to be scored on.*DIR/train/CLASS"):
        opened(folder, "val")


CLASSES = ("Bücher", "a class, with = and @", "zebra")


def labelled(folder: Path) -> Path:
    for name in CLASSES:
        tree(folder / "train" / name, "1.jpg", "below/2.jpg")
        tree(folder / "val" / name, "3.jpg")
    return folder


def test_a_labelled_tree_with_any_class_names(tmp_path: Path):
    folder = labelled(tmp_path / "photos")
    train, val = opened(folder), opened(folder, "val")
    assert train.classes == val.classes == CLASSES
    assert train.labelled(Classes).values.tolist() == [0, 0, 1, 1, 2, 2]
    assert [file.split("/")[1] for file in train.files] == [name for name in CLASSES for _ in range(2)]
    assert list(val.files) == [f"val/{name}/3.jpg" for name in CLASSES]
    assert len(opened(folder, "all")) == 9
    assert opened(folder, "all").labels is None


def test_without_val_a_fifth_of_each_class_is_held_out(tmp_path: Path):
    folder = tmp_path / "photos"
    for name in ("x", "y"):
        tree(folder / name, *(f"{number}.jpg" for number in range(10)))
    train, val = opened(folder), opened(folder, "val")
    assert np.bincount(train.labelled(Classes).values).tolist() == [8, 8]
    assert np.bincount(val.labelled(Classes).values).tolist() == [2, 2]
    assert sorted([*train.files, *val.files]) == sorted(opened(folder, "all").files)
    assert train.skipped == ("4 of 20 images, which are held out to be scored: a draw from each class",)
    assert train.fingerprint() == opened(folder).fingerprint()


def test_photos_that_come_or_go_move_no_others(tmp_path: Path):
    """What a backbone was trained on must not be scored later."""
    folder = tmp_path / "photos"
    for name in ("x", "y"):
        tree(folder / name, *(f"{number}.jpg" for number in range(20)))
    train, val = {*opened(folder).files}, {*opened(folder, "val").files}
    tree(folder / "x", *(f"new {number}.jpg" for number in range(20)))
    (folder / "y/7.jpg").unlink()
    assert train - {*opened(folder).files} <= {"y/7.jpg"}
    assert val - {*opened(folder, "val").files} <= {"y/7.jpg"}


def test_each_class_of_two_images_trains_and_is_scored(tmp_path: Path):
    for number in range(40):
        tree(tmp_path / "photos" / f"{number}", "1.jpg", "2.jpg")
    tree(tmp_path / "photos" / "one", "1.jpg")
    train, val = opened(tmp_path / "photos"), opened(tmp_path / "photos", "val")
    assert np.bincount(train.labelled(Classes).values).tolist() == [1] * 41
    assert np.bincount(val.labelled(Classes).values).tolist() == [1] * 40


def odd_pictures(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Written pictures of one colour, and what each must be read as."""
    folder.mkdir(parents=True)
    Image.new("L", (9, 7), 77).save(folder / "grey.png")
    Image.fromarray(np.full((7, 9), 257 * 99, dtype=np.uint16)).save(folder / "sixteen.png")
    palette = Image.new("P", (9, 7), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    palette.save(folder / "palette.png")
    Image.new("CMYK", (9, 7), (0, 0, 0, 55)).save(folder / "cmyk.tif")
    return {
        "grey.png": (77, 77, 77),
        "sixteen.png": (99, 99, 99),
        "palette.png": (10, 200, 30),
        "cmyk.tif": (200, 200, 200),
    }


def test_grey_16_bit_palette_and_cmyk_as_documented(tmp_path: Path):
    wanted = odd_pictures(tmp_path / "photos")
    images = opened(tmp_path / "photos")
    for place, file in enumerate(images.files):
        pixels = np.asarray(images.open(place))
        assert pixels.shape == (7, 9, 3)
        assert pixels.dtype == np.uint8
        assert {*map(tuple, pixels.reshape(-1, 3).tolist())} == {wanted.pop(file)}
    assert not wanted


def test_the_fingerprint_follows_the_images(tmp_path: Path):
    folder = tree(tmp_path / "photos", *NAMES)
    before = opened(folder).fingerprint()
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    assert opened(moved).fingerprint() == before
    (moved / "b.jpg").write_bytes((moved / "b.jpg").read_bytes() + b"x")
    assert opened(moved).fingerprint() != before


@pytest.mark.parametrize("form", ["folder", *FORMS])
def test_other_pixels_in_as_many_bytes_are_other_images(form: str, tmp_path: Path):
    """A BMP's size tells only its width and height."""
    prints = []
    for number, colour in enumerate((10, 20)):
        (home := tmp_path / str(number)).mkdir()
        (home / "photos").mkdir()
        for name, value in (("a", 5), ("b", colour)):
            Image.new("RGB", (8, 8), (value, 0, 0)).save(home / "photos" / f"{name}.jpg", "BMP")
        source = home / "photos" if form == "folder" else FORMS[form](home / "photos", home)
        prints.append(opened(source).fingerprint())
    assert prints[0] != prints[1]


def test_a_list_of_files_below_a_folder_called_like_an_archive(tmp_path: Path):
    """Each has its own size, and none is passed over as part of an archive."""
    tree(tmp_path, "x.tar/a.jpg")
    (tmp_path / "x.tar/b.jpg").write_bytes(b"")
    assert file_size(tmp_path, "x.tar/a.jpg") == (tmp_path / "x.tar/a.jpg").stat().st_size
    assert file_size(tmp_path, "x.tar/b.jpg") == 0
    source = handmade.text(tmp_path / "list.txt", "x.tar/a.jpg\nx.tar/b.jpg\n")
    assert cli.run(["doctor", "--images", str(source)]) == 1


def png_bomb(path: Path) -> Path:
    """A header of 30,000 x 30,000 pixels, which would take 2.7 GB."""
    content = io.BytesIO()
    Image.new("L", (8, 8)).save(content, "PNG")
    data = bytearray(content.getvalue())
    data[16:24] = (30_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    path.write_bytes(data)
    return path


def test_image_bombs_are_named(tmp_path: Path):
    folder = tree(tmp_path / "photos", "a.jpg")
    png_bomb(folder / "bomb.png")
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.jpg", bytes(100 << 20))
    images = opened(folder)
    for file, told in (("bomb.png", "decompression bomb"), ("bomb.zip/zeros.jpg", "not in a known image format")):
        with pytest.raises(UnreadableImage, match=told) as caught:
            images.open(images.files.index(file))
        assert str(folder / file) in str(caught.value)
        assert "--images DIR" in str(caught.value)


def archive_of(path: Path, *names: str) -> Path:
    """With members of exactly these names."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings(action="ignore"):  # of a name used twice
            for name in names:
                archive.writestr(name, b"x")
    else:
        with tarfile.open(path, "w") as tar:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = 1
                tar.addfile(member, io.BytesIO(b"x"))
    return path


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("a.jpg", "../b.jpg"), "points outside of the archive"),
        (("a.jpg", "x/../../b.jpg"), "points outside of the archive"),
        (("a.jpg", "/etc/b.jpg"), "points outside of the archive"),
        (("a.jpg", "b/a.jpg", "a.jpg"), "holds two files called a.jpg"),
        (("a.txt",), "contains no images"),
    ],
)
def test_hostile_archives(suffix: str, names: tuple[str, ...], told: str, tmp_path: Path):
    path = archive_of(tmp_path / f"photos{suffix}", *names)
    for source in (path, tmp_path):
        with pytest.raises(BadData, match=told) as caught:
            opened(source)
        assert str(tmp_path) in str(caught.value)
        tar_index.cache_clear()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_a_tar(kind: bytes, tmp_path: Path):
    """It may lead anywhere, so it is neither followed nor passed over without a word."""
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        member = tarfile.TarInfo("a.jpg")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(BadData, match=r"x\.tar, member a\.jpg: is a link, and links are not followed"):
        opened(tmp_path / "x.tar")


def test_an_archive_that_is_cut_off_anywhere(tmp_path: Path):
    """A tar that ends between two files looks like a shorter one."""
    folder = tree(tmp_path / "photos", *NAMES)
    for whole in (tarred(folder, tmp_path / "x.tar"), zipped(folder, tmp_path / "x.zip")):
        content, lengths = whole.read_bytes(), [whole.stat().st_size - 1]
        if whole.suffix == ".tar":  # what follows its last file are empty blocks, of which one is enough
            last = max(place + size for place, size in tar_index(whole).values())
            lengths = [last - 1, -(-last // 512) * 512]
        for length in (*range(0, lengths[0], 512), *lengths):
            cut = tmp_path / f"cut{whole.suffix}"
            cut.write_bytes(content[:length])
            tar_index.cache_clear()
            with pytest.raises(BadData, match="cut off") as caught:
                opened(cut)
            assert str(cut) in str(caught.value)


@pytest.mark.parametrize(
    ("source", "content", "told"),
    [
        ("nowhere", None, r"--images .*nowhere: there is no such folder or file"),
        ("a.jpg", None, "a.jpg: is a single image"),
        ("x.tar.gz", "x", "is compressed"),
        ("x.tgz", "x", "is compressed"),
        ("l.txt", "", "l.txt: the list is empty"),
        ("l.txt", "a.jpg\n\nb.jpg\n", "l.txt, line 3: there is no file"),
        ("l.txt", "a.jpg\n./a.jpg\n", "a.jpg is listed twice"),
        ("l.txt", "../a.jpg\n", "line 1: '../a.jpg' leads out"),
        ("l.txt", "a.jpg\n/a.jpg\n", "line 2: is absolute"),
        ("l.txt", "a.txt\n", "line 1: 'a.txt' is not called like an image"),
        ("l.txt", "a.jpg\0\n", "has a NUL byte"),
    ],
)
def test_what_cannot_be_read_is_told(source: str, content: str | None, told: str, tmp_path: Path):
    tree(tmp_path, "a.jpg")
    if content is not None:
        handmade.text(tmp_path / source, content)
    with pytest.raises(UserError, match=told):
        opened(tmp_path / source)


def test_a_folder_that_is_called_like_an_archive(tmp_path: Path):
    with pytest.raises(BadData, match="is a folder that is called like an archive"):
        opened(tree(tmp_path / "p", "photos.zip/a.jpg"))


def test_a_val_of_one_class(tmp_path: Path):
    folder = tree(tmp_path / "p", "train/x/1.jpg", "train/y/1.jpg", "train/y/2.jpg", "val/x/1.jpg")
    with pytest.raises(BadData, match="val: has no classes"):
        opened(folder, "val")


@pytest.mark.parametrize("where", ["", "train"])
def test_a_class_folder_without_an_image(where: str, tmp_path: Path):
    """Every class behind it would have another number."""
    folder = labelled(tmp_path / "photos") if where else tree(tmp_path / "photos", "a/1.jpg", "a/2.jpg", "c/1.jpg")
    (folder / where / "b").mkdir()
    with pytest.raises(BadData, match=r"1 class folder\(s\) contain no image: b\. Put images there, or remove"):
        opened(folder)


def test_it_has_no_place_among_the_datasets(tmp_path: Path):
    assert OWN_IMAGES in LAYOUTS
    assert OWN_IMAGES not in DATASETS


def test_the_doctor_lists_what_cannot_be_decoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tree(tmp_path / "photos", *NAMES)
    os.truncate(folder / "a/1.jpg", 300)
    assert cli.run(["doctor", "--images", str(folder), "--deep"]) == 0
    assert "1 of 4 images cannot be decoded: a/1.jpg" in capsys.readouterr().out
    assert list(opened(folder).files) == ["b.jpg", "a/2.jpg", "a/deep/er/3.jpg"]
    assert cli.run(["doctor", "--images", str(folder), "--data", str(tmp_path)]) == 2
    assert cli.run(["doctor"]) == 2
    assert "give --data DIR" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["zip", "tar", "relative list"])
def test_the_doctor_leaves_what_is_listed_of_others(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A list of images or an archive shares its folder, and so the list of what cannot be decoded."""
    folder = tree(tmp_path / "photos", *NAMES)
    os.truncate(folder / "a/1.jpg", 300)
    source = FORMS[form](folder, tmp_path)
    handmade.text(tmp_path / "unreadable.txt", "other/x.jpg\tcut off\nother/y.jpg\n")
    assert cli.run(["doctor", "--images", str(source), "--deep"]) == 0
    assert "match no image" not in capsys.readouterr().out
    listed_now = (tmp_path / "unreadable.txt").read_text()
    assert "other/x.jpg\tcut off\nother/y.jpg\t\n" in listed_now
    assert "a/1.jpg\t" in listed_now
    assert len(opened(source)) == len(NAMES) - 1


TWO = ("train/x/1.jpg", "train/y/1.jpg", "val/x/2.jpg", "val/y/2.jpg")
MISTAKES: dict[str, tuple[tuple[str, ...], int, str]] = {
    "a class that is only scored": (
        (*TWO, "val/z/1.jpg"),
        1,
        r"own_images/train has 2 classes and own_images/val 3, .* only own_images/val has z\. .*\n.*spelled alike",
    ),
    "a class that is spelled in two ways": (
        ("train/Cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg", "val/dog/2.jpg"),
        1,
        "only own_images/train has Cat; only own_images/val has cat",
    ),
    "a part of one class": ((*TWO[:2], TWO[2]), 1, r"val: has no classes to be scored on\n.*with two classes or more"),
    "a part without classes": (
        ("train/1.jpg", *TWO[2:]),
        1,
        "own_images/train has no classes and .*/val has 2",
    ),
    "an empty part": ((*TWO[:2], "val/readme.txt"), 1, "val: contains no images"),
    "parts of other names": (("train/x/1.jpg", "test/x/1.jpg"), 1, r"holds test, train, which are parts of a set"),
    "a class of one image": (("x/1.jpg", "x/2.jpg", "y/1.jpg"), 0, "y: too few images to train on some"),
    "no classes": (("1.jpg", "2.jpg"), 0, "no classes, so nothing can be scored on them; `pretrain` and `features`"),
}


def doctored(folder: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
    status = cli.run(["doctor", "--images", str(folder), *flags])
    return status, capsys.readouterr().out


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_doctor_tells_what_is_wrong_with_classes(mistake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    names, wanted, told = MISTAKES[mistake]
    status, text = doctored(tree(tmp_path / "photos", *names), capsys)
    assert status == wanted
    assert re.search(told, text), text


@pytest.mark.parametrize("names", [TWO, ("x/1.jpg", "x/2.jpg", "y/1.jpg", "y/2.jpg")])
def test_the_doctor_finds_sound_classes_sound(
    names: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status, text = doctored(tree(tmp_path / "photos", *names), capsys)
    assert status == 0
    assert "0 errors, 0 warnings" in text
    for part in ("train", "val"):
        assert re.search(rf"own_images/{part} .*2 images, 2 classes", text)


@pytest.mark.parametrize("flags", [(), ("--deep",)])
def test_the_doctor_finds_what_is_trained_and_scored_on(
    flags: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tree(tmp_path / "photos", *TWO)
    shutil.copy(folder / TWO[0], folder / "val/x/other.jpg")
    status, text = doctored(folder, capsys, *flags)
    assert status == 0
    assert "1 of 3 images have the same bytes as one of own_images/train: val/x/other.jpg = train/x/1.jpg" in text
    (folder / "val/x/other.jpg").unlink()
    (folder / "val/x/1.jpg").symlink_to(folder / TWO[0])
    status, text = doctored(folder, capsys, *flags)
    assert status == 1
    assert "1 of the 3 images of own_images/val are in own_images/train too, which is trained on: val/x/1.jpg" in text


def test_only_files_of_one_length_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tree(tmp_path / "photos", *TWO)
    handmade.text(folder / TWO[2], "x" * file_size(folder, TWO[0]))  # as long, and another
    read: list[str] = []
    monkeypatch.setattr("benchmark.data.pairs.read_bytes", lambda root, file: read.append(file) or b"")
    assert copies(opened(folder, "val"), opened(folder)) == []
    assert sorted(read) == sorted([TWO[0], TWO[2]])
