"""Proposals: files in the released form, OpenCV's, windows; and the share of the objects that they find."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from benchmark import cli
from benchmark.core.errors import UserError
from benchmark.data import selective_search
from benchmark.data.annotation import Annotated, Annotation
from benchmark.data.boxes import read_boxes
from benchmark.data.image_set import ImageSet
from benchmark.data.proposals import (
    ids_of,
    proposals_file,
    read_proposals,
    read_with_proposals,
    share_proposed,
    windows,
    write_proposals,
)
from benchmark.data.selective_search import make_proposals, searched
from benchmark.toyland import build_world

BOXES = {  # y1, x1, y2, x2, counted from 1
    "000012": [[1, 1, 96, 84], [5, 10, 6, 10]],
    "000005": [[3, 2, 40, 20]],
    "000007": [],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"), "smoke", datasets=("voc2007",), progress=False)


def released(path: Path, boxes: dict[str, list[list[int]]], dtype: type = np.float64) -> Path:
    """As MATLAB saves `images`, a column of cells, and `boxes`, a row of them."""
    images, cells = np.empty((len(boxes), 1), dtype=object), np.empty((1, len(boxes)), dtype=object)
    for place, (image_id, rows) in enumerate(boxes.items()):
        images[place, 0], cells[0, place] = image_id, np.array(rows, dtype=dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"images": images, "boxes": cells})
    return path


@pytest.mark.parametrize("dtype", [np.float64, np.uint16])
def test_the_released_form(tmp_path: Path, dtype: type) -> None:
    path = released(tmp_path / "voc_2007_test.mat", BOXES, dtype)
    first, second, none = read_proposals(path, ["000005", "000012", "000007"])
    assert first.tolist() == [[1, 2, 20, 40]]  # 19 px wide, 38 px high
    assert second.tolist() == [[0, 0, 84, 96], [9, 4, 10, 6]]
    assert none.shape == (0, 4)
    assert {boxes.dtype for boxes in (first, second, none)} == {np.dtype(np.float32)}


def test_what_is_written_is_the_released_form(tmp_path: Path) -> None:
    given = [np.array([[1, 2, 20, 40], [0, 0, 3, 1]], dtype=np.float32), np.zeros((0, 4), dtype=np.float32)]
    write_proposals(tmp_path / "a.mat", ["000005", "000007"], given)
    for found, wanted in zip(read_proposals(tmp_path / "a.mat", ["000005", "000007"]), given, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"boxes": np.zeros((3, 4))}, "has no images and boxes"),
        ({"images": np.array([["000005"], ["000012"]], dtype=object), "boxes": np.zeros((1, 1), dtype=object)}, "of 1"),
    ],
)
def test_another_form_is_an_error(tmp_path: Path, content: dict[str, np.ndarray], said: str) -> None:
    savemat(tmp_path / "a.mat", content)
    with pytest.raises(UserError, match=rf"a\.mat.*{said}.*selective_search_data\.tgz"):
        read_proposals(tmp_path / "a.mat", ["000005"])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[1, 2, 3]], r"of shape \(1, 3\)"),
        ([[9, 2, 3, 4]], "contains no pixel"),
        (None, "no boxes for 1 of 2 images: 000005"),
    ],
)
def test_bad_boxes_are_errors_that_name_the_image(tmp_path: Path, rows: list[list[int]] | None, said: str) -> None:
    boxes = {"000012": [[1, 1, 2, 2]]} | ({} if rows is None else {"000005": rows})
    path = released(tmp_path / "a.mat", boxes)
    with pytest.raises(UserError, match=f"000005.*{said}" if rows else said):
        read_proposals(path, ["000012", "000005"])


def test_no_mat_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(b"not one")
    with pytest.raises(UserError, match=r"a\.mat"):
        read_proposals(tmp_path / "a.mat", ["000005"])


def test_a_split_takes_them_from_the_file_and_windows_without(world: Path, tmp_path: Path) -> None:
    drawn = read_with_proposals(world, "voc2007", "test")
    for one in drawn.annotations:
        np.testing.assert_array_equal(one.proposals, windows(one.size))
    root = tmp_path / "root"
    root.mkdir()
    (root / "VOCdevkit").symlink_to(world / "VOCdevkit")
    path = proposals_file(root, "voc2007", "test")
    assert path.relative_to(root).as_posix() == "selective_search_data/voc_2007_test.mat"
    released(path, {image_id: [[1, 1, 10, 20]] for image_id in reversed(ids_of(drawn))})
    found = read_with_proposals(root, "voc2007", "test")
    assert all(one.proposals.tolist() == [[0, 0, 20, 10]] for one in found.annotations)
    assert found.fingerprint() != drawn.fingerprint()
    released(path, {image_id: [[1, 1, 200, 20]] for image_id in ids_of(drawn)})
    with pytest.raises(UserError, match=r"voc_2007_test\.mat: boxes of 20 images reach beyond them"):
        read_with_proposals(root, "voc2007", "test")


def test_annotations_without_proposals_keep_their_fingerprint(world: Path) -> None:
    """That of every published record of a detector that proposes itself."""
    drawn = read_boxes(world, "voc2007", "test")
    digest = hashlib.sha256(drawn.images.fingerprint().encode())
    for one in drawn.annotations:
        for values in (one.boxes, one.labels, one.ignored):
            digest.update(values.tobytes() + b"\n")
    assert drawn.fingerprint() == digest.hexdigest()[:12]
    none_found = np.zeros((0, 4), dtype=np.float32)
    empty = replace(drawn, annotations=tuple(replace(one, proposals=none_found) for one in drawn.annotations))
    assert empty.fingerprint() != drawn.fingerprint()


@pytest.mark.parametrize("size", [(128, 96), (96, 128), (112, 112), (500, 333), (11, 300)])
def test_windows_lie_in_the_image_and_miss_no_part_of_it(size: tuple[int, int]) -> None:
    found = windows(size)
    assert (found >= 0).all()
    assert (found[:, 2:] <= size).all()
    assert (found[:, 2:] > found[:, :2]).all()
    covered = np.zeros(size[::-1], dtype=bool)
    for x1, y1, x2, y2 in found.astype(int):
        covered[y1:y2, x1:x2] = True
    assert covered.all()
    assert len(np.unique(found, axis=0)) == len(found)


def test_the_share_found_is_that_of_a_formula_in_double_precision() -> None:
    rng = np.random.default_rng(0)
    images, hits, objects = [], 0, 0
    for _ in range(20):
        corners = rng.integers(0, 30, (60, 2))
        boxes = np.concatenate([corners, corners + rng.integers(5, 40, corners.shape)], axis=1)
        truth, proposals, ignored = boxes[:6], boxes[6:], rng.random(6) < 0.3
        for x1, y1, x2, y2 in truth[~ignored].tolist():
            best = 0.0
            for a1, b1, a2, b2 in proposals.tolist():
                pixels = max(min(x2, a2) - max(x1, a1), 0) * max(min(y2, b2) - max(y1, b1), 0)
                best = max(best, pixels / ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - pixels))
            hits, objects = hits + (best >= 0.5), objects + 1
        labels = np.zeros(6, dtype=np.int64)
        images.append(
            Annotation(truth.astype(np.float32), labels, ignored, (80, 80), proposals=proposals.astype(np.float32))
        )
    annotated = Annotated(ImageSet("a/b", Path(), ["a"] * 20), tuple(images), ("x",), "")
    assert 0 < hits < objects
    assert share_proposed(annotated) == hits / objects


def test_an_overlap_of_exactly_a_half_finds_and_an_image_without_proposals_does_not() -> None:
    truth, label, none = np.array([[0, 0, 10, 10]], dtype=np.float32), np.zeros(1, dtype=np.int64), np.zeros(1, bool)
    half, empty = np.array([[0, 0, 10, 20]], dtype=np.float32), np.zeros((0, 4), dtype=np.float32)
    images = tuple(Annotation(truth, label, none, (20, 20), proposals=one) for one in (half, empty))
    assert share_proposed(Annotated(ImageSet("a/b", Path(), ["a"] * 2), images, ("x",), "")) == 0.5


def test_without_opencv_it_says_how_to_get_it(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selective_search.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=re.escape("pip install 'sslbench[selective-search]'")):
        make_proposals(world, "voc2007", "test", 1, progress=False)


def test_selective_search_finds_a_bright_rectangle_and_is_kept() -> None:
    pytest.importorskip("cv2", reason="pip install 'sslbench[selective-search]'")
    pixels = np.full((80, 120, 3), 40, dtype=np.uint8)
    pixels[20:60, 30:90] = (200, 30, 90)
    image = Image.fromarray(pixels)
    found = searched(image)
    overlaps = [abs(box - (30, 20, 90, 60)).max() for box in found]
    assert min(overlaps) <= 2
    np.testing.assert_array_equal(found, searched(image))


def test_the_command_writes_the_files_that_are_read(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cv2", reason="pip install 'sslbench[selective-search]'")
    (tmp_path / "VOCdevkit").symlink_to(world / "VOCdevkit")
    assert cli.run(["propose", "--data", str(tmp_path)]) == 0
    paths = [proposals_file(tmp_path, "voc2007", split) for split in ("trainval", "test")]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in paths]
    found = read_with_proposals(tmp_path, "voc2007", "test")
    np.testing.assert_array_equal(found.annotations[3].proposals, searched(found.images.open(3)))
    assert share_proposed(found) > 0.5
    released(paths[1], BOXES)
    kept = paths[1].read_bytes()
    assert make_proposals(tmp_path, "voc2007", "test", 1, progress=False) == paths[1]
    assert paths[1].read_bytes() == kept
