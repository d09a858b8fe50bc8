"""Boxes and masks as detectors and segmentation networks get them; each fault named by file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import handmade
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from benchmark.data.annotation import joined
from benchmark.data.boxes import read_boxes
from benchmark.data.findings import BadData
from benchmark.data.masks import train_aug, voc_masks


def annotations(root: Path, year: str) -> Path:
    """The handmade VOC, whose second image shows nothing and whose third has boxes that reach over the edges."""
    wide = handmade.XML.replace("<xmin>2</xmin>", "<xmin>-3</xmin>")
    return handmade.voc(root, year, (handmade.XML, handmade.NOTHING, wide)) / "Annotations"


def test_two_years_are_one_set(tmp_path: Path) -> None:
    for year in ("2007", "2012"):
        annotations(tmp_path, year)
    found = joined([read_boxes(tmp_path, name, "trainval") for name in ("voc2007", "voc2012")])
    assert len(found) == len(found.annotations) == 6
    assert found.images.files[0] == "VOC2007/JPEGImages/000005.jpg"
    assert found.images.files[5] == "VOC2012/JPEGImages/000007.jpg"
    assert found.images.open(5).size == (10, 8)
    assert found.annotations[0].ignored.tolist() == [False, True]  # difficult objects train too


def test_images_without_objects_do_not_train(tmp_path: Path) -> None:
    annotations(tmp_path, "2007")
    found = read_boxes(tmp_path, "voc2007", "trainval")
    assert [len(one.boxes) for one in found.annotations] == [2, 0, 2]
    assert [Path(file).stem for file in found.with_objects().images.files] == ["000005", "000007"]


def test_boxes_are_cut_off_at_the_edges(tmp_path: Path) -> None:
    annotations(tmp_path, "2007")
    assert read_boxes(tmp_path, "voc2007", "trainval").annotations[2].boxes[0].tolist() == [0, 0, 9, 8]


def test_a_box_beside_its_image_is_an_error(tmp_path: Path) -> None:
    folder = annotations(tmp_path, "2007")
    beside = handmade.XML.replace("<xmin>2</xmin>", "<xmin>12</xmin>").replace("<xmax>9</xmax>", "<xmax>20</xmax>")
    path = handmade.text(folder / "000007.xml", beside)
    with pytest.raises(BadData, match=r"the box 11, 0, 20, 8 lies outside the image of 10 × 8") as caught:
        read_boxes(tmp_path, "voc2007", "trainval")
    assert str(path) in str(caught.value)


def test_an_image_of_another_size_than_its_annotation_is_an_error(tmp_path: Path) -> None:
    annotations(tmp_path, "2007")
    found = read_boxes(tmp_path, "voc2007", "trainval")
    found.check_size(0, (10, 8))
    with pytest.raises(BadData, match=r"000005\.jpg: is 8 × 10, but its annotation says 10 × 8"):
        found.check_size(0, (8, 10))


def test_a_moved_box_is_other_data(tmp_path: Path) -> None:
    folder = annotations(tmp_path, "2007")
    before = read_boxes(tmp_path, "voc2007", "trainval").fingerprint()
    assert read_boxes(tmp_path, "voc2007", "trainval").fingerprint() == before
    path = folder / "000005.xml"
    handmade.text(path, path.read_text().replace("<xmin>2</xmin>", "<xmin>3</xmin>"))
    assert read_boxes(tmp_path, "voc2007", "trainval").fingerprint() != before


def test_train_aug_is_voc_first_then_sbd_without_val(tmp_path: Path) -> None:
    handmade.sbd(tmp_path)
    found = train_aug(tmp_path)
    assert [Path(file).stem for file in found.images.files] == ["000005", "000007"]
    assert (found.mask(0) == 3).all()  # VOC's own mask where there is one
    assert (found.mask(1) == 9).all()
    assert found.mask(1).dtype == np.uint8
    assert found.mask(1).shape == (8, 10)


def test_masks_are_indices_and_void_stays(tmp_path: Path) -> None:
    handmade.voc(tmp_path, "2012")
    found = voc_masks(tmp_path, "2012", "val")
    assert len(found) == 1
    assert set(np.unique(found.mask(0)).tolist()) == {12, 255}


Spoil = Callable[[Path], object]
PNG = "VOCdevkit/VOC2012/SegmentationClass/000005.png"
MAT = "benchmark_RELEASE/dataset/cls/000007.mat"
FAULTS: dict[str, tuple[str, Spoil, str]] = {
    "missing mask": (PNG, lambda path: path.unlink(), "is not in"),
    "missing mat": (MAT, lambda path: path.unlink(), "is not in"),
    "larger mask": (
        PNG,
        lambda path: handmade.palette(path, np.zeros((9, 10), np.uint8)),
        "is 10 × 9, but its image is 10 × 8",
    ),
    "larger mat": (MAT, lambda path: handmade.mat(path, np.zeros((8, 11))), "is 11 × 8, but its image is 10 × 8"),
    "colours": (PNG, lambda path: Image.new("RGB", (10, 8)).save(path), "not palette indices"),
    "unknown class": (MAT, lambda path: handmade.mat(path, np.full((8, 10), 21)), "not classes: 21"),
    "half a class": (MAT, lambda path: handmade.mat(path, np.full((8, 10), 0.5)), r"not classes: 0\.5"),
    "unknown class in VOC": (
        PNG,
        lambda path: handmade.palette(path, np.full((8, 10), 30, np.uint8)),
        "not classes: 30",
    ),
    "no PNG": (PNG, lambda path: path.write_bytes(b"x" * 200), "cannot be decoded"),
    "half a PNG": (PNG, lambda path: path.write_bytes(path.read_bytes()[:-40]), "cannot be decoded"),
    "layers": (
        MAT,
        lambda path: handmade.mat(path, np.zeros((8, 10, 3), np.uint8)),
        r"not a table of numbers but uint8 of shape \(8, 10, 3\)",
    ),
    "text": (MAT, lambda path: handmade.mat(path, np.array(["a"], dtype=object)), "not a table of numbers but object"),
    "half a mat": (MAT, lambda path: path.write_bytes(path.read_bytes()[:-100]), r"has no GTcls\.Segmentation"),
    "empty mat": (MAT, lambda path: path.write_bytes(b""), r"has no GTcls\.Segmentation"),
    "no mat": (MAT, lambda path: path.write_bytes(b"x" * 200), r"has no GTcls\.Segmentation"),
    "another mat": (MAT, lambda path: savemat(path, {"other": 1}), r"has no GTcls\.Segmentation"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_bad_masks_are_named(name: str, tmp_path: Path) -> None:
    handmade.sbd(tmp_path)
    file, spoil, message = FAULTS[name]
    spoil(tmp_path / file)
    with pytest.raises(BadData, match=message) as caught:
        read_all(tmp_path)
    assert Path(file).name in str(caught.value)


def test_without_sbd_the_error_says_what_to_unpack(tmp_path: Path) -> None:
    (handmade.sbd(tmp_path) / "train.txt").unlink()
    with pytest.raises(BadData, match=r"train\.txt: there is no such file\. Unpack SBD's benchmark\.tgz"):
        read_all(tmp_path)


def test_an_image_of_val_in_the_training_list_is_an_error(tmp_path: Path) -> None:
    handmade.sbd(tmp_path)
    path = handmade.text(tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt", "000005\n000032\n")
    handmade.palette(tmp_path / "VOCdevkit/VOC2012/SegmentationClass/000032.png", np.zeros((8, 10), np.uint8))
    with pytest.raises(BadData, match=r"1 of its images are in val\.txt too: 000032") as caught:
        train_aug(tmp_path)
    assert str(path) in str(caught.value)


def test_an_id_that_leads_elsewhere_is_an_error(tmp_path: Path) -> None:
    handmade.text(handmade.sbd(tmp_path) / "val.txt", "000032\n../../x\n")
    with pytest.raises(BadData, match=r"val\.txt, line 2: '\.\./\.\./x' is not an image id"):
        train_aug(tmp_path)


def read_all(root: Path) -> None:
    found = train_aug(root)
    for index in range(len(found)):
        found.check_size(index, found.mask(index), found.images.open(index).size)


@pytest.mark.parametrize("name", ["mat", "png"])
def test_another_mask_is_other_data(name: str, tmp_path: Path) -> None:
    """Also one that leaves its file as large as it was."""
    handmade.sbd(tmp_path)
    path = tmp_path / {"mat": MAT, "png": PNG}[name]
    before, size = train_aug(tmp_path).fingerprint(), path.stat().st_size
    assert train_aug(tmp_path).fingerprint() == before
    {"mat": handmade.mat, "png": handmade.palette}[name](path, np.full((8, 10), 11, np.uint8))
    assert path.stat().st_size == size
    assert train_aug(tmp_path).fingerprint() != before
