"""Several processes: the same state on all, the same end as one, and DistributedDataParallel's own numbers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from compare_ddp import Trial, measure
from safetensors.torch import load
from shares import largest_difference, one_against_two, shared_state, trained
from small_runs import RECIPES, Processes, drawn_images, in_processes, on_cpu, run
from tiny_methods import FEATURES
from torch import Tensor, nn

from benchmark.backbones.weights import read_facts
from benchmark.core import distributed, mixed_precision
from benchmark.core.distributed import GradientAverager
from benchmark.core.errors import UserError
from benchmark.core.optimisation import SGD, Steps
from benchmark.engine import train
from benchmark.method import Method
from benchmark.recipe.contract import Recipe


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return drawn_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_averaging_equals_distributed_data_parallel_bit_for_bit(norm: str):
    outcomes = in_processes(2, measure, Trial(width=0.0625, norm=norm, size=32, batch=4, rounds=4))
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert all(outcome.value.equal for outcome in outcomes)


@pytest.mark.parametrize("name", FEATURES)
def test_all_processes_hold_the_same_state_after_every_step(name: str, pair: Processes, images, tmp_path: Path):
    outcomes = pair.run(_states_of_steps, FEATURES[name], images, tmp_path)
    assert [outcome.error for outcome in outcomes] == [None, None]
    first, second = (outcome.value for outcome in outcomes)
    assert len(first) == 7
    assert len(set(first)) == 7  # it does change
    assert first == second


def test_bf16_gives_other_numbers_than_fp32(alone: Processes, images, tmp_path: Path):
    """The row above is not fp32 by another name, on any CPU."""
    outcomes = [
        alone.run(_states_of_steps, FEATURES[name], images, tmp_path / name)[0] for name in ("bf16", "one loss")
    ]
    assert [outcome.error for outcome in outcomes] == [None, None]
    bf16, fp32 = (outcome.value for outcome in outcomes)
    assert bf16[0] != fp32[0]


def _states_of_steps(recipe: Recipe, images, folder: Path) -> list[str]:
    states: list[str] = []
    step = train.train_step

    def noted(method: Method, *arguments):
        figures = step(method, *arguments)
        states.append(shared_state(method))
        return figures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "train_step", noted)
        patch.setattr(mixed_precision, "SLOW", ())  # bf16 on any CPU
        run(recipe, images, folder / "run", on_cpu(checkpoint_seconds=60))
    return states


@pytest.mark.parametrize("name", FEATURES)
def test_two_processes_equal_one_where_no_norm_sees_the_batch(
    name: str, alone: Processes, pair: Processes, images, tmp_path: Path
):
    found = one_against_two(alone, pair, FEATURES[name], images, tmp_path)
    assert found.faults() == []


@pytest.mark.parametrize("name", ["one loss", "bank", "pools", "rows of all"])
def test_two_processes_equal_one_in_float32_too(name: str, alone: Processes, pair: Processes, images, tmp_path: Path):
    """By SGD at a rate of which seven steps move a parameter by 3e-4 or more; the difference is then 3e-6 or less. At
    higher rates, and for losses with larger gradients, it grows with the steps themselves."""
    recipe = replace(FEATURES[name], optimizers={"main": SGD(lr=3e-3, momentum=0.9)})
    found = one_against_two(alone, pair, recipe, images, tmp_path, dtype=torch.float32)
    print(f"{name}: {found.difference:.1e}, where training moved {found.moved:.1e}")
    assert found.difference <= 1e-5
    assert found.moved >= 1.5e-4


def test_with_batch_norm_two_processes_are_another_run_and_the_file_says_so(
    alone: Processes, pair: Processes, images, tmp_path: Path
):
    ends = []
    for processes in (alone, pair):
        folder = tmp_path / str(processes.count)
        outcomes = processes.run(run, FEATURES["one loss"], images, folder, on_cpu())
        assert read_facts(folder / "backbone.safetensors")["origin"]["world_size"] == processes.count
        ends.append({key: value.numpy() for key, value in load(outcomes[0].value).items()})
    assert largest_difference(*ends) > 1e-5


def test_a_sharded_bank_trains_the_same(pair: Processes, images, tmp_path: Path):
    """47 images over two processes: the shards are of unequal use, and one row of the second stands for no image."""
    some = images.subset(range(47), "47")
    whole, parts = (
        pair.run(trained, FEATURES[name], some, tmp_path / name, torch.float64) for name in ("bank", "sharded bank")
    )
    assert [outcome.error for outcome in [*whole, *parts]] == [None] * 4
    ends = [outcome.value.end for outcome in (whole[0], *parts)]
    wanted, first, second = (end.pop("bank.rows") for end in ends)
    assert max(largest_difference(ends[0], end) for end in ends[1:]) <= 1e-6
    assert [len(first), len(second)] == [24, 24]
    assert np.abs(np.concatenate([first, second])[:47] - wanted).max() <= 1e-6


def test_a_bank_is_divided_without_overlap_or_gap():
    whole = in_processes(1, _rows, False)[0].value
    parts = [outcome.value for outcome in in_processes(3, _rows, True)]
    assert [len(part) for part in parts] == [11111, 11111, 11111]
    assert np.array_equal(np.concatenate(parts)[: len(whole)], whole)


def _rows(sharded: bool) -> np.ndarray:
    from benchmark.blocks.memory_bank import MemoryBank

    torch.manual_seed(3)
    return MemoryBank(33_332, 4, sharded=sharded).rows.numpy()


@dataclass
class Seen:
    """By an embedding pass, of one process."""

    sizes: list[int] = field(default_factory=list)
    gathered: list[int] = field(default_factory=list)
    drawn: list[float] = field(default_factory=list)  # in each batch
    later: float = 0.0  # drawn after the pass
    features: dict[int, float] = field(default_factory=dict)  # of each image


def test_an_embedding_pass_sees_every_image_once_in_full_batches(
    alone: Processes, pair: Processes, images, tmp_path: Path
):
    """A last batch of one image, or of a few, would have no statistics to be normalised by."""
    for count in (33, 40, 48):
        some = images.subset(range(count), str(count))
        [whole] = alone.run(_embedding_pass, some, tmp_path / f"{count}")
        halves = pair.run(_embedding_pass, some, tmp_path / f"{count}, halves")
        assert [outcome.error for outcome in [whole, *halves]] == [None] * 3
        for outcome, size in ((whole, 16), *((half, 8) for half in halves)):
            assert outcome.value.sizes == [size] * 3
            assert outcome.value.gathered == [16, 16, count - 32]  # never all at once
            assert outcome.value.features == {image: 10.0 * image for image in range(count)}


def test_random_numbers_in_and_after_an_embedding_pass_follow_from_the_position(
    alone: Processes, pair: Processes, images, tmp_path: Path
):
    few = images.subset(range(16), "16")
    cases = {"whole": (images, 0), "workers": (images, 2), "few": (few, 0), "without": (few, 0, False)}
    seen = {
        name: alone.run(_embedding_pass, some, tmp_path / name, *how)[0].value for name, (some, *how) in cases.items()
    }
    halves = [outcome.value for outcome in pair.run(_embedding_pass, images, tmp_path / "halves")]
    assert seen["whole"].drawn == seen["workers"].drawn
    assert len(set(seen["whole"].drawn)) == 3
    assert not set(halves[0].drawn) & set(halves[1].drawn)
    # whatever the number of batches, workers or processes, and as if there had been no pass at all
    assert {each.later for each in (*seen.values(), *halves)} == {seen["without"].later}


def _embedding_pass(images, folder: Path, workers: int = 0, embedding: bool = True) -> Seen:
    """Of a method whose head normalises by the batch and draws random numbers."""
    seen = Seen()
    norm = nn.BatchNorm1d(1)

    def embed(batch) -> Tensor:
        seen.sizes.append(len(batch))
        seen.drawn.append(float(torch.rand(())))
        norm(torch.rand(len(batch), 1))
        return 10 * batch.index[:, None]

    def on_epoch_start(epoch: int, embed_all) -> None:
        before = torch.get_rng_state()
        if embedding:
            for index, features in embed_all(embed):
                seen.gathered.append(len(index))
                seen.features |= zip(index.tolist(), features[:, 0].tolist(), strict=True)
                assert torch.is_grad_enabled()
                assert torch.equal(torch.get_rng_state(), before)
        seen.later = float(torch.rand(()))

    build = train.build_method

    def built(*arguments) -> Method:
        method = build(*arguments)
        object.__setattr__(method, "on_epoch_start", on_epoch_start)
        return method

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "build_method", built)
        run(replace(FEATURES["one loss"], length=Steps(1)), images, folder, on_cpu(workers, 60))
    return seen


def test_gradients_of_some_processes_average_over_all():
    outcomes = in_processes(3, _averaged)
    assert [outcome.error for outcome in outcomes] == [None] * 3
    for weight, later, unused in (outcome.value for outcome in outcomes):
        assert np.allclose(weight, (0 + 1 + 2) / 3)
        assert later == pytest.approx(1.0)
        assert unused is None


def _averaged() -> list[np.ndarray | None]:
    used, later = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(()))
    unused = nn.Parameter(torch.ones(5))  # in the bucket between them, without a gradient in this loss
    distributed.BUCKET_BYTES = 1
    parameters = [used, unused, later]
    averager = GradientAverager(parameters)
    for _ in range(2):  # the second round starts clean
        used.grad = later.grad = None
        (used.sum() * distributed.rank() + later).backward(inputs=[used, later])
        averager.finish()
    return [None if p.grad is None else p.grad.numpy() for p in (used, later, unused)]


def test_one_processs_error_is_everyones():
    outcomes = in_processes(2, _one_fails)
    assert {outcome.error_type for outcome in outcomes} == {"UserError"}
    assert {outcome.error for outcome in outcomes} == {"the disk of process 1 is full"}


def _one_fails() -> None:
    with distributed.together():
        if distributed.rank() == 1:
            raise UserError("the disk of process 1 is full")
    dist.barrier()  # nobody comes here


def test_a_folder_in_use_is_refused_by_all_processes(images, tmp_path: Path):
    outcomes = in_processes(1, _hold_and_start_two, images, tmp_path / "run")
    assert outcomes[0].error is None
    assert [error_type for error_type, _ in outcomes[0].value] == ["UserError", "UserError"]
    assert all("another process is working there" in error for _, error in outcomes[0].value)


def _hold_and_start_two(images, folder: Path) -> list[tuple[str | None, str | None]]:
    from benchmark.engine.checkpoint import locked

    with locked(folder):
        outcomes = in_processes(2, run, FEATURES["one loss"], images, folder, on_cpu())
    return [(outcome.error_type, outcome.error) for outcome in outcomes]


def test_an_unreadable_image_on_one_process_ends_all(images, tmp_path: Path):
    """It is met in a loader process of one of them; nothing is decoded beforehand here."""
    broken = drawn_images(tmp_path / "images")
    (broken.root / "5.png").write_bytes(b"no image")
    outcomes = in_processes(2, _run_undecoded, FEATURES["one loss"], broken, tmp_path / "run")
    assert [outcome.error_type for outcome in outcomes] == ["UserError", "UserError"]
    assert any("5.png" in str(outcome.error) and "Traceback" not in str(outcome.error) for outcome in outcomes)


def _run_undecoded(recipe: Recipe, images, folder: Path) -> None:
    from benchmark.data import loader

    loader._decode_all = lambda *_: {}
    run(recipe, images, folder, on_cpu(workers=1))


def test_one_image_for_each_process_is_told_by_all(images, tmp_path: Path):
    """On one process the same batch has two, which is enough for BatchNorm."""
    recipe = replace(RECIPES["pirl"], batch_size=2, length=Steps(1))
    outcomes = in_processes(2, run, recipe, images, tmp_path, on_cpu())
    assert [outcome.error_type for outcome in outcomes] == ["UserError", "UserError"]
    assert all("too few for BatchNorm. batch_size 2 gives each process 1" in str(o.error) for o in outcomes)
