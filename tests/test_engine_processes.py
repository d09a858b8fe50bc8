"""Several processes: the same state on all, the same end as one, and DistributedDataParallel's own numbers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from compare_ddp import Trial, measure
from safetensors.torch import load
from small_runs import TRAINED, drawn_images, in_processes, on_cpu, run
from torch import Tensor, nn

from benchmark.backbones.weights import read_facts
from benchmark.core import distributed
from benchmark.core.distributed import GradientAverager
from benchmark.core.errors import UserError
from benchmark.core.optimisation import SGD, Steps
from benchmark.engine import train
from benchmark.method import Method
from benchmark.recipe.contract import Recipe, with_change


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return drawn_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_averaging_equals_distributed_data_parallel_bit_for_bit(norm: str):
    outcomes = in_processes(2, measure, Trial(width=0.0625, norm=norm, size=32, batch=4, rounds=4))
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert all(outcome.value.equal for outcome in outcomes)


@pytest.mark.parametrize("name", TRAINED)
def test_all_processes_hold_the_same_state_after_every_step(name: str, images, tmp_path: Path):
    outcomes = in_processes(2, _states_of_steps, TRAINED[name], images, tmp_path / "run")
    assert [outcome.error for outcome in outcomes] == [None, None]
    first, second = (outcome.value for outcome in outcomes)
    assert len(first) == 4
    assert len(set(first)) == 4  # it does change
    assert first == second


def _states_of_steps(recipe: Recipe, images, folder: Path) -> list[str]:
    states: list[str] = []
    step = train.train_step

    def noted(method: Method, *arguments):
        figures = step(method, *arguments)
        states.append(_state(method))
        return figures

    train.train_step = noted
    run(recipe, images, folder, on_cpu(checkpoint_seconds=60))
    return states


def _state(method: Method) -> str:
    digest = hashlib.sha256()
    for key, value in method.state_dict().items():
        if key not in method.sharded_buffers():
            digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("name", TRAINED)
def test_two_processes_equal_one_where_no_norm_sees_the_batch(name: str, images, tmp_path: Path):
    difference, moved = _of_two_processes_and_of_training(TRAINED[name], images, tmp_path, torch.float64)
    assert difference <= 1e-9
    assert moved >= 1e-4  # training did something


@pytest.mark.parametrize("name", ["supervised", "rotation", "npid_pp", "pirl"])
def test_two_processes_equal_one_in_float32_too(name: str, images, tmp_path: Path):
    """By SGD at a rate of which four steps move a parameter by 2e-4 or more; the difference is then 3e-6 or less. At
    higher rates, and for losses with larger gradients, it grows with the steps themselves."""
    recipe = replace(TRAINED[name], optimizers={"main": SGD(lr=3e-4, momentum=0.9)})
    difference, moved = _of_two_processes_and_of_training(recipe, images, tmp_path, torch.float32)
    print(f"{name}: {difference:.1e}, where training moved {moved:.1e}")
    assert difference <= 1e-5
    assert moved >= 1.5e-4


def _of_two_processes_and_of_training(recipe: Recipe, images, folder: Path, dtype: torch.dtype) -> tuple[float, float]:
    """Largest absolute differences over all parameters: two processes against one, and the end against the start."""
    quiet = {"dropout": "none"} if hasattr(recipe.backbone, "dropout") else {}  # each process drops other numbers
    recipe = replace(recipe, backbone=replace(recipe.backbone, norm="group", **quiet))
    untrained = replace(recipe, length=Steps(0))
    ends = [
        in_processes(count, _run_with_group_norm, each, images, folder / name, dtype)
        for count, each, name in ((1, untrained, "start"), (1, recipe, "one"), (2, recipe, "two"))
    ]
    assert [outcome.error for outcomes in ends for outcome in outcomes] == [None] * 4
    losses = [read_facts(folder / name / "backbone.safetensors")["origin"]["losses"] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0]
    start, one, two = [load(outcomes[0].value) for outcomes in ends]
    return _largest_difference(one, two), _largest_difference(one, start)


def _run_with_group_norm(recipe: Recipe, images, folder: Path, dtype: torch.dtype) -> bytes:
    """The backbone file. A head's BatchNorm, which would see the statistics of a process's own share, becomes a
    GroupNorm too."""
    if dtype == torch.float64:
        _in_float64()
    build = train.build_method

    def built(*arguments) -> Method:
        method = build(*arguments)
        for parent in list(method.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.modules.batchnorm._BatchNorm):
                    setattr(parent, name, nn.GroupNorm(1, child.num_features, affine=child.affine))
        return method

    train.build_method = built
    return run(recipe, images, folder, on_cpu(checkpoint_seconds=60))


def _in_float64() -> None:
    """Two processes add up in another order than one. In float32 the first steps of a small network, Adam's above all,
    blow the last bits up to the size of the steps themselves; in float64 what remains is a difference in meaning."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[assignment]


def _largest_difference(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    assert one.keys() == two.keys()
    return max(float((one[key] - two[key]).abs().max()) for key in one)


def test_with_batch_norm_two_processes_are_another_run_and_the_file_says_so(images, tmp_path: Path):
    ends = []
    for count in (1, 2):
        outcomes = in_processes(count, run, TRAINED["supervised"], images, tmp_path / str(count), on_cpu())
        assert read_facts(tmp_path / str(count) / "backbone.safetensors")["origin"]["world_size"] == count
        ends.append(load(outcomes[0].value))
    assert _largest_difference(*ends) > 1e-5


@pytest.mark.parametrize("name", ["pirl", "npid"])
def test_a_sharded_bank_trains_the_same(name: str, images, tmp_path: Path):
    """47 images over two processes: the shards are of unequal use, and one row of the second stands for no image."""
    some = images.subset(range(47), "47")
    sharded = with_change(TRAINED[name], "method.sharded_bank", True)
    whole = in_processes(2, _run_and_bank, TRAINED[name], some, tmp_path / "whole")
    parts = in_processes(2, _run_and_bank, sharded, some, tmp_path / "parts")
    assert [outcome.error for outcome in [*whole, *parts]] == [None] * 4
    backbones = [load(outcomes[0].value[0]) for outcomes in (whole, parts)]
    assert _largest_difference(*backbones) <= 1e-6
    bank = np.concatenate([outcome.value[1] for outcome in parts])
    assert [len(outcome.value[1]) for outcome in parts] == [24, 24]
    assert np.abs(bank[:47] - whole[0].value[1]).max() <= 1e-6


def _run_and_bank(recipe: Recipe, images, folder: Path) -> tuple[bytes, np.ndarray]:
    _in_float64()
    build, methods = train.build_method, []

    def built(*arguments) -> Method:
        methods.append(build(*arguments))
        return methods[-1]

    train.build_method = built
    file = run(recipe, images, folder, on_cpu(checkpoint_seconds=60))
    return file, methods[0].get_buffer("bank.rows").numpy()


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


def test_an_embedding_pass_sees_every_image_once_in_full_batches(images, tmp_path: Path):
    """A last batch of one image, or of a few, would have no statistics to be normalised by."""
    for count in (33, 40, 48):
        some = images.subset(range(count), str(count))
        [whole] = in_processes(1, _embedding_pass, some, tmp_path / f"{count}")
        halves = in_processes(2, _embedding_pass, some, tmp_path / f"{count}, halves")
        assert [outcome.error for outcome in [whole, *halves]] == [None] * 3
        for outcome, size in ((whole, 16), *((half, 8) for half in halves)):
            assert outcome.value.sizes == [size] * 3
            assert outcome.value.gathered == [16, 16, count - 32]  # never all at once
            assert outcome.value.features == {image: 10.0 * image for image in range(count)}


def test_random_numbers_in_and_after_an_embedding_pass_follow_from_the_position(images, tmp_path: Path):
    few = images.subset(range(16), "16")
    cases = {"whole": (images, 0), "workers": (images, 2), "few": (few, 0), "without": (few, 0, False)}
    seen = {
        name: in_processes(1, _embedding_pass, some, tmp_path / name, *how)[0].value
        for name, (some, *how) in cases.items()
    }
    halves = [outcome.value for outcome in in_processes(2, _embedding_pass, images, tmp_path / "halves")]
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

    train.build_method = built
    run(replace(TRAINED["supervised"], length=Steps(1)), images, folder, on_cpu(workers, 60))
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
        outcomes = in_processes(2, run, TRAINED["pirl"], images, folder, on_cpu())
    return [(outcome.error_type, outcome.error) for outcome in outcomes]


def test_an_unreadable_image_on_one_process_ends_all(images, tmp_path: Path):
    """It is met in a loader process of one of them; nothing is decoded beforehand here."""
    broken = drawn_images(tmp_path / "images")
    (broken.root / "5.png").write_bytes(b"no image")
    outcomes = in_processes(2, _run_undecoded, TRAINED["supervised"], broken, tmp_path / "run")
    assert [outcome.error_type for outcome in outcomes] == ["UserError", "UserError"]
    assert any("5.png" in str(outcome.error) and "Traceback" not in str(outcome.error) for outcome in outcomes)


def _run_undecoded(recipe: Recipe, images, folder: Path) -> None:
    from benchmark.data import loader

    loader._decode_all = lambda images: []
    run(recipe, images, folder, on_cpu(workers=1))
