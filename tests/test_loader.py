"""Batches by position: the order, its memory, and what a loader process has to say."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from PIL import Image
from small_runs import drawn_images
from torch import Tensor

from benchmark.core.errors import UserError
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
