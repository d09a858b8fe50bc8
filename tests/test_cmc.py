"""CMC against its formula, the sizes of its networks, and what each half may see."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import RECIPES, Processes
from torch import Tensor, nn

from benchmark.backbones.alexnet import DEEPCLUSTER
from benchmark.backbones.split_resnet import SplitResNet
from benchmark.blocks.nce import fix_partition
from benchmark.core import distributed
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.engine.train import build_method
from benchmark.recipe import InputSpec, Lab
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import with_change
from benchmark.recipe.pools import Given

PAPER = find_recipes()
IMAGES, BATCH, NOISE, DIM = 20, 6, 5, 4


class Seen(nn.Module):
    """A backbone whose output is what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.input = SimpleNamespace(prepare=nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def step(processes: int) -> dict[str, Any]:
    """What a step of this process's share comes to, and what it came from."""
    recipe = with_change(with_change(RECIPES["cmc"], "method.m", NOISE), "method.dim", DIM)
    method = build_method(with_change(recipe, "method.head_norm", False), Given(IMAGES)).double()
    torch.manual_seed(1)
    h, index = torch.randn(BATCH, method.backbone.out_channels, 1, 1).double(), torch.randperm(IMAGES)[:BATCH]
    method.backbone = Seen()  # type: ignore[assignment]
    share = slice(distributed.rank() * (BATCH // processes), (distributed.rank() + 1) * (BATCH // processes))
    start = {key: value.clone().numpy() for key, value in method.state_dict().items()}
    losses = method.losses(Batch({"image": h[share]}, index[share], seed=7))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "float", Tensor.double)
        _, loss = next(losses)
        loss.backward()
        assert next(losses, None) is None
    noise = method.bank_1.negatives(index, NOISE, 7)
    return {
        "loss": float(distributed.mean_over_processes(loss.detach())),
        "gradient": [distributed.mean_over_processes(fc.weight.grad).numpy() for fc in method.fc],
        "rows": [bank.rows.numpy() for bank in (method.bank_1, method.bank_2)],
        "Z": method.Z.numpy(),
        "from": (start, h[:, :, 0, 0].numpy(), index.numpy(), noise.numpy()),
    }


def by_hand(start: dict[str, np.ndarray], h: np.ndarray, index: np.ndarray, noise: np.ndarray, tau: float) -> Any:
    """(loss, gradient of each layer, rows of each bank, Z), image by image. P / (P + m / n) has the derivative
    (1 - h) / tau by the similarity of the image's own entry."""
    loss, gradient, rows, Zs, codes = 0.0, [], [], [], []
    for view in (0, 1):
        half = h[:, : h.shape[1] // 2] if view == 0 else h[:, h.shape[1] // 2 :]
        z = half @ start[f"fc.{view}.weight"].T + start[f"fc.{view}.bias"]
        length = np.linalg.norm(z, axis=1, keepdims=True)
        v = z / length
        other = start[f"bank_{2 - view}.rows"]
        entries = [[index[i], *noise[i]] for i in range(BATCH)]
        s = np.array([[float(v[i] @ other[entry]) for entry in entries[i]] for i in range(BATCH)])
        Z = IMAGES * np.exp(s / tau).mean()
        dv = np.zeros_like(v)
        for i in range(BATCH):
            for place, entry in enumerate(entries[i]):
                P = math.exp(s[i, place] / tau) / Z
                posterior = P / (P + NOISE / IMAGES)
                loss -= math.log(posterior if place == 0 else 1 - posterior) / BATCH
                slope = (posterior - 1 if place == 0 else posterior) / tau / BATCH
                dv[i] += slope * other[entry]
        dz = (dv - (dv * v).sum(axis=1, keepdims=True) * v) / length
        gradient.append(dz.T @ half)
        codes.append(v)
        Zs.append(Z)
    for view in (0, 1):
        bank = start[f"bank_{1 + view}.rows"].copy()
        for i, image in enumerate(index):
            mixed = 0.5 * bank[image] + 0.5 * codes[view][i]
            bank[image] = mixed / np.linalg.norm(mixed)
        rows.append(bank)
    return loss, gradient, rows, Zs


@pytest.mark.parametrize("processes", [1, 2])
def test_a_step_is_that_of_the_formula(processes: int, alone: Processes, pair: Processes):
    for outcome in (alone if processes == 1 else pair).run(step, processes):
        assert outcome.error is None
        found = outcome.value
        loss, gradient, rows, Z = by_hand(*found["from"], PAPER["cmc"].method.tau)
        assert found["loss"] == pytest.approx(loss, rel=1e-7)
        np.testing.assert_allclose(found["Z"], Z, rtol=1e-9)
        for view in (0, 1):
            np.testing.assert_allclose(found["gradient"][view], gradient[view], rtol=1e-6, atol=1e-8)
            np.testing.assert_allclose(found["rows"][view], rows[view], atol=1e-12)


def test_banks_start_apart():
    """With the same rows, the two views would have the same entry to match before either has seen anything."""
    method = build_method(RECIPES["cmc"], Given(IMAGES))
    assert (method.bank_1.rows * method.bank_2.rows).sum(dim=1).abs().max() < 0.5


def test_banks_begin_with_the_features_of_their_own_view():
    method = build_method(with_change(RECIPES["cmc"], "method.bank_init", "features"), Given(IMAGES))
    v = nn.functional.normalize(torch.randn(IMAGES, 2, method.settings.dim), dim=2)
    order = torch.randperm(IMAGES)
    method.prepare(lambda embed, still=False: iter([(half, v[half]) for half in order.split(IMAGES // 2)]))
    for bank, view in ((method.bank_1, 0), (method.bank_2, 1)):
        torch.testing.assert_close(bank.rows, v[:, view])


def test_a_partition_is_estimated_once():
    Z, s = torch.zeros(()), torch.tensor([0.1, -0.2])
    for scores in (s, 2 * s):
        fix_partition(Z, scores, 0.5, 10)
        assert float(Z) == pytest.approx(10 * (math.exp(0.2) + math.exp(-0.4)) / 2)


def parameters(architecture: Any) -> Iterator[int]:
    with torch.device("meta"):
        network = architecture.build(PAPER["cmc"].input)
    for half in (network.first, network.second):
        yield sum(p.numel() for p in half.parameters())


@pytest.mark.parametrize(("width", "millions"), [(1.0, 47), (2.0, 188)])
def test_two_resnets_have_the_parameters_that_moco_prints(width: float, millions: int):
    assert round(sum(parameters(SplitResNet(width=width))) / 1e6) == millions


def test_two_resnets_with_a_classifier_each_have_the_parameters_that_pirl_prints():
    assert round((sum(parameters(PAPER["cmc"].backbone)) + 2 * 2049 * 1000) / 1e6) == 51


def test_halves_of_alexnet_are_those_of_the_released_code():
    """Kernels of 11, 5, 3, 3, 3 between half of 96, 256, 384, 384, 256 channels, and two layers of half of 4,096 units;
    each with BatchNorm."""
    kernels = 48 * 128 * 25 + 128 * 192 * 9 + 192 * 192 * 9 + 192 * 128 * 9
    connections = 128 * 6 * 6 * 2048 + 2048 * 2048
    channels = 48 + 128 + 192 + 192 + 128
    norms, biases = 2 * (channels + 2 * 2048), channels
    shared = kernels + connections + norms + biases
    assert [*parameters(PAPER["cmc_alexnet"].backbone)] == [shared + 48 * 121, shared + 2 * 48 * 121]


@pytest.mark.parametrize("name", ["cmc", "cmc_alexnet"])
def test_transfers_see_both_halves_and_each_sees_its_own_channels(name: str):
    recipe = RECIPES[name]
    backbone = build_method(recipe, Given(IMAGES)).export().eval()
    x = torch.randn(2, 3, recipe.input.size, recipe.input.size)
    other = x.clone()
    other[:, 1:] += 1
    half = backbone.out_channels // 2
    with torch.no_grad():
        one, two = backbone(x), backbone(other)
    assert torch.equal(one[:, :half], two[:, :half])
    assert not torch.isclose(one[:, half:], two[:, half:]).all()


def test_channels_span_minus_one_to_one():
    colour = PAPER["cmc"].input.colour
    assert isinstance(colour, Lab)
    corners = ((0, -86.183, -107.857), (100, 98.233, 94.478))  # as the released code has them
    for lab, end in zip(corners, (-1, 1), strict=True):
        assert (np.array(lab) - colour.mean) / colour.std == pytest.approx([end] * 3)


def test_a_network_without_halves_is_told():
    with pytest.raises(UserError, match="two networks that see different channels, such as SplitResNet, not AlexNet"):
        PAPER["cmc"].method.build(DEEPCLUSTER.build(InputSpec(64)), Given(IMAGES))
