"""SupCon against its formulas, SimCLR's loss and its paper's numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import RECIPES, Processes

from benchmark.core import distributed
from benchmark.data.batch import Batch
from benchmark.engine.train import build_method
from benchmark.recipe import LARS, InputSpec
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.pools import Given
from benchmark.views.crops import cropped, flipped
from recipes.simclr import nt_xent
from recipes.supcon import SupCon, sup_con

PAPER = find_recipes()["supcon"]
TAU, INPUTS, DIM = 0.1, 5, 4
LABELS = np.array([0, 1, 0, 2, 1, 0, 3, 0, 1, 0, 1, 2])  # of each view; the 3 has no positive, the 2s are on two halves


def drawn(rank: int = 0, processes: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """This process's share of what a linear layer takes, and of the labels; and the layer's weight."""
    rng = np.random.default_rng(0)
    x, weight, share = rng.normal(size=(len(LABELS), INPUTS)), rng.normal(size=(INPUTS, DIM)), len(LABELS) // processes
    mine = slice(rank * share, (rank + 1) * share)
    return x[mine], LABELS[mine], weight


def by_hand(x: np.ndarray, labels: np.ndarray, weight: np.ndarray, where: str) -> tuple[float, np.ndarray]:
    """Equations 2 and 3 view by view, and the gradient worked out on paper: with S the softmax over A(i) and T the
    uniform distribution over P(i), or for L_in the softmax over P(i), the loss of view i falls with its similarities by
    S - T."""
    z = x @ weight
    length = np.linalg.norm(z, axis=1, keepdims=True)
    u, M = z / length, len(z)
    loss, G = 0.0, np.zeros((M, M))
    for i in range(M):
        e = {a: math.exp(float(u[i] @ u[a]) / TAU) for a in range(M) if a != i}
        P = [p for p in e if labels[p] == labels[i]]
        if not P:
            continue
        q = {a: e[a] / sum(e.values()) for a in e}
        if where == "out":
            loss -= sum(math.log(q[p]) for p in P) / len(P) / M
            T = {p: 1 / len(P) for p in P}
        else:
            loss -= math.log(sum(q[p] for p in P) / len(P)) / M
            T = {p: e[p] / sum(e[p] for p in P) for p in P}
        for a in e:
            G[i, a] = (q[a] - T.get(a, 0.0)) / M
    du = (G + G.T) @ u / TAU
    dz = (du - (du * u).sum(axis=1, keepdims=True) * u) / length
    return loss, x.T @ dz


def loss_and_gradient(processes: int, where: str) -> tuple[float, np.ndarray]:
    x, labels, weight = (torch.from_numpy(one) for one in drawn(distributed.rank(), processes))
    weight.requires_grad_(True)
    loss = sup_con(x @ weight, labels, TAU, where)
    loss.backward()
    assert weight.grad is not None
    return float(distributed.mean_over_processes(loss.detach())), distributed.mean_over_processes(weight.grad).numpy()


@pytest.mark.parametrize("where", ["out", "in"])
@pytest.mark.parametrize("processes", [1, 2])
def test_loss_and_gradient_are_those_of_the_formulas(processes: int, where: str, alone: Processes, pair: Processes):
    loss, gradient = by_hand(*drawn(), where)
    for outcome in (alone if processes == 1 else pair).run(loss_and_gradient, processes, where):
        assert outcome.error is None
        assert outcome.value[0] == pytest.approx(loss, rel=1e-12)
        np.testing.assert_allclose(outcome.value[1], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("where", ["out", "in"])
def test_where_every_image_is_a_class_it_is_simclr(where: str):
    x, _, weight = (torch.from_numpy(one) for one in drawn())
    weight.requires_grad_(True)
    unique = torch.arange(6).repeat(2)
    ours, theirs = sup_con(x @ weight, unique, TAU, where), nt_xent(x @ weight, TAU)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, weight)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_views_without_a_positive_are_no_loss_and_no_nan():
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    for where in ("out", "in"):
        loss = sup_con(z, torch.arange(4), TAU, where)
        (gradient,) = torch.autograd.grad(loss, z)
        assert (float(loss.detach()), float(gradient.abs().max())) == pytest.approx((0, 0), abs=1e-12)


def test_the_method_takes_the_labels_of_the_images_of_both_views():
    recipe = replace(RECIPES["supcon"], input=replace(RECIPES["supcon"].input))  # whose `prepare` no other test has
    method = build_method(recipe, Given(4, 2)).double()
    views = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    prepare = method.backbone.input.prepare
    object.__setattr__(method.backbone.input, "prepare", lambda images: prepare(images).double())
    batch = Batch({"x_i": views[0], "x_j": views[1]}, torch.arange(4), seed=0, labels=torch.tensor([0, 1, 0, 1]))
    z = method.embed(batch)
    loss, _ = by_hand(z.detach().numpy(), np.array([0, 1, 0, 1] * 2), np.eye(z.shape[1]), "out")
    assert float(method.loss(batch).detach()) == pytest.approx(recipe.method.tau * loss, rel=1e-9)


def test_values_are_those_of_the_released_run():
    assert PAPER.data.labels
    assert PAPER.optimizers == {"main": LARS(lr=9.6, weight_decay=1e-3, decays="weights")}
    assert PAPER.optimizers["main"].lr == pytest.approx(0.4 * PAPER.batch_size / 256)
    g = build_method(PAPER, Given(4, 2)).g
    h = torch.rand(3, g.in_features)
    assert [name for name, _ in g.named_parameters()] == ["weight"]  # one layer, without bias
    torch.testing.assert_close(g(10 * h), g(h))  # of what has unit length


def test_views_are_crops_changed_by_two_of_autoaugments_operations():
    whole, spec = SupCon(crop_area=(1.0, 1.0)), InputSpec(16)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    pixels = torch.from_numpy(np.asarray(picture)).permute(2, 0, 1)
    torch.manual_seed(0)
    views = [view for _ in range(100) for view in whole.views(picture, spec).values()]
    as_it_was = [bool((view == pixels).all() or (view == pixels.flip(2)).all()) for view in views]
    assert 0.05 < np.mean(as_it_was) < 0.35  # both operations left out, or of no effect
    white = Image.new("RGB", (16, 16), (255, 255, 255))
    corners = torch.stack([whole.view(white, spec)[:, 0, 0] for _ in range(100)])
    assert 0 < (corners == 128).all(1).float().mean() < 0.5  # grey where a shear or turn shows no image


def test_without_autoaugment_views_are_crops_and_their_mirror_images():
    plain, spec = SupCon(autoaugment=False), InputSpec(16)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    for seed in range(10):
        torch.manual_seed(seed)
        view = plain.view(picture, spec)
        torch.manual_seed(seed)
        crop = flipped(cropped(picture, 16, plain.crop_area))
        assert np.array_equal(view.permute(1, 2, 0), np.asarray(crop))
