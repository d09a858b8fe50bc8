"""The other rows of Deep InfoMax's Tiny ImageNet table, each loss written out in float64: NAT, VAE, AAE, BiGAN."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d
from written_out import BATCH, IMAGES, log_sigmoid, numbers, one_step

from benchmark.backbones.alex64 import Alex64
from benchmark.core.draws import normal, uniform
from benchmark.core.errors import UserError
from benchmark.engine.train import build_method
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.inputs import InputSpec
from benchmark.recipe.pools import Given
from benchmark.recipe.scales import at_scale
from recipes.nat import TargetExchange
from recipes.vae import VAE, decoder_of

RECIPES = find_recipes()
SMALL = {name: at_scale(RECIPES[name], "smoke") for name in ("nat", "vae", "aae", "bigan")}


# --- noise as targets


@pytest.mark.parametrize("epoch", [0, 1, 2, 3])
def test_images_exchange_vectors_in_every_third_epoch_and_lose_their_distance(epoch: int):
    step = one_step(SMALL["nat"], epoch)
    before, after, index = step.before, step.after, step.batch.index
    z = numbers(before.backbone(step.x))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    C = numbers(before.C)[before.P[index]]
    if epoch % 3 == 0:
        C = C[best_by_trying(z, C)]
    assert step.losses["main"] == pytest.approx(((z - C) ** 2).sum() / (2 * BATCH), rel=1e-9)
    assert np.array_equal(numbers(after.C)[after.P[index]], C)
    assert sorted(after.P.tolist()) == list(range(IMAGES))
    rest = np.setdiff1d(np.arange(IMAGES), index)
    assert torch.equal(after.P[rest], before.P[rest])
    assert np.linalg.norm(numbers(after.C), axis=1) == pytest.approx(1)


def best_by_trying(z: np.ndarray, C: np.ndarray) -> list[int]:
    """Which vector each image should have: all 40,320 orders are tried."""
    similarity = z @ C.T
    orders = np.array(list(itertools.permutations(range(len(z)))))
    return orders[similarity[np.arange(len(z)), orders].sum(axis=1).argmax()].tolist()


def test_what_the_last_exchange_was_is_state():
    """So that the log of a resumed run goes on as it would have, in epochs without an exchange too."""
    after = one_step(SMALL["nat"]).after
    share = float((torch.arange(IMAGES) != after.P).sum() / BATCH)
    assert 0 < share == after.scalars()["exchanged"]
    resumed = build_method(SMALL["nat"], Given(IMAGES))
    assert resumed.scalars() == {"exchanged": 0.0}
    resumed.load_state_dict(after.state_dict())
    assert resumed.scalars() == after.scalars()


def test_nats_targets_lie_all_over_the_sphere():
    torch.manual_seed(0)
    method = SMALL["nat"].method.build(Alex64(width=0.0625).build(InputSpec(64)), Given(3000))
    assert isinstance(method, TargetExchange)
    assert abs(numbers(method.C).mean(axis=0)).max() < 0.01
    assert np.linalg.eigvalsh(64 * np.cov(numbers(method.C).T)) == pytest.approx(1, abs=0.35)


# --- autoencoders


def test_the_vae_loses_its_bound():
    """Each KL from scipy's densities, by integration."""
    step = one_step(SMALL["vae"])
    stages = step.before.backbone.forward_stages(step.x)
    mu, log_variance = numbers(stages["y"]), numbers(step.before.log_variance(stages["fc"]))
    z = mu + np.exp(log_variance / 2) * numbers(normal(5, step.batch.index, 64).double())
    made = numbers(step.before.decoder(torch.from_numpy(z)))
    error = ((numbers(step.x) - made) ** 2).reshape(BATCH, -1).sum(axis=1) / 2
    at, weights = np.polynomial.hermite_e.hermegauss(60)
    kl = np.zeros(BATCH)
    for (i, j), mean in np.ndenumerate(mu):
        sigma = np.exp(log_variance[i, j] / 2)
        x = mean + sigma * at
        gaps = stats.norm.logpdf(x, mean, sigma) - stats.norm.logpdf(x)
        kl[i] += (weights * gaps).sum() / weights.sum()
    assert step.losses["main"] == pytest.approx((error + kl).mean(), rel=1e-6)
    wanted = {"reconstruction_error": error.mean(), "kl": kl.mean()}
    assert step.after.scalars() == pytest.approx(wanted, rel=1e-6)
    assert kl.min() > 0.1, "there is something to lose"


def test_the_aae_loses_an_image_and_its_prior():
    step = one_step(SMALL["aae"])
    y = step.before.backbone(step.x)
    error = ((numbers(step.x) - numbers(step.before.decoder(y))) ** 2).mean()
    D = step.before.prior.discriminator
    codes, prior = numbers(D(y)), numbers(D(normal(5, step.batch.index, 64).double()))
    assert step.losses["main"] == pytest.approx(error - 0.001 * log_sigmoid(codes).mean(), rel=1e-6)
    wanted = -log_sigmoid(prior).mean() - log_sigmoid(-codes).mean()
    assert step.losses["discriminator"] == pytest.approx(wanted, rel=1e-6)
    assert [layer.out_features for layer in D if isinstance(layer, nn.Linear)] == [250, 50, 1]


def test_the_decoder_is_written_out_here():
    torch.manual_seed(0)
    encoder = Alex64(width=0.0625).build(InputSpec(64))
    decoder = decoder_of(encoder, (32, 16, 8, 4)).eval()
    shapes = {name: tuple(p.shape) for name, p in decoder.named_parameters() if p.ndim > 1}
    assert list(shapes.values()) == [(512, 64), (32, 16, 4, 4), (16, 8, 4, 4), (8, 4, 4, 4), (4, 3, 4, 4)]
    z = torch.randn(2, 64)
    weights = [p for p in decoder.parameters() if p.ndim > 1]
    x = (z @ weights[0].T / (1 + 1e-5) ** 0.5).relu().view(2, 32, 4, 4)
    for weight in weights[1:-1]:
        x = (conv_transpose2d(x, weight, stride=2, padding=1) / (1 + 1e-5) ** 0.5).relu()
    x = conv_transpose2d(x, weights[-1], decoder[-2].bias, stride=2, padding=1).tanh()
    assert x.shape == (2, 3, 64, 64)
    torch.testing.assert_close(decoder(z), x)


def test_an_image_that_the_decoder_does_not_make_is_told():
    with pytest.raises(UserError, match="3 channels make images of 32 pixels; set others"):
        VAE(channels=(8, 4, 2)).build(Alex64(width=0.0625).build(InputSpec(64)), Given(8))


# --- BiGAN


def test_both_sides_of_the_bigan_lose_what_the_paper_says():
    step = one_step(SMALL["bigan"])
    before = step.before
    z = 2 * uniform(5, step.batch.index, 64).double() - 1
    real, made = numbers(before.D(step.x, before.backbone(step.x))), numbers(before.D(before.G(z), z))
    V = log_sigmoid(real).mean() + log_sigmoid(-made).mean()
    exchanged = -log_sigmoid(-real).mean() - log_sigmoid(made).mean()
    assert step.losses["discriminator"] == pytest.approx(-V, rel=1e-6)
    assert step.losses["main"] == pytest.approx(exchanged, rel=1e-6)
    right = ((real > 0).mean() + (made < 0).mean()) / 2
    assert step.after.scalars() == {"discriminator_accuracy": pytest.approx(right)}


def test_the_code_enters_every_layer_of_the_bigans_discriminator():
    torch.manual_seed(0)
    D = one_step(SMALL["bigan"]).before.D.float().eval()
    assert [tuple(one.weight.shape) for one in D.convolutions] == [
        (16, 3, 5, 5),
        (32, 16, 5, 5),
        (64, 32, 5, 5),
        (128, 64, 5, 5),
    ]
    given, z = torch.randn(2, 3, 64, 64), torch.randn(2, 64)
    x = given
    for convolution, of_code in zip(D.convolutions, D.of_code, strict=True):
        x = conv2d(x, convolution.weight, stride=2, padding=2) + (z @ of_code.weight.T + of_code.bias)[:, :, None, None]
        x = x / (1 + 1e-5) ** 0.5
        x = torch.maximum(x, 0.2 * x)
    assert x.shape == (2, 128, 4, 4)
    torch.testing.assert_close(D(given, z), D.last(x.flatten(1)))


# --- values


# At a quarter of the encoder's width, every critic, decoder and discriminator has a quarter of the paper's counts.
COUNTS = {
    "dim_local": ("units", "prior_units"),
    "dim_local_nce": ("units", "prior_units"),
    "dim_global": ("units", "prior_units"),
    "vae": ("channels",),
    "aae": ("channels", "prior_units"),
    "bigan": ("channels", "discriminator_channels"),
}


@pytest.mark.parametrize("name", COUNTS)
def test_what_is_trained_beside_the_encoder_is_narrowed_as_it_is(name: str):
    paper = RECIPES[name]
    for scale in ("photos", "desk"):
        small = at_scale(paper, scale)
        assert small.backbone.width == 0.25
        for count in COUNTS[name]:
            whole, quarter = (np.array(getattr(one.method, count)) for one in (paper, small))
            assert np.array_equal(4 * quarter, whole), (scale, count)


def test_paper_scale_has_the_published_counts():
    assert RECIPES["aae"].method.prior_units == RECIPES["dim_local"].method.prior_units
    for name in ("vae", "aae", "bigan"):
        assert RECIPES[name].method.channels == (512, 256, 128, 64)
    bigan = RECIPES["bigan"]
    assert bigan.method.discriminator_channels == (64, 128, 256, 512)
    assert {(one.lr, one.betas, one.weight_decay) for one in bigan.optimizers.values()} == {
        (2e-4, (0.5, 0.999), 2.5e-5)
    }
    assert RECIPES["nat"].method.every == 3
