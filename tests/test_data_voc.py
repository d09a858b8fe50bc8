"""VOC: presence codes, boxes and masks, on a layout written by hand; each fault named by file and line."""

from __future__ import annotations

from pathlib import Path

import handmade
import numpy as np
import pytest
from PIL import Image

from benchmark.core.errors import UserError
from benchmark.data import voc
from benchmark.data.datasets import open_dataset
from benchmark.data.findings import BadData

PERSON, DOG = 14, 11  # places among the 20 classes in alphabetical order


@pytest.mark.parametrize("year", ["2007", "2012"])
def test_presence_codes(tmp_path: Path, year: str) -> None:
    handmade.voc(tmp_path, year)
    images = open_dataset(tmp_path, f"voc{year}", "trainval")
    assert images.files == ["JPEGImages/000005.jpg", "JPEGImages/000032.jpg", "JPEGImages/000007.jpg"]
    assert images.classes == tuple(handmade.VOC_CLASSES)
    expected = np.zeros((3, 20), dtype=np.int64)
    expected[0, PERSON] = 1
    expected[:2, DOG] = (-1, 1)  # VOC's 0, only difficult ones, is ignored; its 1 is present
    np.testing.assert_array_equal(images.labels.values, expected)
    assert images.labels.values.dtype == np.int64
    images.open(0)


def test_boxes_are_half_open_and_parts_are_no_objects(tmp_path: Path) -> None:
    handmade.voc(tmp_path)
    found = voc.annotation(tmp_path / "VOCdevkit", "2007", "000005")
    np.testing.assert_array_equal(found.boxes, np.array([[1, 0, 9, 8], [0, 1.5, 10, 7.5]], dtype=np.float32))
    assert found.boxes.dtype == np.float32
    assert found.labels.tolist() == [PERSON, DOG]
    assert found.ignored.tolist() == [False, True]
    assert found.size == (10, 8)


def test_annotation_without_objects(tmp_path: Path) -> None:
    home = handmade.voc(tmp_path)
    xml = "<annotation><size><width>3</width><height>2</height></size></annotation>"
    handmade.text(home / "Annotations" / "000007.xml", xml)
    found = voc.annotation(tmp_path / "VOCdevkit", "2007", "000007")
    assert found.boxes.shape == (0, 4)
    assert found.labels.shape == found.ignored.shape == (0,)


BOMB = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>
<annotation><object><name>&c;</name></object></annotation>"""
EXTERNAL = """<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotation><name>&f;</name></annotation>"""


@pytest.mark.parametrize(
    ("xml", "word"),
    [
        (BOMB, "entities"),
        (EXTERNAL, "entities"),
        ("<annotation>", "well-formed"),
        ("", "well-formed"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "well-formed"),
        (handmade.XML.replace("<name>dog</name>", "<name>wolf</name>"), "'wolf'"),
        (handmade.XML.replace("<xmin>2</xmin>", ""), "bndbox/xmin"),
        (handmade.XML.replace("<xmin>2</xmin>", "<xmin>two</xmin>"), "bndbox/xmin"),
        (handmade.XML.replace("<xmin>2</xmin>", "<xmin>nan</xmin>"), "bndbox/xmin"),
        (handmade.XML.replace("<xmin>2</xmin>", "<xmin>10</xmin>"), "contains no pixel"),
        (handmade.XML.replace("<width>10</width>", ""), "size/width"),
    ],
)
def test_bad_annotations(tmp_path: Path, xml: str, word: str) -> None:
    home = handmade.voc(tmp_path)
    path = handmade.text(home / "Annotations" / "000005.xml", xml)
    with pytest.raises(UserError) as caught:
        voc.annotation(tmp_path / "VOCdevkit", "2007", "000005")
    assert str(path) in str(caught.value)
    assert word in str(caught.value)


def test_missing_annotation(tmp_path: Path) -> None:
    handmade.voc(tmp_path)
    with pytest.raises(BadData, match=r"000099\.xml: there is no such file"):
        voc.annotation(tmp_path / "VOCdevkit", "2007", "000099")


def test_one_pixel_box_is_a_box(tmp_path: Path) -> None:
    home = handmade.voc(tmp_path)
    handmade.text(home / "Annotations" / "000005.xml", handmade.XML.replace("<xmin>2</xmin>", "<xmin>9</xmin>"))
    assert voc.annotation(tmp_path / "VOCdevkit", "2007", "000005").boxes[0].tolist() == [8, 0, 9, 8]


def test_mask_is_palette_indices(tmp_path: Path) -> None:
    handmade.voc(tmp_path)
    devkit = tmp_path / "VOCdevkit"
    assert voc.image_ids(devkit, "2007", "val", "Segmentation") == ["000032"]
    values = voc.mask(devkit, "2007", "000032")
    assert values.shape == (8, 10)
    assert values.dtype == np.uint8
    assert (values[0] == voc.IGNORED).all()
    assert (values[1:-1, 1:-1] == 12).all()
    assert voc.CLASSES[12 - 1] == "dog"


def test_bad_masks(tmp_path: Path) -> None:
    home = handmade.voc(tmp_path)
    path = home / "SegmentationClass" / "000032.png"

    def refuses(word: str) -> None:
        with pytest.raises(BadData, match=word) as caught:
            voc.mask(tmp_path / "VOCdevkit", "2007", "000032")
        assert str(path) in str(caught.value)

    Image.open(path).convert("RGB").save(path)
    refuses("colours")
    handmade.palette(path, np.full((8, 10), 21, dtype=np.uint8))
    refuses("not classes: 21")
    path.write_bytes(path.read_bytes()[:60])
    refuses("cannot be decoded")
    path.unlink()
    refuses("no such mask")


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("trainval.txt", "000032", "../../../etc/x", ("trainval.txt, line 2", "image id")),
        ("trainval.txt", "000032", "000099", ("trainval.txt, line 2", "000099.jpg")),
        ("trainval.txt", "000032\n", "", ("aeroplane_trainval.txt", "same 2 images")),
        ("trainval.txt", "000005\n000032\n000007\n", "", ("trainval.txt", "empty")),
        ("dog_trainval.txt", "000032  1", "000032  2", ("dog_trainval.txt, line 2", "'2'")),
        ("dog_trainval.txt", "000032  1", "000032", ("dog_trainval.txt, line 2", "a label")),
    ],
)
def test_bad_lists(tmp_path: Path, file: str, old: str, new: str, words: tuple[str, ...]) -> None:
    path = handmade.voc(tmp_path) / "ImageSets" / "Main" / file
    assert old in path.read_text()
    handmade.text(path, path.read_text().replace(old, new))
    with pytest.raises(BadData) as caught:
        open_dataset(tmp_path, "voc2007", "trainval")
    for word in words:
        assert word in str(caught.value)


def test_missing_class_list(tmp_path: Path) -> None:
    (handmade.voc(tmp_path) / "ImageSets" / "Main" / "sofa_test.txt").unlink()
    with pytest.raises(BadData, match=r"sofa_test\.txt: there is no such file"):
        open_dataset(tmp_path, "voc2007", "test")
