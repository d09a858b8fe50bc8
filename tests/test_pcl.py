"""PCL against its formulas, a plain k-means, and MoCo."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shares import numbers_of
from small_runs import Processes
from test_moco import (
    DIM,
    IMAGES,
    TAU,
    K,
    M,
    features,
    info_nce_by_hand,
    on_pixels,
    pixels,
    share_of,
    through_unit,
    unit,
)
from torch import Tensor

from benchmark.blocks.clustering import kmeans
from benchmark.core.draws import mix
from benchmark.core.streams import Stream
from benchmark.data.batch import Batch
from benchmark.engine.players import build_players
from benchmark.engine.train import build_method, train_step
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.inputs import InputSpec
from benchmark.recipe.pools import Given
from recipes.moco import MoCo
from recipes.pcl import PCL, PCLV2, candidates, concentration

PAPER = find_recipes()
SETTINGS = PCL(K=K, m=M, tau=TAU, dim=DIM, r=2, k_m=(5, 7), warmup_epochs=1, starts=3)


def linear(settings: Any) -> tuple[Any, Any]:
    recipe = on_pixels(settings)
    method: Any = build_method(recipe, Given(IMAGES))
    for head in (method.head, method.head_k):
        head[0].bias.requires_grad_(False).zero_()
    W_k = method.head_k[0].weight
    W_k += torch.linspace(-0.1, 0.1, W_k.numel()).view_as(W_k)
    return recipe, method


# --- the loss, by hand ------------------------------------------------------------------------------------------------


def proto_nce_by_hand(
    q: np.ndarray, s: np.ndarray, c: np.ndarray, phi: np.ndarray, counts: np.ndarray
) -> tuple[float, np.ndarray]:
    """Query by query, and the derivative: with P the softmax over the prototypes that count, dL/dq is the sum over
    them of P c / phi, less c_s / phi_s."""
    loss, dq = 0.0, np.zeros_like(q)
    for i in range(len(q)):
        e = {j: math.exp(float(q[i] @ c[j]) / phi[j]) for j in np.flatnonzero(counts)}
        total = sum(e.values())
        loss -= math.log(e[s[i]] / total) / len(q)
        dq[i] = (sum(e[j] / total * c[j] / phi[j] for j in e) - c[s[i]] / phi[s[i]]) / len(q)
    return loss, dq


def step_and_model() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with numbers_of(torch.float64):
        recipe, method = linear(SETTINGS)
        rng, views = np.random.default_rng(0), pixels(0)
        W, x = method.head[0].weight.detach().numpy().copy(), features(views["x_q"])
        q, k = unit(x @ W.T), unit(features(views["x_k"]) @ method.head_k[0].weight.numpy().T)
        loss, dq = info_nce_by_hand(q, [np.stack([own, *method.queue.keys.numpy()]) for own in k], TAU)
        for m, one in enumerate(method.clusterings):
            s, c = rng.integers(3, size=IMAGES), unit(rng.normal(size=one.c.shape))
            phi = rng.uniform(0.1, 0.4, len(c))
            for buffer, value in zip((one.s, one.c, one.phi), (s, c, phi), strict=True):
                buffer.copy_(torch.from_numpy(value))
            counts = candidates(torch.from_numpy(s), len(c), SETTINGS.r, mix(0, Stream.PROTOTYPES, m)).numpy()
            assert set(s) < set(np.flatnonzero(counts))
            term, d = proto_nce_by_hand(q, s, c, phi, counts)
            loss, dq = loss + term / 2, dq + d / 2
        batch = share_of(views, 0).at(seed=0, epoch=1, done=0.0)
        figures = train_step(method, batch, build_players(method, recipe), "fp32")
        found = {"loss": figures["loss/main"].numpy(), "gradient": method.head[0].weight.grad.numpy()}
        return found, {"loss": loss, "gradient": through_unit(dq, x @ W.T).T @ x}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_step_is_the_formulas(processes: int, alone: Processes, pair: Processes):
    for outcome in (alone if processes == 1 else pair).run(step_and_model):
        assert outcome.error is None, outcome.error
        found, wanted = outcome.value
        for name, value in wanted.items():
            assert np.abs(found[name] - value).max() <= 1e-6 * np.abs(value).max(), name


def test_the_batchs_prototypes_count_and_r_others():
    positives, drawn = torch.tensor([3, 3, 0, 9]), torch.zeros(12)
    for seed in range(600):
        counts = candidates(positives, 12, 4, seed)
        assert counts[positives].all()
        assert counts.sum() == 3 + 4
        drawn += counts
    others = drawn[[1, 2, 4, 5, 6, 7, 8, 10, 11]]
    assert (others - 600 * 4 / 9).abs().max() < 60, "each as often as the others: 5 standard deviations"
    assert torch.equal(candidates(positives, 12, 4, 7), candidates(positives.flip(0), 12, 4, 7))
    assert candidates(positives, 12, 9, 0).all()
    assert candidates(positives, 12, 100, 0).all(), "more than there are are all"
    assert candidates(positives, 12, 0, 0).sum() == 3


# --- without clusters -------------------------------------------------------------------------------------------------


def trained(settings: Any, epoch: int) -> tuple[list[float], Tensor]:
    torch.manual_seed(0)
    recipe, method = linear(settings)
    players, losses = build_players(method, recipe), []
    for step in range(3):
        batch = share_of(pixels(step), step).at(seed=step, epoch=epoch, done=0.0)
        losses.append(float(train_step(method, batch, players, "fp32")["loss/main"]))
    return losses, method.head[0].weight.detach().clone()


def test_without_clusters_it_is_moco():
    with numbers_of(torch.float64):
        losses, weight = trained(MoCo(K=K, m=M, tau=TAU, dim=DIM), 1)
        for settings, epoch in ((replace(SETTINGS, k_m=()), 1), (SETTINGS, 0)):
            found, other = trained(settings, epoch)
            assert found == losses
            assert torch.equal(other, weight)
        assert trained(SETTINGS, 1)[0][0] > losses[0], "with clusters it is another"


# --- clusters ---------------------------------------------------------------------------------------------------------


def test_phi_is_the_papers():
    """Two clusters by hand; then many, one of a single image, against NumPy's percentiles."""
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0], [0.0, 1.0], [0.0, 2.0]])
    phi = concentration(x, torch.tensor([0, 0, 1, 1, 1]), torch.tensor([[0.0, 0.0], [0.0, 2.0]]), 10.0, 0.2)
    wide, narrow = 2 / (2 * math.log(12)), 2 / (3 * math.log(13))
    low, high = narrow + 0.1 * (wide - narrow), wide - 0.1 * (wide - narrow)
    assert phi.tolist() == pytest.approx([0.4 * high / (low + high), 0.4 * low / (low + high)])

    rng = np.random.default_rng(0)
    rows, s, centres = rng.normal(size=(400, 3)), rng.integers(1, 20, size=400), rng.normal(size=(20, 3))
    s[7], centres[0] = 0, rows[7]  # alone, and so at its centre
    expected = np.zeros(20)
    for j in range(1, 20):
        of_j = rows[s == j]
        expected[j] = np.linalg.norm(of_j - centres[j], axis=1).sum() / (len(of_j) * math.log(len(of_j) + 10))
    expected[0] = expected.max()
    expected = expected.clip(np.percentile(expected, 10), np.percentile(expected, 90))
    expected *= 0.2 / expected.mean()
    found = concentration(*map(torch.from_numpy, (rows, s, centres)), 10.0, 0.2).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[0] == found.max()


def test_clusters_without_width_have_tau():
    """Where all keys are the same, or each lies alone."""
    same = concentration(torch.ones(6, 3), torch.tensor([0, 0, 0, 1, 1, 1]), torch.ones(2, 3), 10.0, 0.2)
    alone = concentration(torch.eye(3), torch.arange(3), torch.eye(3), 10.0, 0.2)
    for phi in (same, alone):
        assert phi.tolist() == pytest.approx([0.2] * len(phi))


NUMBER = 30


def images_of() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (NUMBER, 3, 2, 2), dtype=torch.uint8, generator=generator)


def embed_all(embed: Callable[[Batch], Tensor], still: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    assert still, "the clusters are of centre crops"
    for index in torch.randperm(NUMBER, generator=torch.Generator().manual_seed(0)).split(10):
        yield index, embed(Batch({"image": images_of()[index]}, index, seed=0))


def clustered() -> list[tuple[np.ndarray, ...]]:
    """s, c and phi of each clustering, and what they should be."""
    with numbers_of(torch.float64):
        torch.manual_seed(0)
        method: Any = build_method(on_pixels(SETTINGS), Given(NUMBER))
        method.head_k[0].weight.neg_()  # so that it is told from the query's encoder
        torch.manual_seed(5)
        method.on_epoch_start(1, embed_all)
        keys = method.f_k(images_of())
        torch.manual_seed(5)
        seeds, found = torch.randint(1 << 31, (2, SETTINGS.starts)).tolist(), []
        for one, k, own in zip(method.clusterings, SETTINGS.k_m, seeds, strict=True):
            tries = [kmeans(keys, k, SETTINGS.iterations, seed) for seed in own]
            s, _ = min(tries, key=lambda each: ((keys - each[1][each[0]]) ** 2).sum())
            centres = torch.stack([keys[s == c].mean(dim=0) for c in range(k)])
            phi = concentration(keys, s, centres, SETTINGS.alpha, SETTINGS.tau)
            wanted = (s, centres / centres.norm(dim=1, keepdim=True), phi)
            found.append(tuple(each.numpy().copy() for each in (one.s, one.c, one.phi, *wanted)))
        return found


def test_prototypes_are_the_centres_of_the_momentum_encoders_keys(alone: Processes, pair: Processes):
    """On both processes, though the first alone has all keys."""
    for outcome in (*alone.run(clustered), *pair.run(clustered)):
        assert outcome.error is None, outcome.error
        for s, c, phi, *wanted in outcome.value:
            assert np.array_equal(s, wanted[0])
            np.testing.assert_allclose(c, wanted[1], rtol=1e-9)
            np.testing.assert_allclose(phi, wanted[2], rtol=1e-9)


def test_warm_up_has_no_clusters():
    method: Any = build_method(on_pixels(SETTINGS), Given(NUMBER))
    method.on_epoch_start(0, lambda embed, still=False: pytest.fail("too early"))
    assert not any(one.s.any() or one.c.any() for one in method.clusterings)


# --- the paper's values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "theirs"), [("pcl", "moco"), ("pcl_v2", "moco_v2")])
def test_it_sees_what_moco_sees_through_the_same_head(ours: str, theirs: str):
    image, spec, views = Image.radial_gradient("L").convert("RGB"), InputSpec(64), []
    for name in (ours, theirs):
        torch.manual_seed(1)
        views.append([PAPER[name].method.views(image, spec) for _ in range(4)])
    assert all(torch.equal(a[key], b[key]) for a, b in zip(*views, strict=True) for key in a)
    assert str(PAPER[ours].method.head(2048)) == str(PAPER[theirs].method.head(2048))


def test_both_have_pcls_own_values():
    for settings in (PAPER["pcl"].method, PAPER["pcl_v2"].method):
        assert (settings.tau, settings.K, settings.r, settings.m, settings.dim) == (0.2, 16_384, 16_384, 0.999, 128)
        assert (settings.k_m, settings.warmup_epochs) == ((25_000, 50_000, 100_000), 20)
        assert (settings.alpha, settings.iterations, settings.starts) == (10, 20, 5)
    assert (PCLV2().jitter, PCLV2().jittered, PCLV2().blurred) == ((0.4, 0.4, 0.4, 0.1), 0.8, 0.5)
    assert PCL().jitter == (0.4, 0.4, 0.4, 0.4)
