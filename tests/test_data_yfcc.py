"""YFCC in its three forms, and the lazy sequences of names below it, each against a plain list."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import handmade
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.data.datasets import open_dataset
from benchmark.data.findings import BadData
from benchmark.data.images import UnreadableImage
from benchmark.data.layouts.yfcc100m_zips import NumberedNames, ZippedNames
from benchmark.data.names import LINES_PER_MARK, Lines, Names, Picked, Without, find
from benchmark.data.unreadable import UNREADABLE


def test_directory_is_walked_in_order(tmp_path: Path) -> None:
    handmade.yfcc(tmp_path)
    images = open_dataset(tmp_path, "yfcc100m", "train")
    assert images.files == ["z.jpg", "0/a.jpg", "0/b.jpg", "1/0/c.png.jpg"]
    assert images.labels is None
    assert images.classes == ()
    images.open(3)


def test_file_list_alone_counts(tmp_path: Path) -> None:
    home = handmade.yfcc(tmp_path)
    handmade.text(home / "files.txt", "z.jpg\n0/b.jpg\nnowhere.jpg")
    images = open_dataset(tmp_path, "yfcc100m", "train")
    assert list(images.files) == ["z.jpg", "0/b.jpg", "nowhere.jpg"]
    images.open(1)
    with pytest.raises(UnreadableImage, match=r"nowhere\.jpg"):
        images.open(2)
    handmade.text(home / UNREADABLE, "0/b.jpg\n")
    said: list[str] = []
    kept = open_dataset(tmp_path, "yfcc100m", "train", said.append)
    assert list(kept.files) == ["z.jpg", "nowhere.jpg"]
    assert "0/b.jpg" in said[0]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("/etc/x.jpg", "absolute"),
        ("a/../../x.jpg", "outside"),
        ("..", "outside"),
        ("", "blank"),
        ("\\x.jpg", "absolute"),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_bad_line_of_file_list(tmp_path: Path, line: str, word: str, ending: str) -> None:
    path = tmp_path / "files.txt"
    path.write_bytes(ending.join(["a.jpg", "b..c/d...jpg", line, "e.jpg", ""]).encode())
    with pytest.raises(BadData, match=word) as caught:
        Lines(path)
    assert f"{path}, line 3" in str(caught.value)


def test_empty_or_missing_list(tmp_path: Path) -> None:
    handmade.text(tmp_path / "files.txt", "")
    with pytest.raises(BadData, match="empty"):
        Lines(tmp_path / "files.txt")
    with pytest.raises(BadData, match="No such file"):
        Lines(tmp_path / "gone.txt")


names = st.text(st.characters(exclude_characters="\n\r/\\\0\t\ufeff", exclude_categories=["Cs"]), min_size=1).filter(
    lambda s: s != ".." and not s.endswith(" ")
)


@settings(max_examples=60)
@given(
    st.lists(names, min_size=1, max_size=3 * LINES_PER_MARK),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(1, 40),
    st.booleans(),
)
def test_lines_equal_a_list(tmp_path_factory, lines: list[str], ending: str, chunk: int, ended: bool) -> None:
    path = tmp_path_factory.mktemp("lines") / "files.txt"
    path.write_bytes((ending.join(lines) + (ending if ended else "")).encode())
    found = Lines(path)
    found.marks, found.length = found._scan(chunk)  # in small chunks, so that lines cross their borders
    assert [found[i] for i in range(len(found))] == list(found) == lines
    assert found[-1] == lines[-1]


def test_long_list_and_pickle(tmp_path: Path) -> None:
    lines = [f"{i % 97}/{'x' * (i % 600)}{i}.jpg" for i in range(5000)]
    found = Lines(handmade.text(tmp_path / "files.txt", "\n".join(lines)))
    stored = pickle.dumps(found)
    assert len(stored) < 8 * len(lines) / LINES_PER_MARK + 1000  # the marks, never the text
    copy = pickle.loads(stored)
    for i in np.random.default_rng(0).integers(0, len(lines), 200).tolist():
        assert found[i] == copy[i] == lines[i]
    with pytest.raises(IndexError):
        found[5000]
    assert find(found, [lines[4000], lines[7], "unknown"]).tolist() == [7, 4000]


@given(st.integers(1, 60), st.data())
def test_without_and_picked_equal_lists(count: int, data: st.DataObject) -> None:
    base = [f"{i}.jpg" for i in range(count)]
    dropped = sorted(data.draw(st.sets(st.integers(0, count - 1), max_size=count - 1)))
    kept = [name for i, name in enumerate(base) if i not in dropped]
    lazy = Without(base, np.array(dropped, dtype=np.int64))
    assert list(lazy) == kept
    assert len(lazy) == len(kept)
    assert lazy[-1] == kept[-1]
    assert list(lazy[1::2]) == kept[1::2]
    order = data.draw(st.permutations(range(len(kept))))
    assert list(Picked(lazy, np.array(order))) == [kept[i] for i in order]


ZIPS = {
    "00/000.zip": ["002.jpg", "000.jpg"],
    "00/001.zip": ["001.jpg"],
    "12/345.zip": ["678.jpg", "000.jpg", "001.jpg"],
}
MEMBERS = [f"{name}/{member}" for name, members in ZIPS.items() for member in sorted(members)]


def test_zips_by_their_directories(tmp_path: Path) -> None:
    home = handmade.yfcc_zips(tmp_path, ZIPS)
    images = open_dataset(tmp_path, "yfcc100m_zips", "train")
    assert isinstance(images.files, ZippedNames)
    assert list(images.files) == MEMBERS
    assert list(pickle.loads(pickle.dumps(images.files))) == MEMBERS
    assert images.open(5).size == (10, 8)
    assert len(images.fingerprint()) == 12
    handmade.text(home / UNREADABLE, f"{MEMBERS[1]}\ttruncated\n")
    assert list(open_dataset(tmp_path, "yfcc100m_zips", "train", lambda _: None).files) == MEMBERS[:1] + MEMBERS[2:]


def test_zips_by_number(tmp_path: Path) -> None:
    home = handmade.yfcc_zips(tmp_path, {f"images/{name}": members for name, members in ZIPS.items()})
    np.save(home / "flickr_unique_ids.npy", np.array([12345678, 2, 12345000]))
    images = open_dataset(tmp_path, "yfcc100m_zips", "train")
    assert isinstance(images.files, NumberedNames)
    assert list(images.files) == ["12/345.zip/678.jpg", "00/000.zip/002.jpg", "12/345.zip/000.jpg"]
    images.open(1)
    strangers = ["99/999.zip/999.jpg", "²²/²²².zip/²²².jpg"]
    assert find(images.files, ["12/345.zip/000.jpg", "00/000.zip/002.jpg", *strangers]).tolist() == [1, 2]
    assert list(pickle.loads(pickle.dumps(images.files))) == list(images.files)


def test_95_million_names_take_no_memory(tmp_path: Path) -> None:
    """A sparse file stands for the numbers; opening, counting, dropping and drawing must not write them all out."""
    ids = np.lib.format.open_memmap(tmp_path / "ids.npy", mode="w+", dtype=np.int64, shape=(95_920_149,))
    ids[95_000_000] = 12345678
    found = NumberedNames(tmp_path / "ids.npy")
    assert len(found) == 95_920_149
    kept = Without(found, np.array([5, 94_000_000]))
    assert kept[95_000_000 - 2] == "12/345.zip/678.jpg"
    assert isinstance(found[1000:2000:10], Names)
    assert len(pickle.dumps(kept)) < 1000


@pytest.mark.parametrize("content", [np.zeros((2, 2), int), np.zeros(3), np.array([], int), np.array([{}], object)])
def test_bad_numbers(tmp_path: Path, content: np.ndarray) -> None:
    home = handmade.yfcc_zips(tmp_path, ZIPS)
    np.save(home / "flickr_unique_ids.npy", content)
    with pytest.raises(BadData, match="flickr_unique_ids"):
        open_dataset(tmp_path, "yfcc100m_zips", "train")
    np.save(home / "flickr_unique_ids.npy", np.array([123456789]))
    with pytest.raises(BadData, match="8 digits"):
        open_dataset(tmp_path, "yfcc100m_zips", "train").open(0)


def test_broken_zips(tmp_path: Path) -> None:
    home = handmade.yfcc_zips(tmp_path, ZIPS)
    (home / "00" / "001.zip").write_bytes(b"half a z")
    with pytest.raises(BadData, match=r"00/001\.zip: not a zip"):
        open_dataset(tmp_path, "yfcc100m_zips", "train")
    shutil.rmtree(home)
    handmade.yfcc_zips(tmp_path, {"00/000.zip": ["000.jpg", "readme.txt"]})
    with pytest.raises(BadData, match="contains files that are not images"):
        open_dataset(tmp_path, "yfcc100m_zips", "train").open(0)
