"""Deep InfoMax: its bounds and its adversary written out in float64, and who moves at which step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from shares import numbers_of
from small_runs import TRAINED, drawn_images, on_cpu, run
from torch import nn
from torch.nn.functional import conv2d, max_pool2d
from written_out import BATCH, log_sigmoid, numbers, one_step

from benchmark.backbones.resnet import ResNet
from benchmark.core.draws import normal, uniform
from benchmark.core.errors import UserError
from benchmark.core.optimisation import Steps
from benchmark.engine import train
from benchmark.engine.players import Player
from benchmark.engine.train import build_method
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.inputs import InputSpec
from benchmark.recipe.pools import Given
from benchmark.recipe.scales import at_scale
from recipes.dim import DeepInfoMax, ResidualEmbedding, info_nce_over_cells, jensen_shannon, scores

RECIPES = find_recipes()
SMALL = {name: at_scale(RECIPES[name], "smoke") for name in ("dim_local", "dim_local_nce", "dim_global")}


def jsd(T: np.ndarray) -> float:
    """T (i, j, m): of the code of image i and cell m of image j."""
    own = [log_sigmoid(T[i, i, m]) for i in range(len(T)) for m in range(T.shape[2])]
    other = [
        log_sigmoid(-T[i, j, m]) for i in range(len(T)) for j in range(len(T)) if i != j for m in range(T.shape[2])
    ]
    return float(np.mean(own) + np.mean(other))


def info_nce(T: np.ndarray) -> float:
    found = []
    for i in range(len(T)):
        others = np.exp(np.delete(T[i], i, axis=0) - T.max()).sum()
        for own in T[i, i]:
            found.append(own - T.max() - np.log(np.exp(own - T.max()) + others))
    return float(np.mean(found))


# --- the critics, layer by layer


def normed(x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    """BatchNorm in training, over all but the channels."""
    axes = [0, *range(2, x.ndim)]
    mean, variance = x.mean(axes, keepdim=True), x.var(axes, unbiased=False, keepdim=True)
    scale, shift = (one.view(1, -1, *[1] * (x.ndim - 2)) for one in (norm.weight, norm.bias))
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def residual_embedding(given: ResidualEmbedding, x: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) -> (B, h w, units): 1 x 1 convolutions are matrices, cell by cell."""
    first, norm, _, second = given.residual
    cells = x.flatten(2)  # (B, C, h w)
    inner = normed(first.weight[:, :, 0, 0] @ cells, norm).clamp(min=0)
    outer = second.weight[:, :, 0, 0] @ inner + second.bias[:, None] + given.shortcut.weight[:, :, 0, 0] @ cells
    gap = outer - outer.mean(1, keepdim=True)
    out = (gap / (gap.square().mean(1, keepdim=True) + 1e-5).sqrt()).transpose(1, 2) * given.norm.weight
    return out if given.norm.bias is None else out + given.norm.bias


def local_critic(given: nn.Module, C: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return residual_embedding(given.of_cells, C), residual_embedding(given.of_code, y[:, :, None, None])[:, 0]


def whole_critic(given: nn.Module, C: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Three convolutions with BatchNorm and ReLU, a pool after the last, two fully connected layers with them, one
    without."""
    kernels = [module for module in given.of_image.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    norms = [module for module in given.of_image.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    x = C
    for kernel, norm in zip(kernels[:3], norms[:3], strict=True):
        x = normed(conv2d(x, kernel.weight, padding=1), norm).clamp(min=0)
    x = max_pool2d(x, 3, 2).flatten(1)
    for kernel, norm in zip(kernels[3:5], norms[3:], strict=True):
        x = normed(x @ kernel.weight.T, norm).clamp(min=0)
    last = kernels[5]
    vector = x @ last.weight.T + last.bias
    return vector[:, None], y @ given.of_code.weight.T + given.of_code.bias


EMBEDDED = {"local": local_critic, "global": whole_critic}


def test_the_critics_sizes_by_hand():
    """At the paper's width: conv3 is 384 x 15 x 15, and y has 64 numbers."""
    found = {}
    for name in SMALL:
        with torch.device("meta"):
            method = build_method(RECIPES[name], Given(8))
        [found[name]] = [sum(p.numel() for p in one.parameters()) for one in method.critics.values()]

    def residual(inputs: int) -> int:
        """conv, BatchNorm, conv with a bias, shortcut, LayerNorm."""
        return inputs * 2048 + 2 * 2048 + 2048 * 2048 + 2048 + inputs * 2048 + 2 * 2048

    local = residual(384) + residual(64)
    convolutions = 9 * 384 * 384 + 2 * 384 + 9 * 384 * 384 + 2 * 384 + 9 * 384 * 192 + 2 * 192
    connected = 7 * 7 * 192 * 4096 + 2 * 4096 + 4096 * 4096 + 2 * 4096 + 4096 * 2048 + 2048
    whole = convolutions + connected + 64 * 2048 + 2048
    assert found == {"dim_local": local, "dim_local_nce": local - 2048, "dim_global": whole}


def test_a_bias_of_the_cells_would_not_train_under_info_nce():
    """Why it is left out: it moves each code's scores by one number."""
    torch.manual_seed(0)
    cells, codes = torch.randn(4, 9, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    gradients = {}
    with numbers_of(torch.float64):
        for bound in (info_nce_over_cells, jensen_shannon):
            [gradients[bound]] = torch.autograd.grad(bound(*scores(cells + bias, codes)), bias)
    assert gradients[info_nce_over_cells].abs().max() < 1e-14
    assert gradients[jensen_shannon].abs().max() > 1e-3


# --- what both sides lose


@pytest.mark.parametrize(
    ("name", "critic", "bound", "gamma"),
    [("dim_local", "local", jsd, 0.1), ("dim_local_nce", "local", info_nce, 0.1), ("dim_global", "global", jsd, 1.0)],
)
def test_the_encoder_loses_what_the_paper_says(name: str, critic: str, bound: Callable, gamma: float):
    step = one_step(SMALL[name])
    stages = step.before.backbone.forward_stages(step.x)
    embedded = EMBEDDED[critic](step.before.critics[critic], stages["conv3"], stages["y"])
    cells, codes = map(numbers, embedded)
    assert cells.shape == (BATCH, 225 if critic == "local" else 1, 32)
    assert codes.shape == (BATCH, 32)
    T = np.array([[cells[j] @ codes[i] for j in range(BATCH)] for i in range(BATCH)])
    logits = numbers(step.before.prior.discriminator(stages["y"].sigmoid()))
    wanted = -bound(T) - gamma * log_sigmoid(logits).mean()
    assert step.losses["main"] == pytest.approx(wanted, rel=1e-9)


def test_both_terms_count_as_they_are_weighted():
    recipe = SMALL["dim_local"]
    both = replace(recipe, method=replace(recipe.method, alpha=0.5, beta=2.0, gamma=0.0))
    step = one_step(both)
    stages = step.before.backbone.forward_stages(step.x)
    found = {}
    for name, one in step.before.critics.items():
        cells, codes = map(numbers, EMBEDDED[name](one, stages["conv3"], stages["y"]))
        found[name] = jsd(np.einsum("iu,jmu->ijm", codes, cells))
    assert step.losses["main"] == pytest.approx(-0.5 * found["global"] - 2 * found["local"], rel=1e-9)


@pytest.mark.parametrize("name", SMALL)
def test_the_adversary_loses_what_the_paper_says(name: str):
    """From the weights before the encoder's step: both losses of a step are."""
    step = one_step(SMALL[name])
    D = step.before.prior.discriminator
    prior = numbers(uniform(5, step.batch.index, 64).double())
    codes = numbers(step.before.backbone.forward_stages(step.x)["y"].sigmoid())
    W, b = (
        [numbers(getattr(layer, what)) for layer in D if isinstance(layer, nn.Linear)] for what in ("weight", "bias")
    )
    assert [len(bias) for bias in b] == [250, 50, 1]

    def discriminated(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits, and their gradients by the input."""
        one = v @ W[0].T + b[0]
        two = np.maximum(one, 0) @ W[1].T + b[1]
        logits = np.maximum(two, 0) @ W[2].T + b[2]
        return logits[:, 0], ((W[2] * (two > 0)) @ W[1] * (one > 0)) @ W[0]

    (of_prior, by_prior), (of_codes, by_codes) = discriminated(prior), discriminated(codes)
    squares = [np.mean((gradient**2).sum(axis=1)) for gradient in (by_prior, by_codes)]
    wanted = -log_sigmoid(of_prior).mean() - log_sigmoid(-of_codes).mean() + sum(squares) / 2
    assert step.losses["discriminator"] == pytest.approx(wanted, rel=1e-6)  # the draws have the digits of float32


def test_draws_are_of_their_distributions_and_of_their_image_alone():
    keys = torch.arange(4000)
    for draw, wanted in ((uniform, stats.uniform), (normal, stats.norm)):
        found = draw(3, keys, 5)
        assert found.shape == (4000, 5)
        assert found.isfinite().all()
        assert stats.kstest(found.flatten().numpy(), wanted.cdf).pvalue > 1e-3
        assert abs(np.corrcoef(found.numpy().T) - np.eye(5)).max() < 0.06
        assert torch.equal(draw(3, keys[[70, 2]], 5), found[[70, 2]])
        assert not torch.equal(draw(4, keys, 5), found)
    edges = uniform(0, keys, 1000)
    assert 0 < edges.min() < edges.max() < 1


def test_critics_start_as_the_identity():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 3, 3)
    embedding = ResidualEmbedding(6, 8, "process")
    shortcut = embedding.shortcut(x)
    assert (shortcut[:, :6] - x).abs().max() < 0.3
    assert shortcut[:, 6:].abs().max() < 0.3
    assert embedding(x).shape == (2, 9, 8)
    assert ResidualEmbedding(8, 6, "process").shortcut.weight.abs().max() < 1  # there is no identity into less


def test_what_nothing_can_be_learned_of_is_told():
    with pytest.raises(UserError, match="alpha and beta both 0"):
        DeepInfoMax(alpha=0.0, beta=0.0, gamma=1.0)
    with pytest.raises(UserError, match=r"the encoder is an Alex64, .* not ResNet"):
        DeepInfoMax(1.0, 0.0, 1.0).build(ResNet(width=0.0625).build(InputSpec(64)), Given(8))


def test_paper_scale_is_the_papers():
    for name in SMALL:
        recipe = RECIPES[name]
        assert (recipe.method.units, recipe.method.prior_units) == (2048, (1000, 200))
        assert {one.lr for one in recipe.optimizers.values()} == {1e-4}
        assert (recipe.batch_size, recipe.input.size, recipe.backbone.width) == (64, 64, 1.0)
    weights = {
        name: (one.method.alpha, one.method.beta, one.method.gamma) for name, one in RECIPES.items() if name in SMALL
    }
    assert weights == {"dim_local": (0, 1, 0.1), "dim_local_nce": (0, 1, 0.1), "dim_global": (1, 0, 1)}


ADVERSARIES = [name for name, recipe in TRAINED.items() if "discriminator" in recipe.optimizers]


@pytest.mark.parametrize("name", ADVERSARIES)
def test_each_players_step_moves_its_own_parameters_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    everyone: dict[str, Player] = {}
    steps: list[tuple[set[str], set[str]]] = []
    build, step = train.build_players, Player.step
    monkeypatch.setattr(train, "build_players", lambda *given: everyone.update(build(*given)) or everyone)

    def watched(player: Player) -> None:
        before = {who: [p.clone() for p in one.parameters] for who, one in everyone.items()}
        step(player)
        moved = {
            who for who, one in everyone.items()
            if any(not torch.equal(p, was) for p, was in zip(one.parameters, before[who], strict=True))
        }  # fmt: skip
        steps.append(({who for who, one in everyone.items() if one is player}, moved))

    monkeypatch.setattr(Player, "step", watched)
    run(replace(TRAINED[name], length=Steps(2)), drawn_images(tmp_path / "images"), tmp_path / "run", on_cpu())
    assert {who for whose, _ in steps for who in whose} == everyone.keys()
    assert all(whose == moved for whose, moved in steps)
