"""The protocols' numbers against slow float64 formulas and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, top_k_accuracy_score

from benchmark.transfers.knn import TAU, K, vote
from benchmark.transfers.metrics import area_ap, ranked_within, topk_accuracy


def points(scores: np.ndarray, positive: np.ndarray) -> list[tuple[float, float]]:
    """(recall, precision) at every threshold, by counting."""
    found = []
    for threshold in sorted(set(scores.tolist()), reverse=True):
        taken = [bool(p) for s, p in zip(scores, positive, strict=True) if s >= threshold]
        found.append((sum(taken) / int(positive.sum()), sum(taken) / len(taken)))
    return found


def slow_area(scores: np.ndarray, positive: np.ndarray) -> float:
    total, before, curve = 0.0, 0.0, points(scores, positive)
    for number, (recall, _) in enumerate(curve):
        total += (recall - before) * max(precision for _, precision in curve[number:])
        before = recall
    return 100 * total


def cases(count: int, ties: bool):
    generator = np.random.default_rng(0)
    for _ in range(count):
        n = int(generator.integers(2, 60))
        positive = generator.random(n) < 0.3
        positive[generator.integers(n)] = True
        scores = generator.integers(0, 5, n).astype(float) if ties else generator.standard_normal(n)
        yield scores + positive, positive


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_the_slow_one(ties: bool):
    for scores, positive in cases(200, ties):
        assert area_ap(scores, positive) == pytest.approx(slow_area(scores, positive), abs=1e-9)


@pytest.mark.parametrize("ties", [False, True])
def test_the_envelope_only_adds_to_scikit_learns_area(ties: bool):
    for scores, positive in cases(100, ties):
        assert area_ap(scores, positive) >= 100 * average_precision_score(positive, scores) - 1e-9
    best_first = np.arange(20.0)  # precision never rises again: the envelope is the curve
    assert area_ap(best_first, best_first >= 12) == 100 * average_precision_score(best_first >= 12, best_first) == 100


def test_order_of_equal_scores_does_not_matter():
    positive = np.array([True, False, False, True])
    for order in ([0, 1, 2, 3], [1, 2, 0, 3]):
        assert area_ap(np.zeros(4), positive[order]) == 50.0


def test_average_precision_needs_a_positive():
    with pytest.raises(ValueError, match="positive"):
        area_ap(np.zeros(3), np.zeros(3, dtype=bool))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_topk_is_scikit_learns(k: int):
    scores, labels = torch.randn(300, 9, generator=torch.Generator().manual_seed(k)), torch.arange(300) % 9
    wanted = 100 * top_k_accuracy_score(labels.numpy(), scores.numpy(), k=k)
    assert topk_accuracy(scores, labels, k) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_equal_scores_are_right_only_if_every_order_of_them_is(k: int):
    """Against all orders of the classes, tried one by one."""
    scores = torch.randint(3, (40, 5), generator=torch.Generator().manual_seed(k)).double()
    labels = torch.arange(40) % 5
    in_every_order = [
        all(label in sorted(order, key=lambda c: -row[c])[:k] for order in itertools.permutations(range(5)))
        for row, label in zip(scores.tolist(), labels.tolist(), strict=True)
    ]
    assert 0 < sum(in_every_order) < 40 or k == 5
    assert ranked_within(scores, labels, k).tolist() == in_every_order
    assert topk_accuracy(scores, labels, k) == 100 * sum(in_every_order) / 40


def test_a_constant_classifier_is_never_right():
    labels = torch.arange(10)
    assert topk_accuracy(torch.zeros(10, 10), labels, 1) == 0
    assert topk_accuracy(torch.zeros(10, 10), labels, 5) == 0
    assert topk_accuracy(torch.zeros(10, 10), labels, 10) == 100


@pytest.mark.parametrize("k", [1, 5])
def test_other_names_for_the_classes_change_no_accuracy(k: int):
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.randint(4, (200, 9), generator=generator).float(), torch.arange(200) % 9
    order = torch.randperm(9, generator=generator)
    assert topk_accuracy(scores[:, order], order.argsort()[labels], k) == topk_accuracy(scores, labels, k)


def test_what_is_not_a_number_is_not_right():
    assert not ranked_within(torch.full((4, 3), torch.nan), torch.arange(4) % 3, 1).any()
    assert ranked_within(torch.tensor([[torch.nan, 1.0]]), torch.tensor([1]), 1).tolist() == [False]


def test_a_class_that_nobody_voted_for_is_not_among_the_five():
    """All neighbours are of classes 7 to 9: ten classes, of which seven have no vote."""
    generator = torch.Generator().manual_seed(0)
    queries, database = torch.randn(70, 8, generator=generator), torch.randn(K, 8, generator=generator)
    votes = vote(queries, database, 7 + torch.arange(K) % 3, 10)
    assert topk_accuracy(votes, torch.arange(70) % 7, 5) == 0


@pytest.mark.parametrize("first", [0, 1])
def test_equal_neighbours_vote_wherever_they_stand(first: int):
    """Two classes of 300 images each, all alike, and ten that are nearer."""
    database = torch.cat([torch.tensor([[1.0, 0.0]]).expand(10, 2), torch.tensor([[0.0, 1.0]]).expand(600, 2)])
    labels = torch.cat([torch.full((10,), 2), torch.full((300,), first), torch.full((300,), 1 - first)])
    (found,) = vote(torch.tensor([[2.0, 1.0]]), database, labels, 3).double()
    nearer, alike = (np.exp(c / 5**0.5 / TAU) for c in (2, 1))
    assert found.numpy() == pytest.approx(np.array([190 / 2 * alike, 190 / 2 * alike, 10 * nearer]), rel=1e-5)


def test_votes_are_those_of_brute_force_in_float64():
    generator = torch.Generator().manual_seed(0)
    queries, database = torch.randn(300, 24, generator=generator), torch.randn(900, 24, generator=generator)
    labels = torch.randint(7, (900,), generator=generator)
    ours = vote(queries, database, labels, 7).double()
    q, d = queries.double().numpy(), database.double().numpy()
    q, d = q / np.linalg.norm(q, axis=1, keepdims=True), d / np.linalg.norm(d, axis=1, keepdims=True)
    for row, cosine in zip(ours, q @ d.T, strict=True):
        nearest = np.argsort(-cosine)[:K]
        wanted = [np.exp(cosine[nearest] / TAU)[labels.numpy()[nearest] == c].sum() for c in range(7)]
        assert row.numpy() == pytest.approx(np.array(wanted), rel=1e-4)
    assert (K, TAU) == (200, 0.07)


@pytest.mark.parametrize(("images", "k"), [(0, 1), (3, 0)])
def test_an_accuracy_of_nothing_is_an_error(images: int, k: int):
    with pytest.raises(ValueError, match=f"top-{k} accuracy of {images} images"):
        topk_accuracy(torch.zeros(images, 4), torch.zeros(images, dtype=torch.int64), k)


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_that_is_no_class_is_an_error(label: int):
    with pytest.raises(RuntimeError):
        topk_accuracy(torch.zeros(1, 4), torch.tensor([label]), 1)
