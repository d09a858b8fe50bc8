"""SimCLR against its formula, its paper's numbers and its own many-process self."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import RECIPES, Processes, drawn_images, in_processes, on_cpu, run, run_and_stop
from tiny_methods import Tiny
from torch import Tensor, nn
from torchvision.transforms import v2

from benchmark.backbones.weights import load_backbone, save_backbone
from benchmark.core import distributed
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.engine.players import build_players, kinds_of, optimizer_for
from benchmark.engine.train import build_method
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Recipe
from benchmark.recipe.inputs import InputSpec
from benchmark.recipe.pools import Given
from benchmark.recipe.scales import Scale, at_scale
from recipes.simclr import SimCLR, nt_xent

RESOLVED = find_recipes()
PAPER = RESOLVED["simclr"]
TAU, IMAGES, INPUTS, DIM = 0.1, 6, 5, 4


def paired(rank: int = 0, processes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """What a linear layer takes and its weight. rows: this process's first views, then its second views."""
    rng = np.random.default_rng(0)
    views, weight = rng.normal(size=(2, IMAGES, INPUTS)), rng.normal(size=(INPUTS, DIM))
    share = IMAGES // processes
    return views[:, rank * share : (rank + 1) * share].reshape(-1, INPUTS), weight


def loss_and_gradient_by_hand(x: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray]:
    """Equation 1 and Algorithm 1, view by view, and its derivative worked out on paper: with u = z / |z|, M views and P
    the softmax over the others, dL/du_i = (sum over k of (P_ik + P_ki) u_k - 2 u_j) / (M tau)."""
    z = x @ weight
    length = np.linalg.norm(z, axis=1, keepdims=True)
    u, M = z / length, len(z)
    partner = [(i + M // 2) % M for i in range(M)]
    loss, P = 0.0, np.zeros((M, M))
    for i in range(M):
        others = {k: math.exp(float(u[i] @ u[k]) / TAU) for k in range(M) if k != i}
        loss -= math.log(others[partner[i]] / sum(others.values())) / M
        for k, e in others.items():
            P[i, k] = e / sum(others.values())
    du = ((P + P.T) @ u - 2 * u[partner]) / (M * TAU)
    dz = (du - (du * u).sum(axis=1, keepdims=True) * u) / length
    return loss, x.T @ dz


def loss_and_gradient(processes: int) -> tuple[float, np.ndarray]:
    x, weight = (torch.from_numpy(a) for a in paired(distributed.rank(), processes))
    weight.requires_grad_(True)
    loss = nt_xent(x @ weight, TAU)
    loss.backward()
    assert weight.grad is not None
    return float(distributed.mean_over_processes(loss.detach())), distributed.mean_over_processes(weight.grad).numpy()


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_loss_and_gradient_are_those_of_the_formula(processes: int):
    loss, gradient = loss_and_gradient_by_hand(*paired())
    for outcome in in_processes(processes, loss_and_gradient, processes):
        assert outcome.error is None
        assert outcome.value[0] == pytest.approx(loss, rel=1e-12)
        np.testing.assert_allclose(outcome.value[1], gradient, rtol=1e-9, atol=1e-12)


def on_share(recipe: Recipe, views: dict[str, Tensor], processes: int) -> dict[str, np.ndarray]:
    """Gradients of the whole method in float64, and its running statistics, when `processes` share the images."""
    method = build_method(recipe, Given(IMAGES)).double()
    share = slice(distributed.rank() * (IMAGES // processes), (distributed.rank() + 1) * (IMAGES // processes))
    prepare = method.backbone.input.prepare
    object.__setattr__(method.backbone.input, "prepare", lambda images: prepare(images).double())
    batch = Batch({name: view[share] for name, view in views.items()}, torch.arange(IMAGES)[share], seed=0)
    loss = method.loss(batch)
    loss.backward()
    found = {name: p.grad for name, p in method.named_parameters() if p.grad is not None} | {"loss": loss.detach()}
    found = {name: distributed.mean_over_processes(value) for name, value in found.items()}
    found |= {name: buffer for name, buffer in method.named_buffers() if buffer.is_floating_point()}
    return {name: value.numpy() for name, value in found.items()}


@pytest.fixture(scope="module")
def views() -> dict[str, Tensor]:
    pixels = torch.randint(
        0, 256, (2, IMAGES, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return {"x_i": pixels[0], "x_j": pixels[1]}


def test_two_processes_find_the_gradients_and_statistics_of_one(
    views: dict[str, Tensor], alone: Processes, pair: Processes
):
    recipe = replace(RECIPES["simclr"], backbone=Tiny(over="all"))
    (one,) = alone.run(on_share, recipe, views, 1)
    largest = max(np.abs(value).max() for value in one.value.values())  # a bias before BatchNorm has a gradient of 0
    for outcome in pair.run(on_share, recipe, views, 2):
        assert outcome.error is None, outcome.error
        assert outcome.value.keys() == one.value.keys()
        for name, value in outcome.value.items():
            assert np.abs(value - one.value[name]).max() <= 1e-9 * largest, name


def test_groups_that_would_hold_first_and_second_views_are_refused():
    """24 views are three groups of 8, but two processes with 6 images each would have other ones."""
    method = build_method(replace(RECIPES["simclr"], backbone=Tiny(over=8)), Given(12))
    for images in (16, 12):
        pixels = torch.randint(0, 256, (2, images, 3, 32, 32), dtype=torch.uint8)
        batch = Batch({"x_i": pixels[0], "x_j": pixels[1]}, torch.arange(images), 0)
        if images == 16:
            assert method.loss(batch).isfinite()
            continue
        with pytest.raises(UserError, match=r"groups of 8 .* divisible by 8, not 12; .* or --recipe\.backbone\.over"):
            method.loss(batch)


def test_positives_are_the_two_views_of_one_image(views: dict[str, Tensor]):
    method = build_method(RECIPES["simclr"], Given(IMAGES))
    index = torch.arange(IMAGES)

    def loss(x_j: Tensor) -> float:
        return float(method.loss(Batch({"x_i": views["x_i"], "x_j": x_j}, index, seed=0)).detach())

    assert loss(views["x_i"]) < loss(views["x_i"].roll(1, 0)) - 1  # with equal views a pair's cosine is 1


@pytest.mark.parametrize("decay", [0.1, 0.0])  # 1e-6 would not show
def test_lars_scales_weights_and_leaves_biases_and_norms_alone(decay: float):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    values = replace(PAPER.optimizers["main"], weight_decay=decay)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    module(torch.randn(5, 3)).square().sum().backward()
    for p in module.parameters():
        assert p.grad is not None
        p.grad += 0.5  # a bias before BatchNorm has none of its own
    gradients = {name: p.grad.clone() for name, p in module.named_parameters()}
    optimizer = optimizer_for(values, [*module.parameters()], kinds_of(module))
    optimizer.step()
    for name, p in module.named_parameters():
        w, g = before[name], gradients[name]
        if name == "0.weight":
            g = g + decay * w
            g = 1e-3 * w.norm() / g.norm() * g
        torch.testing.assert_close(p.detach(), w - 4.8 * g)


def test_nothing_but_weights_decays_or_is_adapted_in_the_method():
    method = build_method(replace(RECIPES["simclr"], optimizers=PAPER.optimizers), Given(IMAGES))
    optimizer = build_players(method, replace(RECIPES["simclr"], optimizers=PAPER.optimizers))["main"].optimizer
    decaying = {p for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert {p for p in method.parameters() if p.ndim > 1} == decaying
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 1e-6}


def test_a_stopped_run_with_lars_ends_with_the_same_bits(tmp_path: Path):
    recipe = replace(RECIPES["simclr"], backbone=Tiny(over="all"), optimizers=PAPER.optimizers)
    images = drawn_images(tmp_path / "images")
    whole = run(recipe, images, tmp_path / "whole", on_cpu())
    run_and_stop(recipe, images, tmp_path / "stopped", on_cpu(), 2)
    assert run(recipe, images, tmp_path / "stopped", on_cpu()) == whole


# --- views at paper scale ---------------------------------------------------------------------------------------------

PLAIN = SimCLR(crop_area=(1.0, 1.0), jittered=0.0, grey=0.0, blurred=0.0)


def draws(settings: SimCLR, image: np.ndarray, count: int, side: int = 224) -> Tensor:
    """(2 count, 3, side, side) float: both views of `count` draws."""
    torch.manual_seed(0)
    picture = Image.fromarray(image.astype(np.uint8))
    found = [settings.views(picture, InputSpec(side)) for _ in range(count)]
    return torch.stack([view for views in found for view in (views["x_i"], views["x_j"])]).float()


def flat(*colour: int) -> np.ndarray:
    return np.full((32, 32, 3), colour)


def test_crops_cover_what_the_paper_says_and_turn_half_of_the_time():
    height, width = 240, 320
    places = np.zeros((height, width, 3))
    places[..., 0] = np.linspace(0, 255, width)[None, :]
    places[..., 1] = np.linspace(0, 255, height)[:, None]
    views = draws(replace(PLAIN, crop_area=PAPER.method.crop_area), places, 200, side=96)
    assert views.shape == (400, 3, 96, 96)
    spans = [(float(x.amax() - x.amin()) / 255, float(y.amax() - y.amin()) / 255) for x, y, _ in views]
    areas = [x * y for x, y in spans]
    aspects = [x * width / (y * height) for x, y in spans]
    assert 0.07 < min(areas) < 0.1
    assert max(areas) > 0.8
    assert 0.73 < min(aspects) < 0.8
    assert 1.25 < max(aspects) < 1.36
    turned = sum(float(x[0, -1] < x[0, 0]) for x, _, _ in views)
    assert 160 < turned < 240
    assert (views[0::2] != views[1::2]).flatten(1).any(1).all()  # never the same view twice


def hue_of(views: Tensor) -> list[float]:
    hues = [colorsys.rgb_to_hsv(*(view[:, 0, 0] / 255).tolist())[0] for view in views]
    return [hue - 1 if hue > 0.5 else hue for hue in hues]


TWO_TONES = np.concatenate([flat(100, 100, 100)[:, :16], flat(150, 150, 150)[:, :16]], axis=1)
CHANGES: list[tuple[int, np.ndarray, Callable[[Tensor], Any], float, float]] = [
    (0, flat(100, 100, 100), lambda x: (x[:, 0, 0, 0] / 100).tolist(), 0.2, 1.8),
    (1, TWO_TONES, lambda x: ((x[:, 0, 0, 0] - x[:, 0, 0, -1]).abs() / 50).tolist(), 0.2, 1.8),
    (2, flat(100, 120, 140), lambda x: ((x[:, 2, 0, 0] - x[:, 0, 0, 0]) / 40).tolist(), 0.2, 1.8),
    (3, flat(200, 100, 100), hue_of, -0.2, 0.2),
]


@pytest.mark.parametrize(("which", "image", "measured", "low", "high"), CHANGES)
def test_colours_change_as_far_and_as_often_as_the_paper_says(which, image, measured, low, high):
    alone = tuple(value if number == which else 0.0 for number, value in enumerate(PAPER.method.jitter))
    views = draws(replace(PLAIN, jittered=PAPER.method.jittered, jitter=alone), image, 300, side=16)
    found = np.array(measured(views))
    span, slack = high - low, 0.03
    assert low - slack < found.min() < low + 0.1 * span
    assert high - 0.1 * span < found.max() < high + slack
    untouched = np.isclose(found, (low + high) / 2, atol=1e-6).mean()
    assert 0.15 < untouched < 0.27  # a fifth, and what rounds to it


def test_grey_and_blur_come_as_often_as_the_paper_says(monkeypatch: pytest.MonkeyPatch):
    views = draws(replace(PLAIN, grey=PAPER.method.grey), flat(200, 100, 50), 300, side=16)
    assert 0.15 < (views[:, 0] == views[:, 2]).all(2).all(1).float().mean() < 0.25
    kernels, blur = [], v2.GaussianBlur
    monkeypatch.setattr(v2, "GaussianBlur", lambda kernel, sigma: kernels.append(kernel) or blur(kernel, sigma))
    edge = np.concatenate([flat(0, 0, 0)[:, :16], flat(255, 255, 255)[:, :16]], axis=1)
    blurred = draws(replace(PLAIN, blurred=1.0, blur=PAPER.method.blur), edge, 200, side=32)
    sharp = draws(replace(PLAIN, blurred=PAPER.method.blurred, blur=(2.0, 2.0)), edge, 150, side=32)
    draws(PAPER.method, flat(1, 2, 3), 1)
    assert kernels[0] == 3
    assert kernels[-1] == 23  # a tenth of 224, odd
    # the step is a normal distribution's: its spread is the sigma that was drawn
    steps = (blurred[:, 0, 5, 1:] - blurred[:, 0, 5, :-1]).abs() / 255
    place = torch.arange(31.0)
    middle = (steps * place).sum(1) / steps.sum(1)
    sigma = ((steps * (place - middle[:, None]) ** 2).sum(1) / steps.sum(1)).sqrt()
    assert sigma.max() < 2.1
    unchanged = [(view[0, 5].unique().numel() == 2) for view in sharp]
    assert 0.4 < np.mean(unchanged) < 0.6


# --- what the tables of sections 3 and 4 change


def test_the_whole_head_stays_where_it_is_asked_for(tmp_path: Path):
    method = build_method(RECIPES["simclr_100ep"], Given(4))
    pixels = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    method.loss(Batch({"x_i": pixels[0], "x_j": pixels[1]}, torch.arange(4), seed=0))  # moves BatchNorm's statistics
    x = torch.randn(3, 3, 32, 32)
    left = method.eval().export().eval()
    h = method.backbone(x)
    torch.testing.assert_close(left(x), h)  # what frozen protocols look at
    torch.testing.assert_close(left.forward_stages(x)["z"], method.g(h))  # type: ignore[operator]
    assert [*left.stages][-2:] == ["res5", "z"]
    save_backbone(tmp_path / "left.safetensors", left, {})
    again, _ = load_backbone(tmp_path / "left.safetensors")
    assert torch.equal(again.forward_stages(x)["z"], left.forward_stages(x)["z"])


@pytest.mark.parametrize("scale", ["desk", "photos"])
def test_rows_of_a_table_differ_in_what_they_say_alone(scale: Scale):
    """And below paper scale, in which all have one length, the first is SimCLR with its head kept."""
    whole, kept, without = (
        at_scale(RESOLVED[name], scale) for name in ("simclr", "simclr_100ep", "simclr_100ep_no_jitter")
    )
    own = {"title", "method", "reported"}
    for one in (kept, without):
        assert {f.name for f in fields(one) if getattr(one, f.name) != getattr(whole, f.name)} == own
    settings = vars(whole.method)
    assert vars(kept.method) == settings
    assert vars(without.method) == settings | {"jittered": 0.0}


@pytest.mark.parametrize("method", ["simclr", "moco"])
@pytest.mark.parametrize(("width", "millions"), [("", 24), ("_2x", 94), ("_4x", 375)])
def test_wider_networks_have_as_many_parameters_as_the_papers_print(method: str, width: str, millions: int):
    recipe = RESOLVED[f"{method}{width}"]
    with torch.device("meta"):
        network = recipe.backbone.build(recipe.input)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions


def test_without_jitter_a_colour_stays_what_it_is():
    recipe = RECIPES["simclr_100ep_no_jitter"]
    settings = replace(recipe.method, grey=0.0)  # type: ignore[call-arg]
    torch.manual_seed(0)
    image = Image.new("RGB", (40, 40), (200, 30, 90))
    for _ in range(8):
        view = settings.views(image, InputSpec(32))["x_i"]
        assert torch.equal(view, torch.tensor([200, 30, 90], dtype=torch.uint8)[:, None, None].expand(3, 32, 32))
