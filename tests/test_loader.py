"""Batches by position: the order, its memory, and what a loader process has to say."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from PIL import Image
from small_runs import drawn_images
from torch import Tensor

from benchmark.core.errors import UserError
from benchmark.data import loader
from benchmark.data.image_set import ImageSet
from benchmark.data.loader import TrainOrder, Views, batches


def test_the_order_is_what_it_always_was():
    """Results would change with it."""
    assert list(TrainOrder(10, 4, seed=3, first_step=1, last_step=4)) == [
        [(0, 5), (0, 7), (0, 4), (0, 6)],
        [(1, 3), (1, 9), (1, 2), (1, 8)],
        [(1, 5), (1, 1), (1, 6), (1, 4)],
    ]


def test_the_order_of_many_images_is_no_list():
    tracemalloc.start()  # sees Python's own objects
    next(iter(TrainOrder(200_000, 4, seed=0, first_step=0, last_step=1)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def refusing(image: Image.Image) -> dict[str, Tensor]:
    raise UserError("no such view")


@pytest.mark.parametrize("workers", [0, 1])
def test_views_that_cannot_be_made_are_told_in_one_line(tmp_path: Path, workers: int):
    dataset = Views(drawn_images(tmp_path, count=4), refusing, seed=0)
    with pytest.raises(UserError, match=r"^no such view$"):
        next(batches(dataset, TrainOrder(4, 2, 0, 0, 1), workers, labels=False))


@pytest.mark.parametrize(
    ("sides", "kept"),
    [
        ([100] + [10] * 99, 100),  # by the first image's size they would take ten times as much
        ([10] + [100] * 99, 0),
        ([10] * 100, 100),
        ([10] * 40 + [100] * 2 + [10] * 58, 79),  # most are small, and yet not all fit
        ([10], 1),
    ],
)
def test_decoded_images_are_kept_within_the_bytes_they_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sides: list[int], kept: int
):
    monkeypatch.setattr(loader, "KEPT_DECODED_BYTES", 200_000)
    colours = [(number, 255 - number, 0) for number in range(len(sides))]
    files = [f"{number}.png" for number in range(len(sides))]
    for file, side, colour in zip(files, sides, colours, strict=True):
        Image.new("RGB", (side, side), colour).save(tmp_path / file)
    dataset = Views(ImageSet("x", tmp_path, files), None, seed=0)
    assert len(dataset.decoded) == kept
    assert [dataset.open(index).getpixel((0, 0)) for index in range(len(files))] == colours
