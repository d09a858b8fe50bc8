"""Random rescaled against its formulas in float64: spread of channels, rates of layers, k-means, principal
components."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from benchmark.backbones import rescaling
from benchmark.backbones.alexnet import CAFFENET, COLORIZATION, ROTNET, AlexNet
from benchmark.backbones.contract import Backbone
from benchmark.backbones.rescaling import change_rates, rate_corrections
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.split_alexnet import SPLIT_BRAIN
from benchmark.core.errors import UserError
from benchmark.recipe.inputs import BGR, InputSpec
from benchmark.recipe.pools import Given
from recipes.random_rescaled import DataDependent, Initialised

SMALL = replace(CAFFENET, width=1 / 16)
PLAIN = replace(SMALL, response_norm=False)  # in proportion to its input
DENSE = replace(COLORIZATION, normed="none", width=1 / 16)  # fc6 and fc7 are dilated convolutions


def photographs(count: int, size: int, seed: int) -> Tensor:
    """uint8 (count, 3, size, size): noise as smooth as photographs are, colours that go together, light and dark."""
    generator = torch.Generator().manual_seed(seed)
    frequency = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size))
    frequency[0, 0] = 1 / size
    grey, colour = (torch.randn(count, channels, size, size, generator=generator) for channels in (1, 3))
    smooth = torch.fft.irfft2(torch.fft.rfft2(grey + 0.4 * colour) / frequency, s=(size, size))
    smooth *= 50 / smooth.std(dim=(2, 3), keepdim=True)
    return (smooth + 120).clamp(0, 255).to(torch.uint8)


def affine_outputs(network: Backbone, x: Tensor) -> dict[str, Tensor]:
    """Of each stage's convolution or linear layer, module by module."""
    found = {}
    for stage, layers in network.layers.items():
        for layer in layers:
            x = layer(x)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                found[stage] = x.clone()
    return found


def weights_of(network: Backbone) -> list[nn.Parameter]:
    return [p for name, p in network.named_parameters() if name.endswith("weight")]


def rates_by_hand(network: Backbone, x: Tensor, seed: int) -> np.ndarray:
    """sqrt(E ||gradient||² / ||W||²), an image and a layer at a time."""
    generator, squares = torch.Generator().manual_seed(seed), []
    for start in range(0, len(x), rescaling.TOGETHER):
        part = x[start : start + rescaling.TOGETHER]
        shape = affine_outputs(network, part)[network.output].shape
        for image, eta in zip(part, torch.randn(shape, generator=generator, dtype=x.dtype), strict=True):
            z = affine_outputs(network, image[None])[network.output][0]
            gradients = torch.autograd.grad((eta * z).sum(), weights_of(network))
            squares.append([float((g**2).sum()) for g in gradients])
    sizes = np.array([float((W.detach() ** 2).sum()) for W in weights_of(network)])
    return np.sqrt(np.mean(squares, axis=0) / sizes)


def network_of(architecture: AlexNet, size: int = 64) -> Backbone:
    torch.manual_seed(0)
    network = architecture.build(InputSpec(size, BGR())).double().eval()
    for name, p in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(p, std=0.1)
    return network


# Rates


@pytest.mark.parametrize("architecture", [SMALL, DENSE, replace(SMALL, units=())], ids=["caffenet", "dense", "conv5"])
def test_a_layers_rate_is_its_gradient_against_its_weights(architecture: AlexNet):
    network = network_of(architecture)
    x = network.input.prepare(photographs(19, 64, 0)).double()
    wanted = rates_by_hand(network, x, seed=5)
    np.testing.assert_allclose(change_rates(network, x, seed=5), wanted, rtol=1e-9)
    assert (change_rates(network, x, seed=6) != torch.from_numpy(wanted)).all()


def spread(rates: np.ndarray) -> float:
    return rates.max() / rates.min()


def dead() -> Backbone:
    network = network_of(PLAIN)
    nn.init.zeros_(network.layers["conv4"][0].weight)
    return network


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: ROTNET.build(InputSpec(64)), "fold BatchNorm"),
        (lambda: ResNet(width=1 / 16).build(InputSpec(64)), "ResidualNetwork cannot be rescaled: name an AlexNet"),
        (lambda: SPLIT_BRAIN.build(InputSpec(64)), "SplitAlexNetwork cannot be rescaled: name an AlexNet"),
        (dead, "conv1 has weights or gradients of 0"),
    ],
)
def test_what_cannot_be_rescaled_says_why(build, told: str):
    network = build()
    x = network.input.prepare(photographs(4, 64, 0)).to(next(network.parameters()))
    with pytest.raises(UserError, match=told):
        rate_corrections(network, x, seed=0)


# The recipes


def started(images: Tensor, settings: DataDependent, architecture: AlexNet = SMALL, kind=torch.float64) -> Initialised:
    torch.manual_seed(0)
    backbone = architecture.build(InputSpec(images.shape[-1], BGR()))
    method = settings.build(backbone, Given(len(images))).to(kind)
    method.start(backbone.input.prepare(images).to(kind))
    backbone.eval()
    return method


def moments(method: Initialised, images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """stage -> mean and standard deviation of each channel before its ReLU."""
    with torch.no_grad():
        x = method.backbone.input.prepare(images).to(next(method.parameters()))
        flat = {name: z.transpose(0, 1).flatten(1).double() for name, z in affine_outputs(method.backbone, x).items()}
    return {stage: (z.mean(dim=1), z.std(dim=1, unbiased=False)) for stage, z in flat.items()}


@pytest.mark.parametrize("filters", ["kmeans", "pca", "gaussian"])
def test_every_channel_has_its_layers_spread_and_all_layers_one_rate(filters):
    images = photographs(96, 64, 0)
    method = started(images, DataDependent(filters=filters, beta=0.25))
    for mean, std in moments(method, images).values():
        torch.testing.assert_close(std, std.mean().expand_as(std), rtol=1e-6, atol=0)
        torch.testing.assert_close(mean, 0.25 * std, rtol=1e-6, atol=0)
    x = method.backbone.input.prepare(images).double()
    rates = change_rates(method.backbone, x, 99)
    assert spread(change_rates(started_plainly(images).backbone, x, 99).numpy()) > 10
    assert spread(rates.numpy()) < 1.25  # of other η


def started_plainly(images: Tensor) -> Initialised:
    """Caffe's own weights."""
    torch.manual_seed(0)
    return Initialised(DataDependent(), SMALL.build(InputSpec(images.shape[-1], BGR())).double().eval())


@pytest.fixture(scope="module")
def two_thousand_twice() -> tuple[Tensor, Tensor]:
    return photographs(2000, 64, 0), photographs(2000, 64, 1)


@pytest.mark.parametrize("filters", ["kmeans", "pca", "gaussian"])
def test_other_images_are_spread_as_the_images_it_was_started_from(
    filters, two_thousand_twice: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
):
    """Every channel of the convolutions within 5 %, by PCA within 10 %: which filters it finds depends on the CPU, and
    on one a single channel was 7.2 % off. With 6,000 images it was 0.6 %. Channels of fc6 and fc7 have one number an
    image, whose variance 2,000 images estimate too coarsely: their mean error is within 5 %, by PCA within 8 %. With
    8,000 images all of theirs were within 5 % on another CPU, but that takes too long for a test."""
    monkeypatch.setattr("recipes.random_rescaled.SWEEPS", 1)  # layers' rates are another matter, and take all the time
    images, others = two_thousand_twice
    method = started(
        images, DataDependent(filters=filters, patches=5_000), replace(CAFFENET, width=1 / 64), torch.float32
    )
    target = {stage: std.square().mean() for stage, (_, std) in moments(method, images).items()}
    for stage, (_, std) in moments(method, others).items():
        off = std.square() / target[stage] - 1
        if stage.startswith("fc"):
            assert off.square().mean().sqrt() < (0.08 if filters == "pca" else 0.05), stage
        else:
            assert off.abs().max() < (0.1 if filters == "pca" else 0.05), stage


# Where filters come from


def patches(count: int, dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(dim, dim, generator=generator) * torch.linspace(0.2, 3, dim)
    return torch.randn(count, dim, generator=generator).pow(3) @ mixed + 5


def along(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|cosine| of each pair of rows."""
    return np.abs((a * b).sum(axis=1)) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def method_of(**settings) -> Initialised:
    return Initialised(DataDependent(**settings), SMALL.build(InputSpec(64, BGR())))


def test_principal_components_are_those_of_a_singular_value_decomposition():
    x = patches(500, 20)
    found = method_of(filters="pca").found("conv1", x.clone(), torch.empty(8, 20), 0).numpy()
    _, _, directions = np.linalg.svd(x.double().numpy() - x.double().numpy().mean(axis=0))
    assert (along(found, directions[:8]) > 0.9999).all()


def test_centres_are_those_of_scikit_learn():
    """Whitened to as many components as there are channels, at length 1, from the same start."""
    x, k, seed = patches(600, 12), 6, 3
    rows = x.double().numpy() - x.double().numpy().mean(axis=0)
    _, values, directions = np.linalg.svd(rows, full_matrices=False)
    whitening = directions[:k].T * (np.sqrt(len(rows)) / values[:k])
    unit = rows @ whitening
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    start = unit[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:k].numpy()]
    centres = KMeans(k, init=start, n_init=1, max_iter=100, tol=0).fit(unit).cluster_centers_
    found = method_of().found("conv1", x.clone(), torch.empty(k, 12), seed).numpy()
    np.testing.assert_allclose(found, centres @ whitening.T, atol=1e-3 * np.abs(found).max())


def test_outputs_of_principal_components_do_not_vary_together():
    """Of every place of every image, within each group: strides, padding and groups are the layer's own. (Response
    normalisation would make something else of patches once the layer before them has its scale.)"""
    images = photographs(64, 64, 0)
    method = started(images, DataDependent(filters="pca", patches=10**6), PLAIN)
    with torch.no_grad():
        outputs = affine_outputs(method.backbone, method.backbone.input.prepare(images).double())
    for stage, groups in {"conv1": 1, "conv2": 2, "conv3": 1, "conv4": 2, "conv5": 2}.items():
        for z in outputs[stage].transpose(0, 1).flatten(1).chunk(groups):
            together = np.corrcoef(z.numpy())
            np.testing.assert_allclose(together, np.eye(len(z)), atol=5e-3, err_msg=stage)


def test_too_few_images_are_told():
    with pytest.raises(UserError, match=r"conv1: 3 patches .* for 8 channels; set method.images"):
        method_of().found("conv1", patches(3, 20), torch.empty(8, 20), 0)
    with pytest.raises(UserError, match="conv1: a channel gives one number for all images"):
        started(torch.full((4, 3, 64, 64), 9, dtype=torch.uint8), DataDependent(filters="gaussian"))
