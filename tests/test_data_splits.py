"""Draws: balanced, nested, the same on every machine; list files by name, with every fault named by line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.core.errors import UserError
from benchmark.data.findings import BadData
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes, Presence
from benchmark.data.splits import from_list_file, held_out, labelled_fraction, percent_of


def image_set(counts: dict[str, int]) -> ImageSet:
    files = [f"train/{name}/{name}_{i}.JPEG" for name, count in counts.items() for i in range(count)]
    labels = np.repeat(np.arange(len(counts)), list(counts.values()))
    return ImageSet("imagenet/train", Path("/nowhere"), files, Classes(labels, tuple(counts)))


def test_fraction_is_balanced_and_ordered() -> None:
    images = image_set({"a": 1300, "b": 732, "c": 3, "d": 150})
    part = labelled_fraction(images, 0.01, seed=0)
    assert np.bincount(part.labels.values).tolist() == [13, 7, 1, 2]  # 1.5 is rounded up, and no class is left out
    assert part.classes == images.classes
    places = [images.files.index(file) for file in part.files]
    assert places == sorted(set(places))
    assert [images.labels.values[place] for place in places] == part.labels.values.tolist()
    assert part.name == "imagenet/train[1%, seed 0]"


def test_same_on_every_machine() -> None:
    part = labelled_fraction(image_set({"n01440764": 40}), 0.1, seed=3)
    assert [int(file.split("_")[1].split(".")[0]) for file in part.files] == PINNED_LABELLED
    _, held = held_out(image_set({"n01440764": 40}), 0.1, seed=3)
    assert [int(file.split("_")[1].split(".")[0]) for file in held.files] == PINNED_HELD


PINNED_LABELLED = [6, 8, 26, 35]
PINNED_HELD = [6, 24, 30, 32]


@given(st.integers(0, 5), st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 60), min_size=1))
def test_nested_and_independent_of_other_classes(seed: int, counts: dict[str, int]) -> None:
    images = image_set(counts)
    small, large = (set(labelled_fraction(images, fraction, seed).files) for fraction in (0.01, 0.1))
    assert small <= large
    name = next(iter(counts))
    alone = labelled_fraction(image_set({name: counts[name]}), 0.1, seed)
    assert set(alone.files) == {file for file in large if file.startswith(f"train/{name}/")}


def test_seeds_differ() -> None:
    images = image_set({"a": 500})
    assert list(labelled_fraction(images, 0.1, 0).files) != list(labelled_fraction(images, 0.1, 1).files)
    labelled = set(labelled_fraction(images, 0.1, 0).files)
    assert labelled != set(held_out(images, 0.1, 0)[1].files)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.floats(0.01, 0.99))
def test_held_out_is_a_partition(counts: list[int], fraction: float) -> None:
    images = image_set({f"c{i}": count for i, count in enumerate(counts)})
    if max(counts) == 1:
        with pytest.raises(UserError, match="single image"):
            held_out(images, fraction, 0)
        return
    fit, held = held_out(images, fraction, 0)
    assert sorted([*fit.files, *held.files]) == sorted(images.files)
    assert (np.bincount(fit.labels.values, minlength=len(counts)) >= 1).all()
    in_held = np.bincount(held.labels.values, minlength=len(counts))
    for count, here in zip(counts, in_held.tolist(), strict=True):
        assert here == (0 if count == 1 else min(max(1, int(fraction * count + 0.5)), count - 1))


@pytest.mark.parametrize("labels", [None, Presence(np.ones((50, 2), dtype=np.int64), ("cat", "dog"))])
def test_held_out_without_single_labels(labels: Presence | None) -> None:
    images = ImageSet("voc2007/trainval", Path("/nowhere"), [f"{i}.jpg" for i in range(50)], labels)
    fit, held = held_out(images, 0.2, 0)
    assert (len(fit), len(held)) == (40, 10)
    assert not set(fit.files) & set(held.files)
    assert labels is None or held.labels.values.shape == (10, 2)
    with pytest.raises(UserError, match="needs one class an image"):
        labelled_fraction(images, 0.1, 0)


def test_a_per_cent_of_what_has_no_labels_is_a_plain_draw() -> None:
    images = ImageSet("yfcc100m/train", Path("/nowhere"), [f"{i:03}.jpg" for i in range(550)])
    small, large = percent_of(images, 1, seed=0), percent_of(images, 10, seed=0)
    assert (len(small), len(large)) == (6, 55)
    assert set(small.files) < set(large.files)
    assert list(large.files) == sorted(large.files)
    assert list(percent_of(images, 10, seed=1).files) != list(large.files)


@pytest.mark.parametrize("fraction", [0.0, 1.0, 10, -0.1, float("nan")])
def test_fraction_out_of_range(fraction: float) -> None:
    for draw in (labelled_fraction, held_out):
        with pytest.raises(UserError, match="between 0 and 1"):
            draw(image_set({"a": 5}), fraction, 0)


def test_list_file(tmp_path: Path) -> None:
    images = image_set({"n01440764": 3, "n02105855": 3})
    (tmp_path / "1percent.txt").write_text("n02105855_2.JPEG\n\ntrain/n01440764/n01440764_1.JPEG\n")
    part = from_list_file(images, tmp_path / "1percent.txt")
    assert list(part.files) == ["train/n01440764/n01440764_1.JPEG", "train/n02105855/n02105855_2.JPEG"]
    assert part.labels.values.tolist() == [0, 1]
    assert part.name == "imagenet/train[1percent]"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a_0.JPEG\na_9.JPEG\n", ("line 2", "'a_9.JPEG' is not in imagenet/train")),
        ("a_0.JPEG\na_1.JPEG\na_0.JPEG\n", ("line 3", "already in line 1")),
        ("same.JPEG\n", ("line 1", "2 images")),
        ("../../a_0.JPEG\n", ("line 1", "is not in")),
        ("\n", ("names no image",)),
        (None, ("there is no such file",)),
    ],
)
def test_list_file_faults(tmp_path: Path, content: str | None, words: tuple[str, ...]) -> None:
    images = image_set({"a": 3})
    images.files.extend(["x/same.JPEG", "y/same.JPEG"])
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadData) as caught:
        from_list_file(images, path)
    for word in (str(path), *words):
        assert word in str(caught.value)
