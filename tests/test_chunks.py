"""A batch encoded in chunks against the same batch encoded at once: gradients, running statistics, random numbers."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compare_chunk_memory import Counting, peak_bytes_of
from PIL import Image
from shares import numbers_of, one_against_two, rounding
from small_runs import RECIPES, TRAINED, Processes, drawn_images
from tiny_methods import Tiny, TinyNetwork
from torch import Tensor, nn
from torch.utils.data import default_collate

from benchmark.backbones.contract import Backbone
from benchmark.backbones.norms import group_norm
from benchmark.backbones.resnet_v2 import ResNetV2
from benchmark.backbones.two_networks import EnsembleOfTwo, TwoHalves
from benchmark.blocks.chunks import ChunkSettings, encoded_in_chunks
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.data.image_set import ImageSet
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


@dataclass(frozen=True)
class Halved(Tiny):
    """For CMC."""

    def build(self, spec: InputSpec) -> TinyHalves:  # type: ignore[override]
        return TinyHalves(self, spec)


class TinyHalves(TwoHalves):
    architecture: Halved

    def _half(self, input_channels: int) -> TinyNetwork:
        network = TinyNetwork(self.architecture, self.input)
        network.conv1 = nn.Conv2d(input_channels, self.architecture.channels, 3, stride=2, padding=1)
        return network


@dataclass(frozen=True)
class Paired(Tiny):
    """For PIRL-ens."""

    def build(self, spec: InputSpec) -> TinyPair:  # type: ignore[override]
        return TinyPair(self, spec)


class TinyPair(EnsembleOfTwo):
    architecture: Paired

    def _networks(self) -> tuple[TinyNetwork, TinyNetwork]:
        return TinyNetwork(self.architecture, self.input), TinyNetwork(self.architecture, self.input)


def small(name: str, chunk: int | None, backbone: Architecture) -> Recipe:
    recipe = RECIPES[name]
    method = replace(recipe.method, chunk=chunk)  # type: ignore[type-var]
    return replace(recipe, backbone=backbone, method=method, input=replace(recipe.input, size=32), precision="fp32")


def in_groups(name: str, over: int) -> Tiny:
    return {"cmc": Halved, "pirl_ens": Paired}.get(name, Tiny)(over=over)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return drawn_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("name", ["simclr", "supcon"])
def test_two_processes_train_in_chunks_as_one_does_at_once(
    name: str, alone: Processes, pair: Processes, images: ImageSet, tmp_path: Path
):
    whole, chunked = (small(name, chunk, Grouped()) for chunk in (None, 4))
    found = one_against_two(alone, pair, whole, images, tmp_path, chunked)
    assert found.faults() == []


@pytest.mark.parametrize("name", ["moco", "moco_end_to_end", "moco_memory_bank", "pcl", "cmc", "pirl", "npid_pp"])
def test_two_processes_train_in_chunks_of_a_group_as_one_does_at_once(
    name: str, alone: Processes, pair: Processes, images: ImageSet, tmp_path: Path
):
    """Weights, queue and bank to 1e-7, which is rounding alone: their loss divides by a small tau what a BatchNorm has
    blown up, and on one process, first weights that are all a last bit larger end up to 2e-8 away (end to end)."""
    whole, chunked = (small(name, chunk, in_groups(name, 4)) for chunk in (None, 4))
    found = one_against_two(alone, pair, whole, images, tmp_path, chunked)
    assert found.faults(most=1e-7) == []
    assert found.two[0].losses == pytest.approx(found.one.losses, rel=1e-9)


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
    """What the first step of the batch's epoch leaves: gradients, and the whole state, with its banks and queues."""

    def embed_all(embed: Callable[[Batch], Tensor], still: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        method.eval()
        with torch.no_grad():
            yield batch.index, embed(replace(batch, views={"image": batch.views["x_q"]}))
        method.train()

    with numbers_of(torch.float64):
        method, rows = build_method(recipe, Given(16, 4)), []
        method.on_epoch_start(batch.epoch, embed_all)
        for network in [one for one in method.backbone.modules() if isinstance(one, Backbone)]:
            network.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
        figures = train_step(method, batch, build_players(method, recipe), "fp32")
        # PIRL's patches stay together
        of_image = next((view.shape[1] for name, view in batch.views.items() if name.startswith("I_t")), 1)
        chunk = recipe.method.chunk  # type: ignore[attr-defined]
        assert not chunk or {chunk * of_image} <= set(rows) <= {chunk, chunk * of_image}
        gradients = {f"gradient of {name}": p.grad for name, p in method.named_parameters() if p.grad is not None}
        return figures | gradients | method.state_dict()


def step_of_both(recipe: Recipe, epoch: int = 0) -> dict[str, Tensor]:
    """At once and in chunks, which are the same."""
    batch = drawn_batch(recipe).at(seed=0, epoch=epoch, done=0.0)
    whole, chunked = (
        stepped(replace(recipe, method=replace(recipe.method, chunk=chunk)), batch)  # type: ignore[type-var]
        for chunk in (None, 8)
    )
    assert whole.keys() == chunked.keys()
    assert any(name.startswith("gradient of backbone") for name in whole)
    for key, value in whole.items():
        assert float((chunked[key] - value).abs().max()) <= rounding(recipe) * max(1, float(value.abs().max())), key
    return whole


@pytest.mark.parametrize("name", IN_CHUNKS)
def test_a_step_in_chunks_is_the_batchs(name: str):
    """Of every method that has chunks, by groups that lie within them: its queue, its bank and its constants too. CPC's
    networks have no BatchNorm, and stay."""
    recipe = RECIPES[name]
    step_of_both(recipe if isinstance(recipe.backbone, ResNetV2) else small(name, None, in_groups(name, 8)))


@pytest.mark.parametrize("name", ["pcl", "pcl_v2"])
def test_a_step_in_chunks_has_the_same_prototypes(name: str):
    """PCL's after its warm-up, which the step above lies in: clusters of keys that are encoded in chunks, too."""
    recipe = small(name, None, in_groups(name, 8))
    recipe = replace(recipe, method=replace(recipe.method, k_m=(3, 5), r=1))  # type: ignore[type-var]
    warm, step = (step_of_both(recipe, epoch) for epoch in (0, 1))
    assert [len(step[f"clusterings.{m}.s"].unique()) for m in (0, 1)] == [3, 5]
    assert step["loss/main"] > warm["loss/main"] + 0.1, "no ProtoNCE"


@pytest.mark.parametrize("chunk", [None, 4, 8])
def test_patches_are_normalised_with_those_of_the_images_of_a_group(chunk: int | None):
    """PIRL's, nine of each image: as on four processes of four images each."""
    one, other = (
        small("pirl", chunk if over == 4 else None, Tiny(over=over))  # type: ignore[arg-type]
        for over in (4, "process")
    )
    batch = drawn_batch(one)
    with numbers_of(torch.float64):
        grouped, each = build_method(one, Given(16)), build_method(other, Given(16))
        each.load_state_dict(grouped.state_dict())
        for method in (grouped, each):
            method.g_norm = nn.Identity()  # type: ignore[assignment]
        codes = grouped.embed_transformed(batch)  # type: ignore[operator]
        by_hand = [each.embed_transformed(part) for part in in_fours(batch)]  # type: ignore[operator]
    torch.testing.assert_close(codes, torch.cat(by_hand), rtol=1e-9, atol=1e-12)


def in_fours(batch: Batch) -> Iterator[Batch]:
    for rows in batch.index.split(4):
        yield replace(batch, index=rows, views={key: view[rows] for key, view in batch.views.items()})


def test_chunks_that_groups_do_not_fill_are_told():
    network = Tiny(over=8).build(InputSpec(16))
    with pytest.raises(UserError, match=r"chunks of 12 are no number of BatchNorm's groups of 8: set --recipe\.meth"):
        encoded_in_chunks(network, network, torch.zeros(24, 3, 16, 16), 12)


OF_CHUNKS, OF_PROCESSES = (f"BatchNorm: statistics of {whose}" for whose in ("chunks", "each process's own images"))


def told(name: str, chunk: int | None, backbone: Architecture) -> list[str]:
    return build_method(small(name, chunk, backbone), Given(16)).depends_on_processes()


def test_batchnorm_over_all_in_chunks_says_that_it_depends_on_processes():
    """Two of them give a chunk twice as many views."""
    assert told("simclr", 8, Tiny(over="all")) == [OF_CHUNKS]
    assert (
        told("simclr", None, Tiny(over="all")) == told("simclr", 8, Tiny(over=8)) == told("simclr", 8, Grouped()) == []
    )


def test_batchnorm_over_a_process_in_chunks_says_that_its_statistics_are_theirs():
    """Theirs that have a bank, in the paper's form."""
    halves, ensemble = (replace(RECIPES[name].backbone, over=8) for name in ("cmc", "pirl_ens"))  # type: ignore[type-var]
    for name, of_process, of_groups in (
        ("npid", Tiny(), Tiny(over=8)),
        ("pirl", RECIPES["pirl"].backbone, Grouped()),
        ("pirl_ens", RECIPES["pirl_ens"].backbone, ensemble),
        ("cmc", RECIPES["cmc"].backbone, halves),
    ):
        assert told(name, 8, of_process) == [OF_PROCESSES, OF_CHUNKS]
        assert told(name, None, of_process) == [OF_PROCESSES]
        assert OF_CHUNKS not in told(name, 8, of_groups)


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
    """Counted, of two layers and 32 chunks; compare_chunk_memory.py does it at full size."""
    network = Grouped(channels=256)
    alone, chunked, whole = (peak_bytes_of(network, *of, size=64) for of in ((4, None), (128, 8), (128, None)))
    assert chunked <= 1.3 * alone
    assert whole > 20 * alone


def test_a_tensor_counts_while_it_lives():
    with Counting() as counting:
        x = torch.zeros(1000)
        y = x.view(10, 100) + 1  # a view holds nothing of its own
        assert (counting.live, counting.peak) == (8000, 8000)
        del y
        assert (counting.live, counting.peak) == (4000, 8000)
    assert x.shape == (1000,)


def test_chunks_that_would_differ_in_size_are_told():
    with pytest.raises(UserError, match="64 images or views on each process cannot be divided into chunks of 24"):
        encoded_in_chunks(nn.Identity(), nn.Identity(), torch.zeros(64, 1), 24)
