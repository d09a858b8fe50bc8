"""A batch encoded in chunks against the same batch encoded at once: gradients, running statistics, random numbers."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compare_chunk_memory import Counting, Trial, peak_bytes
from PIL import Image
from shares import numbers_of, one_against_two
from small_runs import RECIPES, TRAINED, Processes, drawn_images
from tiny_methods import Tiny, TinyNetwork
from torch import Tensor, nn
from torch.utils.data import default_collate

from benchmark.backbones.norms import group_norm
from benchmark.backbones.resnet_v2 import ResNetV2
from benchmark.backbones.split_resnet import SplitResNet
from benchmark.blocks.chunks import ChunkSettings, encoded_in_chunks
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.engine.players import build_players
from benchmark.engine.train import build_method, train_step
from benchmark.recipe.contract import Architecture, Recipe
from benchmark.recipe.inputs import InputSpec
from benchmark.recipe.pools import Given


@dataclass(frozen=True)
class Grouped(Tiny):
    """Without BatchNorm, a row's code depends on no other row."""

    def build(self, spec: InputSpec) -> TinyNetwork:
        network = super().build(spec)
        network.bn1 = group_norm(self.channels)  # type: ignore[assignment]
        return network


def small(name: str, chunk: int | None, backbone: Architecture) -> Recipe:
    recipe = RECIPES[name]
    method = replace(recipe.method, chunk=chunk)  # type: ignore[type-var]
    return replace(recipe, backbone=backbone, method=method, precision="fp32")


@pytest.mark.parametrize("name", ["simclr", "supcon"])
def test_two_processes_train_in_chunks_as_one_does_at_once(
    name: str, alone: Processes, pair: Processes, tmp_path: Path
):
    whole, chunked = (small(name, chunk, Grouped()) for chunk in (None, 4))
    found = one_against_two(alone, pair, whole, drawn_images(tmp_path / "images"), tmp_path, chunked)
    assert found.faults() == []


def trained(recipe: Recipe, images: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Gradients and running statistics of a step."""
    own = replace(recipe, input=replace(recipe.input))  # whose `prepare` no other test has
    method = build_method(own, Given(images, 4)).to(dtype)
    prepare = method.backbone.input.prepare
    object.__setattr__(method.backbone.input, "prepare", lambda pixels: prepare(pixels).to(dtype))
    torch.manual_seed(1)
    pixels = torch.randint(0, 256, (2, images, 3, 32, 32), dtype=torch.uint8)
    method.loss(
        Batch({"x_i": pixels[0], "x_j": pixels[1]}, torch.arange(images), 0, labels=torch.arange(images) % 4)
    ).backward()
    found = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    return found | {name: buffer for name, buffer in method.named_buffers() if "running" in name}


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor], share: float) -> None:
    """To so much of the largest number: what BatchNorm takes away again has gradients that are 0 but for rounding."""
    assert one.keys() == two.keys()
    largest = max(float(value.abs().max()) for value in one.values())
    for name, value in one.items():
        assert float((two[name] - value).abs().max()) <= share * largest, name


def test_512_images_in_chunks_of_32_have_the_gradient_of_the_batch():
    whole, chunked = (trained(small("simclr", chunk, Grouped()), 512, torch.float64) for chunk in (None, 32))
    assert_same(whole, chunked, 1e-9)


@pytest.mark.parametrize("name", ["simclr", "supcon"])
@pytest.mark.parametrize(("over", "chunk"), [(8, 8), (8, 16), ("all", 8)])
def test_batchnorm_over_groups_is_that_of_chunks(name: str, over: Any, chunk: int):
    """Of 8 views, or of two groups of 8 in each chunk; over all, the chunk is the group."""
    whole, chunked = small(name, None, Tiny(over=8)), small(name, chunk, Tiny(over=over))
    assert_same(*(trained(recipe, 16, torch.float64) for recipe in (whole, chunked)), 1e-9)


HAVE_CHUNKS = [name for name, recipe in TRAINED.items() if isinstance(recipe.method, ChunkSettings)]
IN_CHUNKS = list({type(RECIPES[name].method): name for name in reversed(HAVE_CHUNKS)}.values())  # one of each method


def drawn_batch(recipe: Recipe) -> Batch:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (80, 80, 3), dtype=np.uint8)) for _ in range(16)]
    views = default_collate([recipe.method.views(picture, recipe.input) for picture in pictures])
    return Batch(views, torch.arange(16), seed=0, labels=torch.arange(16) % 4)


def stepped(recipe: Recipe, batch: Batch) -> dict[str, Tensor]:
    """What a step leaves: gradients, and the whole state, with its banks and queues."""
    with numbers_of(torch.float64):
        method, rows = build_method(recipe, Given(16, 4)), []
        method.backbone.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
        figures = train_step(method, batch, build_players(method, recipe), "fp32")
        assert max(rows) == (recipe.method.chunk or max(rows))  # type: ignore[attr-defined]
        gradients = {f"gradient of {name}": p.grad for name, p in method.named_parameters() if p.grad is not None}
        state = {name: value for name, value in method.state_dict().items() if "num_batches" not in name}
        return figures | gradients | state


def with_groups_of_8(recipe: Recipe) -> Recipe:
    """With BatchNorm over groups that lie within chunks of 8. CPC's networks have none, and stay."""
    if isinstance(recipe.backbone, ResNetV2):
        return recipe
    has_halves = isinstance(recipe.backbone, SplitResNet)
    backbone = replace(recipe.backbone, over=8) if has_halves else Tiny(over=8)
    return replace(recipe, backbone=backbone, input=replace(recipe.input, size=32))


@pytest.mark.parametrize("name", IN_CHUNKS)
def test_a_step_in_chunks_is_the_batchs(name: str):
    """Of every method that has chunks: its queue, its bank and its constants too."""
    recipe = with_groups_of_8(RECIPES[name])
    batch = drawn_batch(recipe)
    whole, chunked = (
        stepped(replace(recipe, method=replace(recipe.method, chunk=chunk)), batch)  # type: ignore[type-var]
        for chunk in (None, 8)
    )
    assert whole.keys() == chunked.keys()
    assert any(name.startswith("gradient of backbone") for name in whole)
    for key, value in whole.items():
        assert float((chunked[key] - value).abs().max()) <= 1e-9 * max(1, float(value.abs().max())), key


def test_chunks_that_groups_do_not_fill_are_told():
    network = Tiny(over=8).build(InputSpec(16))
    with pytest.raises(UserError, match=r"chunks of 12 are no number of BatchNorm's groups of 8: set --recipe\.meth"):
        encoded_in_chunks(network, network, torch.zeros(24, 3, 16, 16), 12)


def test_batchnorm_over_all_in_chunks_says_that_it_depends_on_processes():
    """Two of them give a chunk twice as many views."""

    def told(chunk: int | None, backbone: Architecture) -> list[str]:
        return build_method(small("simclr", chunk, backbone), Given(16)).depends_on_processes()

    assert told(8, Tiny(over="all")) == ["BatchNorm: statistics of chunks"]
    assert told(None, Tiny(over="all")) == told(8, Tiny(over=8)) == told(8, Grouped()) == []


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 7), nn.Dropout(), nn.Linear(7, 3), nn.Dropout())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_each_chunk_is_encoded_again_with_its_own_random_numbers():
    network, x = Dropping(), torch.randn(12, 5)
    torch.manual_seed(3)
    torch.cat([network(part) for part in x.split(4)]).square().sum().backward()
    known = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    drawn_after = torch.rand(1)
    network.zero_grad()
    torch.manual_seed(3)
    encoded_in_chunks(network, network, x, 4).square().sum().backward()
    assert torch.equal(torch.rand(1), drawn_after)  # and nobody behind it gets other ones
    for p, gradient in zip(network.parameters(), known, strict=True):
        torch.testing.assert_close(p.grad, gradient)


class Keeping(nn.Module):
    """Squares what it gets, and counts the rows that it keeps for the gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.kept, self.most = nn.Parameter(torch.ones(())), 0, 0

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.weight
        self.kept += len(y)
        self.most = max(self.most, self.kept)
        weakref.finalize(y, self._freed, len(y))
        return y.square()  # keeps y

    def _freed(self, rows: int) -> None:
        self.kept -= rows


@pytest.mark.parametrize(("chunk", "most"), [(None, 12), (4, 4)])
def test_no_more_is_kept_than_of_one_chunk(chunk: int | None, most: int):
    network = Keeping()
    encoded_in_chunks(network, network, torch.randn(12, 3), chunk).sum().backward()
    assert (network.most, network.kept) == (most, 0)


def test_many_chunks_need_hardly_more_memory_than_one():
    """Counted, of a small network and two chunks; compare_chunk_memory.py does it at full size."""
    trial = Trial(chunk=32, width=0.125, size=96)
    alone, chunked, whole = (peak_bytes(trial, *of) for of in ((16, None), (32, 32), (32, None)))
    assert chunked <= 1.3 * alone
    assert whole > 1.8 * alone


def test_a_tensor_counts_while_it_lives():
    with Counting() as counting:
        x = torch.zeros(1000)
        y = x.view(10, 100) + 1  # a view holds nothing of its own
        assert (counting.live, counting.peak) == (8000, 8000)
        del y
        assert (counting.live, counting.peak) == (4000, 8000)
    assert x.shape == (1000,)


def test_chunks_that_would_differ_in_size_are_told():
    with pytest.raises(UserError, match="64 views on each process cannot be divided into chunks of 24"):
        encoded_in_chunks(nn.Identity(), nn.Identity(), torch.zeros(64, 1), 24)
