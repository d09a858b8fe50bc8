"""Losses, bank and permutation sets against formulas written out in float64 and against closed forms."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
import torch
from released_permutations import hamming_distances
from torch import nn
from torch.autograd import gradcheck
from torch.nn.functional import normalize

from benchmark.blocks.memory_bank import BankSettings, MemoryBank, dense_is_cheaper
from benchmark.blocks.nce import info_nce, nce, nce_constant_partition
from benchmark.blocks.permutations import permutation_set
from benchmark.core.draws import mix, seed_torch, uniform_integers
from benchmark.core.errors import UserError


@pytest.fixture
def similarities() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.rand(3, generator=generator, dtype=torch.float64) * 2 - 1,
        torch.rand(3, 5, generator=generator, dtype=torch.float64) * 2 - 1,
    )


def nce_as_printed(positive: np.ndarray, negative: np.ndarray, tau: float) -> float:
    """Misra & van der Maaten, equations 3 and 4, term by term."""
    losses = []
    for s, others in zip(positive, negative, strict=True):
        noise = sum(math.exp(s_ / tau) for s_ in others)

        def h(x: float, noise: float = noise) -> float:
            return math.exp(x / tau) / (math.exp(x / tau) + noise)

        losses.append(-math.log(h(s)) - sum(math.log(1 - h(s_)) for s_ in others))
    return sum(losses) / len(losses)


def npid_as_printed(positive: np.ndarray, negative: np.ndarray, tau: float, Z: float, n: int) -> float:
    """Wu et al., equations 6 and 7, with P_n = 1 / n."""
    m = negative.shape[1]
    losses = []
    for s, others in zip(positive, negative, strict=True):
        p = math.exp(s / tau) / Z
        loss = -math.log(p / (p + m / n))
        for s_ in others:
            p_ = math.exp(s_ / tau) / Z
            loss -= math.log(1 - p_ / (p_ + m / n))
        losses.append(loss)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_nce_is_the_papers(similarities, tau: float):
    positive, negative = similarities
    assert nce(positive, negative, tau).item() == pytest.approx(nce_as_printed(*map(np.asarray, similarities), tau))


def test_nce_with_constant_partition_is_the_papers(similarities):
    ours = nce_constant_partition(*similarities, 0.07, torch.tensor(321.0, dtype=torch.float64), 1000)
    assert ours.item() == pytest.approx(npid_as_printed(*map(np.asarray, similarities), 0.07, 321.0, 1000))


def test_info_nce_is_a_softmax(similarities):
    positive, negative = (np.asarray(x) for x in similarities)
    expected = np.mean(-positive / 0.07 + np.log(np.exp(positive / 0.07) + np.exp(negative / 0.07).sum(axis=1)))
    assert info_nce(*similarities, 0.07).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    "loss", [nce, info_nce, lambda p, q, t: nce_constant_partition(p, q, t, torch.tensor(9.0), 50)]
)
def test_gradients_are_those_of_finite_differences(similarities, loss):
    positive, negative = (x.clone().requires_grad_() for x in similarities)
    assert gradcheck(lambda p, q: loss(p, q, 0.3), (positive, negative))


def test_nce_gradient_by_hand(similarities):
    """d/ds of -log h(s) is -(1 - h(s)) / tau."""
    positive, negative = similarities
    positive = positive.clone().requires_grad_()
    nce(positive, negative, 0.2).backward()
    noise = (negative / 0.2).exp().sum(dim=1)
    h = (positive / 0.2).exp() / ((positive / 0.2).exp() + noise)
    torch.testing.assert_close(positive.grad, -(1 - h.detach()) / 0.2 / len(h))


@pytest.mark.parametrize("num_images", [50, 5000])  # scored by one product, and by gathered rows
def test_bank_scores_are_inner_products(num_images: int):
    torch.manual_seed(0)
    bank = MemoryBank(num_images, dim=8)
    v = normalize(torch.randn(4, 2, 8), dim=2).requires_grad_()
    index = torch.randint(num_images, (4, 40))
    scores = bank.scores(v, index)
    expected = torch.stack([v[b] @ bank.rows[index[b]].T for b in range(4)])
    torch.testing.assert_close(scores, expected)
    gradient = torch.randn_like(scores)
    ours, theirs = torch.autograd.grad(scores, v, gradient), torch.autograd.grad(expected, v, gradient)
    torch.testing.assert_close(ours, theirs)


def test_an_image_is_scored_with_its_own_row_and_then_with_others():
    """By products in full precision, whatever the network has."""
    bank, index = MemoryBank(50, dim=8), torch.tensor([4, 0, 7, 4])
    v = normalize(torch.randn(4, 2, 8), dim=2)
    with torch.autocast("cpu", torch.bfloat16):
        scores = bank.own_and_others(v, index, 30, seed=5)
    rows = torch.cat([index[:, None], bank.negatives(index, 30, seed=5)], dim=1)
    torch.testing.assert_close(scores, torch.einsum("bqd,bnd->bqn", v, bank.rows[rows]))


def test_first_rows_are_features_only_where_the_settings_say_so():
    """Of a network in training mode, as a batch's own statistics ask for, whose running ones stay as they are."""
    method = nn.BatchNorm1d(4, affine=False).eval()
    batches = [(torch.tensor([2, 0]), torch.randn(2, 4)), (torch.tensor([1, 3]), torch.randn(2, 4))]

    def embed_all(embed: Any) -> Any:
        return ((index, embed(x)) for index, x in batches)

    found = list(BankSettings(bank_init="features").first_rows(method, method, embed_all))
    for (index, rows), (known, x) in zip(found, batches, strict=True):
        assert index is known
        torch.testing.assert_close(rows, nn.BatchNorm1d(4, affine=False)(x))
    assert method.running_mean is not None
    assert not method.running_mean.any()
    assert list(BankSettings().first_rows(method, method, embed_all)) == []


def test_a_bank_is_scored_whole_where_that_moves_less_memory():
    """The crossings measured on CPU: rows per negative, of N = 4,096 at 128 dimensions, at which both take as long."""
    for batch, queries, crossing in ((16, 1, 25), (64, 1, 70), (16, 2, 20), (64, 2, 40), (128, 2, 38)):
        shape = (batch, queries, 128)
        assert dense_is_cheaper(4096 * crossing // 2, shape, 4096)
        assert not dense_is_cheaper(4096 * crossing * 2, shape, 4096)


def test_bank_update_is_an_average_of_unit_length():
    torch.manual_seed(1)
    bank = MemoryBank(6, dim=4, momentum=0.5)
    before = bank.rows.clone()
    torch.testing.assert_close(before.norm(dim=1), torch.ones(6))
    v = normalize(torch.randn(2, 4), dim=1)
    bank.update(torch.tensor([4, 1]), v)
    expected = before.clone()
    for row, image in ((0, 4), (1, 1)):
        mixed = 0.5 * before[image] + 0.5 * v[row]
        expected[image] = mixed / mixed.norm()
    torch.testing.assert_close(bank.rows, expected)


def test_a_bank_is_filled_batch_by_batch():
    bank = MemoryBank(5, dim=4)
    features = torch.randn(5, 4)
    bank.fill((index, features[index]) for index in (torch.tensor([3, 0, 4]), torch.tensor([1, 2])))
    torch.testing.assert_close(bank.rows, features / features.norm(dim=1, keepdim=True))


def test_a_bank_starts_alike_however_it_is_cut():
    torch.manual_seed(3)
    whole = MemoryBank(40_000, dim=4)
    torch.manual_seed(3)
    longer = MemoryBank(50_000, dim=4)
    torch.testing.assert_close(whole.rows, longer.rows[:40_000], rtol=0, atol=0)


def test_negatives_are_uniform_and_never_the_image_itself():
    bank = MemoryBank(11, dim=2)
    index = torch.arange(11)
    drawn = bank.negatives(index, 20_000, seed=5)
    assert not (drawn == index[:, None]).any()
    for image in range(11):
        counts = torch.bincount(drawn[image], minlength=11)[torch.arange(11) != image].double()
        chi_square = ((counts - 2000) ** 2 / 2000).sum().item()  # 9 degrees of freedom: 33.7 has p = 1e-4
        assert chi_square < 33.7, image


def test_a_step_draws_what_it_draws_after_manual_seed():
    drawn = []
    for seeded in (torch.manual_seed, seed_torch):
        seeded(7)
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)


def test_positional_numbers_depend_on_seed_and_key_alone():
    keys = torch.tensor([7, 3, 9])
    drawn = uniform_integers(1, keys, 6, 100)
    torch.testing.assert_close(drawn[1:2], uniform_integers(1, torch.tensor([3]), 6, 100))
    torch.testing.assert_close(drawn[:, :2], uniform_integers(1, keys, 2, 100))
    assert not torch.equal(drawn, uniform_integers(2, keys, 6, 100))
    assert len({mix(a, b) for a in range(50) for b in range(50)}) == 2500


def bound_on_mean_distance(size: int) -> float:
    """With the entries at each place spread as evenly over nine symbols as can be, agreeing pairs are fewest."""
    per_symbol = [size // 9 + (symbol < size % 9) for symbol in range(9)]
    return 9 * (1 - sum(math.comb(n, 2) for n in per_symbol) / math.comb(size, 2))


@pytest.mark.parametrize(
    ("size", "floor", "mean", "minimum"),
    [
        (1000, 2, 6.35, 2),
        (95, 3, 8.08, 4),  # printed 3: no set found with this mean has a pair that close
        (85, 4, 8.07, 4),
        (71, 5, 8.07, 5),
        (35, 6, 8.13, 6),
        (10, 7, 8.57, 7),
        (7, 8, 8.95, 8),
    ],
)
def test_the_papers_other_sets_can_be_made(size: int, floor: int, mean: float, minimum: int):
    """Noroozi & Favaro, Table 4, which cuts off after two digits."""
    chosen = permutation_set(size, least_distance=floor, mean=mean)
    assert len({tuple(row) for row in chosen}) == size
    measured, least = hamming_distances(chosen)
    assert measured == pytest.approx(mean, abs=0.011)
    assert least == minimum


def test_the_papers_third_set_cannot_be_made():
    """Printed with 1,000 permutations and a mean of 3.99: there are too few so near to each other."""
    with pytest.raises(
        UserError, match=r"1,000 permutations come to a mean distance of 5\.4\d, not 3\.99; ask for that"
    ):
        permutation_set(1000, mean=3.99)


def test_sets_that_cannot_be_are_refused():
    with pytest.raises(
        UserError, match="only 9 permutations of 9 tiles are found of which any two differ in 9 places or more"
    ):
        permutation_set(10, least_distance=9)
    with pytest.raises(UserError, match=r"200 permutations come to a mean distance of 4\.\d\d, not 3; ask for that"):
        permutation_set(200, mean=3.0)


@pytest.mark.parametrize(("size", "mean", "minimum"), [(100, 8.08, 2), (1000, 8.008, 2)])
def test_permutation_sets_attain_the_bound(size: int, mean: float, minimum: int):
    began = time.process_time()
    chosen = permutation_set(size)
    assert time.process_time() - began < 5
    assert len({tuple(row) for row in chosen}) == size
    assert all(sorted(row) == list(range(9)) for row in chosen.tolist())
    measured_mean, measured_minimum = hamming_distances(chosen)
    assert measured_mean == pytest.approx(mean, abs=0.001)
    assert measured_mean == pytest.approx(bound_on_mean_distance(size), abs=0.001)
    assert measured_minimum == minimum
