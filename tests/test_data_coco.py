"""COCO: presence, boxes, polygons and crowds, on a layout written by hand; each fault named by file and entry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import handmade
import numpy as np
import pytest

from benchmark.data.annotation import Annotated
from benchmark.data.boxes import read_instances
from benchmark.data.datasets import open_dataset
from benchmark.data.findings import BadData
from benchmark.data.unreadable import UNREADABLE

FILES = ["train2017/000000397133.jpg", "train2017/000000139.jpg", "train2017/000000037777.jpg"]
Content = dict[str, Any]


def objects(root: Path) -> Annotated:
    return read_instances(root, "coco2017", "train")


def edited(home: Path, edit: Callable[[Content], object]) -> Path:
    path = home / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


def test_presence_by_category_in_the_order_of_the_ids(tmp_path: Path) -> None:
    handmade.coco(tmp_path)
    images = open_dataset(tmp_path, "coco2017", "train")
    assert list(images.files) == FILES
    assert images.classes == ("person", "dog", "toothbrush")
    assert images.labels.values.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]  # a crowd of dogs shows dogs
    assert images.labels.values.dtype == np.int64
    assert images.open(1).size == (10, 8)
    assert list(open_dataset(tmp_path, "coco2017", "val").files) == [f.replace("train", "val") for f in FILES]


def test_objects_of_each_image(tmp_path: Path) -> None:
    handmade.coco(tmp_path)
    found = objects(tmp_path)
    assert list(found.images.files) == FILES
    assert found.classes == ("person", "dog", "toothbrush")
    first, second, third = found.annotations
    assert first.boxes.tolist() == [[0, 0, 10, 2], [2, 1, 6.5, 7]]
    assert (first.boxes.dtype, first.labels.dtype) == (np.float32, np.int64)
    assert first.labels.tolist() == [1, 0]
    assert first.ignored.tolist() == [True, False]
    assert [len(part) for part in first.masks[0]] == [21]
    assert first.masks[1][0].tolist() == [[2, 1], [6.5, 1], [6.5, 7], [2, 7]]
    assert second.boxes.tolist() == [[5.5, 3, 10, 7]]  # cut off at the edge
    assert [len(polygon) for polygon in second.masks[0]] == [3, 4]
    assert third.boxes.shape == (0, 4)
    assert third.size == (10, 8)


def test_crowds_and_boxes_that_hold_nothing_do_not_train(tmp_path: Path) -> None:
    home = handmade.coco(tmp_path)
    edited(home, lambda content: content["annotations"][0].update(bbox=[5.5, 3, 0, 4]))
    trained = objects(tmp_path).without_ignored()
    assert [one.labels.tolist() for one in trained.annotations] == [[0], [], []]
    assert [len(one.masks) for one in trained.annotations] == [1, 0, 0]
    assert list(trained.with_objects().images.files) == FILES[:1]


def test_images_that_cannot_be_read_are_left_out_with_their_objects(tmp_path: Path) -> None:
    home = handmade.coco(tmp_path)
    handmade.text(home / UNREADABLE, f"{FILES[0]}\t0 bytes\n")
    found = objects(tmp_path)
    assert list(found.images.files) == FILES[1:]
    assert [len(one.boxes) for one in found.annotations] == [1, 0]


def test_a_line_of_two_points_is_no_polygon(tmp_path: Path) -> None:
    home = handmade.coco(tmp_path)
    edited(home, lambda content: content["annotations"][0]["segmentation"].insert(0, [1, 1, 2, 2]))
    assert [len(polygon) for polygon in objects(tmp_path).annotations[1].masks[0]] == [3, 4]


def dog(content: Content) -> Content:
    return content["annotations"][0]


def crowd(content: Content) -> Content:
    return content["annotations"][1]


CHANGES: dict[str, Callable[[Content], object]] = {
    "box": lambda c: dog(c).update(bbox=[5.5, 3, 5, 3.5]),
    "category": lambda c: dog(c).update(category_id=1),
    "crowd": lambda c: crowd(c).update(iscrowd=0, segmentation=[[0, 0, 10, 0, 10, 2, 0, 2]], bbox=[0, 0, 10, 2]),
    "point": lambda c: dog(c)["segmentation"][0].__setitem__(0, 5.4),
    "one polygon fewer": lambda c: dog(c)["segmentation"].pop(),
    "polygons joined": lambda c: dog(c)["segmentation"][0].extend(dog(c)["segmentation"].pop()),
    "run lengths": lambda c: crowd(c)["segmentation"]["counts"].__setitem__(slice(0, 3), [1, 1, 6]),
    "another image": lambda c: dog(c).update(image_id=37777),
    "name of a category": lambda c: c["categories"][2].update(name="puppy"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_objects_are_other_data(tmp_path: Path, change: str) -> None:
    home = handmade.coco(tmp_path)

    def prints() -> tuple[str, str]:
        return objects(tmp_path).fingerprint(), open_dataset(tmp_path, "coco2017", "train").fingerprint()

    before = prints()
    edited(home, lambda content: content["info"].update(year=2018))  # which says nothing of the images
    assert prints() == before
    edited(home, CHANGES[change])
    after = prints()
    assert after != before
    if change != "name of a category":
        assert after[0] != before[0]


FAULTS: dict[str, tuple[Callable[[Content], object], str]] = {
    "no images": (lambda c: c.pop("images"), ": has no list of images"),
    "images are no list": (lambda c: c.update(images={}), ": has no list of images"),
    "no annotations": (lambda c: c.update(annotations=[]), ": has no list of annotations"),
    "an image is null": (lambda c: c["images"].__setitem__(2, None), ", images[2]: is NoneType"),
    "no file_name": (lambda c: c["images"][2].pop("file_name"), ", images[2]: has no file_name"),
    "no width": (lambda c: c["images"][0].pop("width"), ", images[0]: has no width"),
    "no pixels": (lambda c: c["images"][0].update(height=0), ", images[0]: height is 0"),
    "an id in words": (lambda c: c["images"][1].update(id="139"), ", images[1]: id is '139'"),
    "one image twice": (lambda c: c["images"][1].update(id=397133), ", images[1]: id 397133 is listed twice"),
    "one file twice": (
        lambda c: c["images"][1].update(file_name="000000397133.jpg"),
        ", images[1]: 000000397133.jpg is listed twice",
    ),
    "no such file": (lambda c: c["images"][1].update(file_name="1.jpg"), ", images[1]: 1.jpg is not in"),
    "a file elsewhere": (lambda c: c["images"][1].update(file_name="../val2017/x.jpg"), ", images[1]: '../val2017"),
    "no name": (lambda c: c["categories"][1].pop("name"), ", categories[1]: has no name"),
    "one category twice": (lambda c: c["categories"][1].update(id=90), ", categories[1]: id 90 is listed twice"),
    "no image_id": (lambda c: dog(c).pop("image_id"), ", annotations[0]: has no image_id"),
    "unknown image": (lambda c: dog(c).update(image_id=7), ", annotations[0]: image_id 7 is not in images"),
    "unknown category": (lambda c: dog(c).update(category_id=2), ", annotations[0]: category_id 2 is not in categ"),
    "a category in a list": (lambda c: dog(c).update(category_id=[]), ", annotations[0]: category_id is []"),
    "id 0": (lambda c: dog(c).update(id=0), ", annotations[0]: id is 0, not a whole number of at least 1"),
    "one id twice": (lambda c: crowd(c).update(id=1768), ", annotations[1]: id 1768 is listed twice"),
    "no area": (lambda c: dog(c).pop("area"), ", annotations[0]: area is missing or not a number"),
    "no iscrowd": (lambda c: dog(c).pop("iscrowd"), ", annotations[0]: iscrowd is None"),
    "no box": (lambda c: dog(c).pop("bbox"), ", annotations[0]: bbox is None"),
    "three sides": (lambda c: dog(c)["bbox"].pop(), ", annotations[0]: bbox is [5.5, 3, 5]"),
    "an infinite box": (lambda c: dog(c).update(bbox=[0, 0, 1, float("inf")]), ", annotations[0]: bbox is"),
    "a negative side": (lambda c: dog(c).update(bbox=[5, 5, -2, 1]), ", annotations[0]: the box [5, 5, -2, 1] has"),
    "a box on the right": (lambda c: dog(c).update(bbox=[10, 0, 2, 2]), ", annotations[0]: the box [10, 0, 2, 2] lies"),
    "a box above": (lambda c: dog(c).update(bbox=[1, -3, 2, 2.5]), ", annotations[0]: the box [1, -3, 2, 2.5] lies"),
    "an empty box outside": (lambda c: dog(c).update(bbox=[1, 9, 2, 0]), ", annotations[0]: the box [1, 9, 2, 0] lies"),
    "no mask": (lambda c: dog(c).pop("segmentation"), ", annotations[0]: segmentation is not a list of polygons"),
    "runs of an object": (
        lambda c: dog(c).update(segmentation=crowd(c)["segmentation"]),
        ", annotations[0]: segmentation is not a list of polygons",
    ),
    "polygons of a crowd": (
        lambda c: crowd(c).update(segmentation=dog(c)["segmentation"]),
        ", annotations[1]: segmentation has no list of counts",
    ),
    "no polygon": (lambda c: dog(c).update(segmentation=[]), ", annotations[0]: segmentation has no polygon of 3"),
    "half a point": (lambda c: dog(c)["segmentation"][0].pop(), ", annotations[0]: the polygon [5.5, 3, 9, 3, 9] is"),
    "a point in words": (
        lambda c: dog(c)["segmentation"][0].__setitem__(1, "3"),
        ", annotations[0]: the polygon [5.5, '3'",
    ),
    "runs of another size": (
        lambda c: crowd(c)["segmentation"].update(size=[10, 8]),
        ", annotations[1]: the mask's size is [10, 8], but its image's is [8, 10]",
    ),
    "too few runs": (
        lambda c: crowd(c)["segmentation"]["counts"].pop(),
        ", annotations[1]: the mask's counts add up to 74 pixels, but its image has 80",
    ),
    "compressed runs": (
        lambda c: crowd(c)["segmentation"].update(counts="06"),
        ", annotations[1]: segmentation has no list of counts",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(tmp_path: Path, fault: str) -> None:
    home = handmade.coco(tmp_path)
    edit, words = FAULTS[fault]
    path = edited(home, edit)
    for read in (lambda: open_dataset(tmp_path, "coco2017", "train"), lambda: objects(tmp_path)):
        with pytest.raises(BadData) as caught:
            read()
        assert f"{path}{words}" in str(caught.value)
        assert caught.value.fix
    assert len(open_dataset(tmp_path, "coco2017", "val")) == 3


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "[]", "", "5"])
def test_what_is_not_json_is_named(tmp_path: Path, content: str) -> None:
    path = handmade.text(handmade.coco(tmp_path) / "annotations" / "instances_train2017.json", content)
    with pytest.raises(BadData) as caught:
        open_dataset(tmp_path, "coco2017", "train")
    assert str(path) in str(caught.value)
