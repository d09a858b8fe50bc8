"""Transfers shared between processes: on a frozen backbone the record of one process, byte for byte; where they train a
network together, the same network on all, and what one process trains but for what it draws."""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from small_runs import in_processes
from test_transfer_resume import KINDS, copied, flags, folder, pretrained, recipe_of, world  # noqa: F401
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmark import cli
from benchmark.backbones.norms import BatchNorm1d, BatchNorm2d, over_all_processes
from benchmark.core import distributed
from benchmark.core.errors import UserError
from benchmark.core.optimisation import SGD, Cosine, Steps
from benchmark.data.image_set import ImageSet
from benchmark.data.loader import TrainOrder
from benchmark.transfers import features, find_transfers, knn, training, turns
from benchmark.transfers.training import Course, build_optimizer, fit_together

TRANSFERS = {name: transfer for name, transfer in find_transfers().items() if not transfer.card.asks}
DIVIDED = [name for name, transfer in TRANSFERS.items() if not transfer.depends_on_processes]
TOGETHER = [name for name in KINDS.values() if name not in DIVIDED]
FROZEN = [name for name, transfer in TRANSFERS.items() if transfer.card.frozen.startswith("everything")]


def transfer(name: str, world: Path, runs: Path) -> tuple[int, str]:  # noqa: F811
    """(status, stderr) of `sslbench transfer`, in batches so small that both processes have some."""
    features.EVALUATION_BATCH, features.PART, turns.TURNS_BETWEEN, knn.QUERIES_AT_ONCE = 7, 20, 2, 7
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


def tensors(process: int, turn: int) -> list[Tensor]:
    """Of each type and layout that transfers send, and one that has gaps in memory."""
    x = torch.arange(120.0).view(2, 3, 4, 5) / (7 + process) + turn
    flags = x.flatten()[: 5 + turn] > 3
    kinds = [x, x.bfloat16(), x.double(), x.long()[0, 0, 0], flags, torch.empty(0, 3)]
    return [*kinds, x.contiguous(memory_format=torch.channels_last), x.transpose(1, 2), x[:, :, ::2]]


def of_every_turn(counts: list[int]) -> list[list[tuple[np.ndarray, torch.dtype, tuple[int, ...]]]]:
    rank = distributed.rank()
    own = deque(tensors(rank, turn) for turn in range(counts[rank]))
    found = [*distributed.tensors_of_all(own, torch.device("cpu"))]
    assert not own
    return [[(x.double().numpy(), x.dtype, x.stride()) for x in each] for each in found]


@pytest.mark.parametrize("counts", [[3, 3], [3, 2], [0, 2]])
def test_tensors_reach_all_processes_with_their_bits_and_layout(counts: list[int]):
    rounds = [(process, turn) for turn in range(3) for process in (0, 1) if turn < counts[process]]
    for outcome in in_processes(2, of_every_turn, counts):
        assert len(outcome.value) == len(rounds)
        for found, (process, turn) in zip(outcome.value, rounds, strict=True):
            for (values, dtype, stride), x in zip(found, tensors(process, turn), strict=True):
                assert np.array_equal(values, x.double().numpy())
                assert dtype == x.dtype
                has_gaps = x.shape[2:] == (2, 5)
                assert stride == (x.contiguous() if has_gaps else x).stride()


def of_neighbours(vote: Callable[..., Tensor]) -> np.ndarray:
    """In several rounds; a third of what votes is equal, and so are some of the queries."""
    knn.QUERIES_AT_ONCE, turns.TURNS_BETWEEN = 3, 2
    rng = torch.Generator().manual_seed(0)
    queries, database = (torch.randn(count, 4, generator=rng) for count in (20, 3 * knn.K))
    queries[::5] = database[: knn.K + 9] = torch.ones(4)
    return vote(queries, database, torch.arange(3 * knn.K) % 7, 7).numpy()


def test_all_processes_have_the_votes_of_one():
    (alone,) = in_processes(1, of_neighbours, knn.vote)
    for outcome in in_processes(2, of_neighbours, knn.vote_in_turn):
        assert np.array_equal(outcome.value, alone.value)


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


@pytest.mark.parametrize("name", TOGETHER)
def test_two_processes_train_one_network(name: str, world: Path, pretrained: Path, tmp_path: Path):  # noqa: F811
    runs = copied(name, pretrained, tmp_path)
    outcomes = in_processes(2, trained, name, world, runs)
    assert [outcome.error for outcome in outcomes] == [None] * 2
    first, second = (outcome.value for outcome in outcomes)
    record = json.loads((runs / folder(name) / f"{name}.json").read_text())
    assert record["detail"]["processes"] == 2
    for key, x in first.items():
        assert np.array_equal(x, second[key]), key


def trained(name: str, world: Path, runs: Path) -> dict[str, np.ndarray]:  # noqa: F811
    """The state after the last step of the last training."""
    training.CHECKPOINT_SECONDS, training.REPORT_STEPS, features.EVALUATION_BATCH = -1.0, 1, 7
    last: dict[str, np.ndarray] = {}
    write = training.write_state

    def noting(path: Path, content: dict[str, Any]) -> None:
        write(path, content)
        last.update({key: each.double().numpy() for key, each in content["model"].items()})

    training.write_state = noting
    with redirect_stderr(io.StringIO()) as said, redirect_stdout(io.StringIO()):
        status = cli.run(["transfer", recipe_of(name), name, *flags(world, runs, workers=0)])
    assert (status, said.getvalue()) == (0, "")
    return last


class Ten:
    """As much of an ImageSet as a training asks for."""

    name = "ten"

    def __len__(self) -> int:
        return 10


def ended(folder: Path, last: int = 5) -> dict[str, np.ndarray]:
    """A network with BatchNorm after 5 steps on two of ten images each, in float64; none where it stops
    after the `last` one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    model = model.append(nn.Linear(16, 5)).append(averaged := BatchNorm1d(5)).double()
    averaged.momentum = None
    x = [torch.randn(3, 8, 8, dtype=torch.float64) for _ in range(10)]
    labels = torch.arange(10) % 5

    def source(order: TrainOrder) -> Iterator[tuple[Tensor, Tensor]]:
        for step, batch in enumerate(order, start=order.first_step):
            if step == last:
                raise UserError("stopped")
            index = [i for _, i in batch]
            yield torch.stack([x[i] for i in index]), labels[index]

    context: Any = SimpleNamespace(seed=3, device=torch.device("cpu"), scale="smoke", report=lambda *_: None)
    optimizer = build_optimizer([(model.parameters(), SGD(lr=0.5, momentum=0.9))])
    course, images = Course(Steps(5), 2, Cosine()), cast(ImageSet, Ten())
    fit_together(
        model,
        optimizer,
        lambda x, y: cross_entropy(model(x), y),
        course,
        images,
        source,
        folder / "state.pt",
        context,
        clip=1.0,
    )
    return {name: each.numpy() for name, each in model.state_dict().items()}


def test_two_processes_train_what_one_trains(tmp_path: Path):
    """Where nothing is drawn: gradients, their norm and BatchNorm's statistics are the whole batch's."""
    [alone], pair = (in_processes(count, ended, tmp_path) for count in (1, 2))
    assert [outcome.error for outcome in (alone, *pair)] == [None] * 3
    for name, x in alone.value.items():
        for each in pair:
            np.testing.assert_allclose(each.value[name], x, rtol=1e-9, atol=1e-12, err_msg=name)


def stopped_and_ended(folder: Path) -> dict[str, np.ndarray]:
    training.CHECKPOINT_SECONDS, training.REPORT_STEPS = -1.0, 1
    with pytest.raises(UserError, match="stopped"):
        ended(folder, last=3)
    taken_up = []
    restored = training._Kept.restored
    training._Kept.restored = lambda self: taken_up.append(restored(self)) or taken_up[-1]  # type: ignore[method-assign]
    found = ended(folder)
    assert taken_up == [3]
    return found


def test_two_processes_that_were_stopped_end_with_the_same_bits(tmp_path: Path):
    whole = in_processes(2, ended, tmp_path / "whole")
    stopped = in_processes(2, stopped_and_ended, tmp_path / "stopped")
    assert [outcome.error for outcome in (*whole, *stopped)] == [None] * 4
    for name, x in whole[0].value.items():
        for each in (*whole, *stopped):
            assert np.array_equal(each.value[name], x), name


def test_a_batch_that_processes_cannot_divide_is_refused(tmp_path: Path):
    for outcome in in_processes(3, ended, tmp_path):
        assert outcome.error is not None
        assert "batches of 2 of ten cannot be divided over 3 processes; start a number of them that divides it" in (
            outcome.error
        )


def test_a_network_with_batchnorm_of_another_kind_is_refused_on_several_processes():
    """As detectron2's: each process would normalise its share of the batch by itself, and the protocol does not."""
    [alone], pair = (in_processes(count, over_all) for count in (1, 2))
    assert alone.error is None
    for outcome in pair:
        assert outcome.error_type == "UserError"
        assert "start it without torchrun" in outcome.error


def over_all() -> None:
    over_all_processes(nn.BatchNorm2d(3).eval())  # a frozen one is over nothing
    over_all_processes(nn.Sequential(BatchNorm2d(3), nn.BatchNorm2d(3)))


@pytest.mark.parametrize("count", [1, 2, 4, 5, 6, 9])
def test_pieces_of_work_are_divided_without_a_gap(count: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    parts = distributed.parts_of_all(count)
    sizes = [len(part) for part in parts]
    assert sizes == sorted(sizes, reverse=True)
    assert {place for part in parts for place in part} == set(range(count))
    assert all(1 <= len(part) <= -(-count // 4) for part in parts)
    assert count < 4 or sum(map(len, parts)) == count


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
