"""PIRL-ens: two PIRLs that know nothing of each other."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import RECIPES
from torch import Tensor
from torch.utils.data import default_collate

from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.engine.train import build_method
from benchmark.method import Method
from benchmark.recipe.pools import Given
from recipes.pirl_ens import Ensemble, of_member

RECIPE = RECIPES["pirl_ens"]
IMAGES, BATCH, STEPS = 12, 6, 3


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    found = []
    for step in range(STEPS):
        pixels = rng.integers(0, 256, (BATCH, 64, 64, 3), dtype=np.uint8)
        rows = [RECIPE.method.views(Image.fromarray(image), RECIPE.input) for image in pixels]
        found.append(Batch(default_collate(rows), torch.randperm(IMAGES)[:BATCH], seed=100 + step))
    return found


def ensemble() -> Ensemble:
    torch.manual_seed(1)
    method = build_method(RECIPE, Given(IMAGES))
    assert isinstance(method, Ensemble)
    return method


def trained(method: Method, batches: list[Batch]) -> list[float]:
    """Its losses as it takes a step for each batch."""
    optimizer, found = torch.optim.AdamW(method.parameters(), lr=1e-2), []
    for batch in batches:
        for _, loss in method.losses(batch):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    return found


def test_an_ensemble_trains_as_its_members_would_alone(batches: list[Batch]):
    both = ensemble()
    alone = [copy.deepcopy(both.first), copy.deepcopy(both.second)]
    losses = trained(both, batches)
    apart = [trained(member, [of_member(batch, k) for batch in batches]) for k, member in enumerate(alone)]
    assert losses == pytest.approx([sum(pair) for pair in zip(*apart, strict=True)], rel=1e-5)
    for member, one in zip((both.first, both.second), alone, strict=True):
        for key, value in one.state_dict().items():
            torch.testing.assert_close(member.state_dict()[key], value, rtol=1e-5, atol=1e-6)


def test_members_differ_in_weights_banks_views_and_negatives(batches: list[Batch]):
    both, shares = ensemble(), [of_member(batches[0], k) for k in (0, 1)]
    assert not torch.equal(both.first.backbone.conv1.weight, both.second.backbone.conv1.weight)
    assert not torch.equal(both.first.bank.rows, both.second.bank.rows)
    for name in ("I", "I_t"):
        assert not torch.equal(shares[0].views[name], shares[1].views[name])
    drawn = [both.first.bank.negatives(one.index, 5, one.seed) for one in shares]
    assert not torch.equal(*drawn)


def test_each_members_bank_starts_from_its_own_views(batches: list[Batch]):
    both, asked = ensemble(), []

    def embed_all(embed: Callable[[Batch], Tensor], still: bool = False):
        with torch.no_grad():
            asked.append(embed(batches[0]))
        yield batches[0].index, asked[-1]

    both.prepare(embed_all)
    for member, features in zip((both.first, both.second), asked, strict=True):
        torch.testing.assert_close(member.bank.rows[batches[0].index], features)
    assert not torch.equal(*asked)


def test_transfers_see_both_members_side_by_side():
    exported = ensemble().export().eval()
    x = torch.randn(2, 3, RECIPE.input.size, RECIPE.input.size)
    with torch.no_grad():
        first, second = exported.first(x), exported.second(x)  # type: ignore[operator]
        torch.testing.assert_close(exported(x), torch.cat([first, second], dim=1))
    assert not torch.isclose(first, second).all()


def test_a_single_network_is_told():
    backbone = RECIPES["pirl"].backbone.build(RECIPE.input)
    with pytest.raises(
        UserError, match="two networks that both see the whole image, as ResNetEnsemble has them, not ResNet:"
    ):
        RECIPE.method.build(backbone, Given(IMAGES))
