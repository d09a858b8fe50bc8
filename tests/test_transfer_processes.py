"""Transfers on a frozen backbone, shared between processes: the record of one process, byte for byte."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from small_runs import Processes, in_processes
from test_transfer_resume import copied, flags, folder, pretrained, recipe_of, world  # noqa: F401

from benchmark import cli
from benchmark.transfers import features, find_transfers

TRANSFERS = {name: transfer for name, transfer in find_transfers().items() if not transfer.card.asks}
DIVIDED = [name for name, transfer in TRANSFERS.items() if transfer.divides]
ALONE = [name for name in TRANSFERS if name not in DIVIDED]


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
