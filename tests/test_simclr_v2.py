"""SimCLR v2 against its formulas and its paper's numbers: networks, memory, what is left behind."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import RECIPES, in_processes
from torch import Tensor, nn
from torch.nn.functional import conv2d, normalize

from benchmark.backbones.resnet import ResNet
from benchmark.backbones.selective_resnet import SelectiveKernels, SelectiveResNet
from benchmark.backbones.weights import load_backbone, save_backbone
from benchmark.backbones.with_head import at_last_stage
from benchmark.blocks.queue import KeyQueue
from benchmark.core import distributed
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.engine.train import build_method
from benchmark.recipe import LARS, InputSpec
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.pools import Given
from recipes.simclr_v2 import nt_xent_with_memory

PAPER = find_recipes()
TAU, IMAGES, INPUTS, DIM, REMEMBERED = 0.1, 6, 5, 4, 7

# --- networks

# Table 1: depth, width, selective kernels, million parameters
PUBLISHED = [
    *((50, 1, False, 24), (50, 1, True, 35), (50, 2, False, 94), (50, 2, True, 140)),
    *((101, 1, False, 43), (101, 1, True, 65), (101, 2, False, 170), (101, 2, True, 257)),
    *((152, 1, False, 58), (152, 1, True, 89), (152, 2, False, 233), (152, 2, True, 354), (152, 3, True, 795)),
]


@pytest.mark.parametrize(("depth", "width", "selective", "millions"), PUBLISHED)
def test_networks_have_as_many_parameters_as_published(depth: int, width: int, selective: bool, millions: int):
    """Table 1 counts all variables of the network: BatchNorm's means and variances too."""
    architecture = (SelectiveResNet if selective else ResNet)(depth=depth, width=width)  # type: ignore[arg-type]
    with torch.device("meta"):
        network = architecture.build(InputSpec())
    count = sum(p.numel() for p in network.parameters())
    count += sum(buffer.numel() for buffer in network.buffers() if buffer.ndim)
    assert round(count / 1e6) == millions


@pytest.mark.parametrize("stride", [1, 2])
def test_selected_kernels_are_the_formula(stride: int):
    """With U1 and U2 the two maps and s the mean over places of their sum: c = ReLU(W s), and of each channel U1 counts
    exp(a c) / (exp(a c) + exp(b c))."""
    torch.manual_seed(0)
    kernels = SelectiveKernels(3, stride, 0.0625, lambda _: nn.Identity()).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    w = [conv2d(x, half, stride=stride, padding=1).clamp_min(0) for half in kernels.both.weight.chunk(2)]
    c = ((w[0] + w[1]).mean(dim=(2, 3)) @ kernels.describe.weight[:, :, 0, 0].T).clamp_min(0)
    assert c.shape == (2, 32)  # the least there are
    a, b = (c @ half[:, :, 0, 0].T for half in kernels.select.weight.chunk(2))
    share = a.exp() / (a.exp() + b.exp())
    wanted = share[:, :, None, None] * w[0] + (1 - share)[:, :, None, None] * w[1]
    torch.testing.assert_close(kernels(x), wanted, rtol=1e-12, atol=1e-12)


def test_shortcuts_average_what_they_skip():
    network = SelectiveResNet(width=0.0625).build(InputSpec(32))
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    halved = network.layer2[0].downsample[0](x)
    assert halved.tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    kept = network.layer1[0].downsample[:2](x)[0, 0]
    assert kept.shape == (4, 4)
    assert kept[0, :2].tolist() == [2.5, 3.5]
    assert (float(kept[0, 3]), float(kept[3, 0]), float(kept[3, 3])) == (5.0, 12.5, 15.0)  # of two, two and one


def test_a_selective_network_has_a_resnets_stages():
    ours, theirs = (one(width=0.125).build(InputSpec(64)).eval() for one in (SelectiveResNet, ResNet))
    x = torch.randn(2, 3, 64, 64)
    assert ours.stages == theirs.stages
    found = {name: y.shape for name, y in ours.forward_stages(x).items()}
    assert found == {name: y.shape for name, y in theirs.forward_stages(x).items()}
    with pytest.raises(UserError, match="ratio must be more than 0"):
        SelectiveResNet(ratio=0.0)


# --- the loss with memory


def drawn(rank: int = 0, processes: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a linear layer takes, its weight, and what is remembered. rows: this process's first views, then its second
    views."""
    rng = np.random.default_rng(0)
    views, weight, keys = (rng.normal(size=size) for size in ((2, IMAGES, INPUTS), (INPUTS, DIM), (REMEMBERED, DIM)))
    share = IMAGES // processes
    mine = views[:, rank * share : (rank + 1) * share].reshape(-1, INPUTS)
    return mine, weight, keys / np.linalg.norm(keys, axis=1, keepdims=True)


def by_hand(x: np.ndarray, weight: np.ndarray, keys: np.ndarray) -> tuple[float, np.ndarray]:
    """View by view, and the derivative worked out on paper: with S the softmax over the other views and the memory,
    the loss of view i has the derivative S - [k is its partner] by its similarity with k, over tau."""
    z = x @ weight
    length = np.linalg.norm(z, axis=1, keepdims=True)
    u, M, loss = z / length, len(z), 0.0
    du = np.zeros_like(u)
    for i in range(M):
        j = (i + M // 2) % M
        e = {k: math.exp(float(u[i] @ u[k]) / TAU) for k in range(M) if k != i}
        e_m = [math.exp(float(u[i] @ key) / TAU) for key in keys]
        total = sum(e.values()) + sum(e_m)
        loss -= math.log(e[j] / total) / M
        for k in e:
            g = (e[k] / total - (k == j)) / (M * TAU)
            du[i] += g * u[k]
            du[k] += g * u[i]
        for one, key in zip(e_m, keys, strict=True):
            du[i] += one / total / (M * TAU) * key
    dz = (du - (du * u).sum(axis=1, keepdims=True) * u) / length
    return loss, x.T @ dz


def loss_and_gradient(processes: int) -> tuple[float, np.ndarray]:
    x, weight, keys = (torch.from_numpy(one) for one in drawn(distributed.rank(), processes))
    weight.requires_grad_(True)
    memory = KeyQueue(REMEMBERED, DIM).double()
    memory.keys.copy_(keys)
    loss = nt_xent_with_memory(x @ weight, memory, TAU)
    loss.backward()
    assert weight.grad is not None
    return float(distributed.mean_over_processes(loss.detach())), distributed.mean_over_processes(weight.grad).numpy()


@pytest.mark.parametrize("processes", [1, 2])
def test_loss_and_gradient_are_those_of_the_formula(processes: int):
    loss, gradient = by_hand(*drawn())
    for outcome in in_processes(processes, loss_and_gradient, processes):
        assert outcome.error is None
        assert outcome.value[0] == pytest.approx(loss, rel=1e-12)
        np.testing.assert_allclose(outcome.value[1], gradient, rtol=1e-9, atol=1e-12)


def batch_of(count: int = 4, side: int = 32) -> Batch:
    pixels = torch.randint(0, 256, (2, count, 3, side, side), dtype=torch.uint8)
    return Batch({"x_i": pixels[0], "x_j": pixels[1]}, torch.arange(count), seed=0)


def test_the_memory_takes_in_what_the_slow_copy_said_before_the_copy_follows_the_step():
    recipe = RECIPES["simclr_v2_memory"]
    method = build_method(recipe, Given(4))
    batch, K, m = batch_of(), recipe.method.K, recipe.method.m
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    losses = method.losses(batch)
    _, loss = next(losses)
    loss.backward()
    with torch.no_grad():
        for p in method.parameters():
            if p.grad is not None:
                p.sub_(0.1 * p.grad)
        x = method.backbone.input.prepare(batch.views["x_j"])
        said = normalize(method.g_m(method.backbone_m(x)), dim=1)  # not yet followed
    kept = method.memory.keys.clone()
    assert [*losses] == []
    torch.testing.assert_close(method.memory.keys[:4], said, rtol=1e-4, atol=1e-5)
    assert torch.equal(method.memory.keys[4:], kept[4:])
    assert len(kept) == K
    after = dict(method.named_parameters())
    for slow, fast in (("backbone_m.conv1.weight", "backbone.conv1.weight"), ("g_m.3.weight", "g.3.weight")):
        assert not torch.equal(after[fast], before[fast])
        torch.testing.assert_close(after[slow], m * before[slow] + (1 - m) * after[fast])
        assert not after[slow].requires_grad


# --- what is left behind


def with_statistics(name: str) -> nn.Module:
    """In training mode first, so that BatchNorm's running statistics are no longer 0 and 1."""
    method = build_method(RECIPES[name], Given(4))
    method.loss(batch_of())
    return method.eval()


@pytest.mark.parametrize("name", ["simclr_v2", "simclr_v2_2x_sk"])
def test_the_first_layer_of_the_head_stays(name: str, tmp_path: Path):
    method = with_statistics(name)
    left = method.export().eval()  # type: ignore[operator]
    x = torch.randn(3, 3, 32, 32)
    h, (linear, norm) = method.backbone(x), method.g[:2]  # type: ignore[index, operator]
    spread = (norm.running_var + norm.eps).sqrt()
    wanted = ((h @ linear.weight.T - norm.running_mean) / spread * norm.weight + norm.bias).clamp_min(0)
    torch.testing.assert_close(at_last_stage(left, x), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(left(x), h)  # what frozen protocols look at
    assert [*left.stages][-2:] == ["res5", "projection"]
    save_backbone(tmp_path / "left.safetensors", left, {})
    again, _ = load_backbone(tmp_path / "left.safetensors")
    assert torch.equal(at_last_stage(again, x), at_last_stage(left, x))
    assert [*again.forward_stages(x, "res2")] == ["conv1", "res2"]


def layers_of(g: nn.Module) -> list[tuple[int, int]]:
    return [tuple(reversed(p.shape)) for p in g.parameters() if p.ndim == 2]  # type: ignore[misc]


def test_values_are_the_papers():
    for name, width in (("simclr_v2", 128), ("simclr_v2_memory", 128), ("simclr_v2_2x_sk", 128)):
        recipe = PAPER[name]
        assert recipe.optimizers == {"main": LARS(lr=6.4, weight_decay=1e-4, decays="weights")}
        assert recipe.optimizers["main"].lr == pytest.approx(0.1 * recipe.batch_size**0.5)
        g = build_method(RECIPES[name], Given(4)).g
        assert isinstance(g, nn.Sequential)
        c = g[0].in_features
        assert layers_of(g) == [(c, c), (c, c), (c, width)]
        bias: Tensor = g[-1].bias
        assert not bias.requires_grad
    assert (PAPER["simclr_v2_memory"].method.K, PAPER["simclr_v2_memory"].method.m) == (65_536, 0.999)
    assert (PAPER["simclr_v2_2x_sk"].backbone.depth, PAPER["simclr_v2_2x_sk"].backbone.width) == (50, 2)
