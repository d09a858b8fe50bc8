"""Transfers on a frozen backbone, shared between processes: the record of one process, byte for byte."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from small_runs import in_processes
from test_transfer_resume import copied, flags, folder, pretrained, recipe_of, world  # noqa: F401

from benchmark import cli
from benchmark.core import distributed
from benchmark.core.errors import UserError
from benchmark.transfers import features, find_transfers

TRANSFERS = {name: transfer for name, transfer in find_transfers().items() if not transfer.card.asks}
DIVIDED = [name for name, transfer in TRANSFERS.items() if transfer.divides]
FROZEN = [name for name, transfer in TRANSFERS.items() if transfer.card.frozen.startswith("everything")]


def transfer(name: str, world: Path, runs: Path) -> tuple[int, str]:  # noqa: F811
    """(status, stderr) of `sslbench transfer`, in batches so small that both processes have some."""
    features.EVALUATION_BATCH, features.PART = 7, 20
    with redirect_stderr(io.StringIO()) as said, redirect_stdout(io.StringIO()):
        status = cli.run(["transfer", recipe_of(name), name, *flags(world, runs, workers=0)])
    return status, said.getvalue()


@pytest.mark.parametrize("name", DIVIDED)
def test_two_processes_write_the_record_of_one(name: str, world: Path, pretrained: Path, tmp_path: Path):  # noqa: F811
    records = []
    for count in (1, 2):
        runs = copied(name, pretrained, tmp_path / str(count))
        outcomes = in_processes(count, transfer, name, world, runs)
        assert [outcome.value for outcome in outcomes] == [(0, "")] * count, outcomes
        records.append((runs / folder(name) / f"{name}.json").read_bytes())
    assert records[0] == records[1]


def test_a_second_start_does_nothing(world: Path, pretrained: Path, tmp_path: Path):  # noqa: F811
    name = "knn_imagenet_wu"
    runs = copied(name, pretrained, tmp_path)
    written = []
    for _ in range(2):
        outcomes = in_processes(2, transfer, name, world, runs)
        assert [outcome.value for outcome in outcomes] == [(0, "")] * 2, outcomes
        written.append((runs / folder(name) / f"{name}.json").stat().st_mtime_ns)
    assert written[0] == written[1]


def test_all_that_read_a_frozen_backbone_divide():
    assert set(DIVIDED) == set(FROZEN)


@pytest.mark.parametrize("name", TRANSFERS)
def test_a_transfer_that_takes_one_process_says_so(name: str, monkeypatch: pytest.MonkeyPatch):
    TRANSFERS[name].check_processes()
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    if name in DIVIDED:
        return TRANSFERS[name].check_processes()
    with pytest.raises(UserError, match=f"^{name} runs in one process: start it without torchrun$"):
        TRANSFERS[name].check_processes()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_pieces_of_work_are_divided_without_a_gap(count: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    parts = distributed.parts_of_all(count)
    assert {place for part in parts for place in part} == set(range(count))
    assert all(1 <= len(part) <= -(-count // 3) for part in parts)
    assert count < 3 or sum(map(len, parts)) == count


def test_features_that_one_process_cannot_read_end_all(world: Path, pretrained: Path, tmp_path: Path):  # noqa: F811
    """An image of the second batch, which is the second process's turn."""
    name = "knn_imagenet_wu"
    runs = copied(name, pretrained, tmp_path)
    outcomes = in_processes(2, _transfer_with_a_bad_image, name, world, runs)
    for outcome in outcomes:
        status, said = outcome.value
        assert status == 2
        assert "no such image" in said


def _transfer_with_a_bad_image(name: str, world: Path, runs: Path) -> tuple[int, str]:  # noqa: F811
    from benchmark.data import loader
    from benchmark.data.image_set import ImageSet

    loader._decode_all = lambda *_: {}
    opened = ImageSet.open

    def failing(self: ImageSet, index: int) -> Any:
        if distributed.rank() == 1:
            raise UserError("no such image")
        return opened(self, index)

    ImageSet.open = failing  # type: ignore[method-assign]
    return transfer(name, world, runs)
