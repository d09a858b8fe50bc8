"""The per-layer protocols of AlexNet: sizes, pools, views, heads and rates of the linear ones, and what the non-linear
ones train anew, each against a formula, float64 or torchvision by itself."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn
from torchvision.transforms import v2

from benchmark.backbones.alexnet import CAFFENET, DEEPCLUSTER, ROTNET, AlexNet, AlexNetwork
from benchmark.backbones.resnet import ResNet
from benchmark.core.errors import UserError
from benchmark.core.optimisation import SGD, Epochs, InverseRoot
from benchmark.data.datasets import open_dataset
from benchmark.data.labels import Classes
from benchmark.data.loader import Views
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.inputs import BGR, InputSpec, Sobel
from benchmark.recipe.scales import Scale
from benchmark.toyland import build_world
from benchmark.transfers import find_transfers
from benchmark.transfers.contract import Context
from benchmark.transfers.features import BilinearGrid, Tap, tapped
from benchmark.transfers.linear import Heads, LinearTransfer, _Run
from benchmark.transfers.linear_alexnet import CARON_TAPS, ZHANG_TAPS
from benchmark.transfers.metrics import over_crops
from benchmark.transfers.nonlinear_alexnet import CONVOLUTIONS, POOL5, Above, Networks, RetrainedTransfer, Retraining
from benchmark.transfers.preprocessing import (
    Preprocessing,
    centre_place_and_flip,
    squash_and_centre,
    squash_and_place_ten,
    squash_place_and_flip,
    ten_crops,
)
from benchmark.transfers.training import build_optimizer

TRANSFERS = find_transfers()
IMAGENET, PLACES = 1_281_167, 2_448_873
SMALL = InputSpec(64)
PIXELS = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)  # of which no two crops are alike


def linear(name: str) -> LinearTransfer:
    transfer = TRANSFERS[name]
    assert isinstance(transfer, LinearTransfer)
    return transfer


def retraining(name: str) -> Retraining:
    transfer = TRANSFERS[name]
    assert isinstance(transfer, RetrainedTransfer)
    return transfer.values["paper"]


def small(architecture: AlexNet = ROTNET, spec: InputSpec = SMALL) -> AlexNetwork:
    torch.manual_seed(0)
    network = replace(architecture, width=0.0625).build(spec).eval()
    assert isinstance(network, AlexNetwork)
    return network


# Taps


@pytest.mark.parametrize(
    ("taps", "architecture", "spec"),
    [(ZHANG_TAPS, CAFFENET, InputSpec(227, BGR())), (CARON_TAPS, DEEPCLUSTER, InputSpec(224, Sobel()))],
    ids=["zhang", "caron"],
)
def test_the_papers_networks_give_the_papers_numbers(taps: tuple[Tap, ...], architecture: AlexNet, spec: InputSpec):
    with torch.device("meta"):
        network, x = architecture.build(spec), torch.zeros(1, spec.channels, spec.size, spec.size)
    found = {name: tuple(y.shape[1:]) for name, y in tapped(network, taps, x).items()}
    cells = dict(zip(CONVOLUTIONS, (10, 6, 5, 5, 6), strict=True))
    channels = dict(zip(CONVOLUTIONS, (96, 256, 384, 384, 256), strict=True))
    assert found == {name: (channels[name], cells[name], cells[name]) for name in CONVOLUTIONS}
    assert [math.prod(shape) for shape in found.values()] == [9600, 9216, 9600, 9600, 9216]


def test_denser_maps_give_as_many_numbers():
    """Jigsaw's network has conv1 at a stride of 2."""
    with torch.device("meta"):
        network, x = replace(CAFFENET, stride=2, units=()).build(InputSpec(227)), torch.zeros(1, 3, 227, 227)
    for taps in (ZHANG_TAPS, CARON_TAPS):
        assert [y[0].numel() for y in tapped(network, taps, x).values()] == [9600, 9216, 9600, 9600, 9216]


@pytest.mark.parametrize("taps", [ZHANG_TAPS, CARON_TAPS], ids=["zhang", "caron"])
def test_small_images_get_cells_of_as_many_pixels(taps: tuple[Tap, ...]):
    found = tapped(small(), taps, torch.randn(1, 3, 64, 64))
    assert [y.shape[-1] for y in found.values()] == [3, 2, 1, 1, 1]


def resized_by_hand(x: np.ndarray, cells: int) -> np.ndarray:
    """(H, H) float64 -> (cells, cells), by scipy: a tent that falls to nothing where the next cell is, then a reading
    between the four numbers around each place. Beyond the border lies what is on it."""
    apart = (len(x) - 1) / (cells - 1)
    tent = apart - np.abs(np.arange(-int(apart), int(apart) + 1))
    for axis in (0, 1):
        x = ndimage.convolve1d(x, tent / tent.sum(), axis=axis, mode="nearest")
    places = np.linspace(0, len(x) - 1, cells)
    return ndimage.map_coordinates(x, np.meshgrid(places, places, indexing="ij"), order=1, mode="nearest")


def averaged_by_hand(x: np.ndarray, kernel: int, stride: int, padding: int, cells: int) -> np.ndarray:
    """What the padding adds are zeros that count."""
    x = np.pad(x, padding)
    corners = [stride * k for k in range(cells)]
    return np.array([[x[i : i + kernel, j : j + kernel].sum() / kernel**2 for j in corners] for i in corners])


@pytest.mark.parametrize(("tap", "side"), [*zip(ZHANG_TAPS, (55, 27, 13, 13, 13), strict=True)])
def test_zhangs_maps_are_resized_bilinearly(tap: Tap, side: int):
    assert isinstance(tap.pooling, BilinearGrid)
    x = torch.randn(1, 1, side, side, dtype=torch.float64)
    expected = resized_by_hand(x[0, 0].numpy(), tap.pooling.cells)
    np.testing.assert_allclose(tap.pooling(x)[0, 0], expected, atol=1e-12)


@pytest.mark.parametrize("side", [109, 55, 14, 7, 3, 2])
def test_no_number_of_a_map_is_left_out_of_its_resizing(side: int):
    """Nor counted for more than it is: of a map of ones all cells are ones. A small map's single cell is its mean."""
    pool = BilinearGrid(55, 10)
    x = torch.randn(2, 3, side, side, dtype=torch.float64, requires_grad=True)
    y = pool(x)
    y.sum().backward()
    assert x.grad is not None
    assert (x.grad > 0).all()
    torch.testing.assert_close(pool(torch.ones_like(x)), torch.ones_like(y))
    if y.shape[-1] == 1:
        torch.testing.assert_close(y, x.mean(dim=(2, 3), keepdim=True))


POOLS = ((55, 6, 6, 3, 10), (27, 4, 4, 0, 6), (13, 3, 3, 1, 5), (13, 3, 3, 1, 5), (13, 2, 2, 0, 6))  # eval_linear.py


@pytest.mark.parametrize(("tap", "pool"), [*zip(CARON_TAPS, POOLS, strict=True)])
def test_deepclusters_maps_are_averaged(tap: Tap, pool: tuple[int, int, int, int, int]):
    side, kernel, stride, padding, cells = pool
    x = torch.randn(1, 1, side, side, dtype=torch.float64)
    assert tap.pooling
    expected = averaged_by_hand(x[0, 0].numpy(), kernel, stride, padding, cells)
    np.testing.assert_allclose(tap.pooling(x)[0, 0], expected, atol=1e-12)


# Views


def places(view: Preprocessing, square: np.ndarray, side: int, draws: int) -> set[tuple[int, int, bool]]:
    """Where in `square` each of the drawn crops lies: (row, column, mirrored)."""
    found = set()
    for _ in range(draws):
        crops = view(Image.fromarray(PIXELS))["image"]
        for crop in (crops if crops.ndim == 4 else crops[None]).permute(0, 2, 3, 1).numpy():
            where = [
                (int(y), int(x), mirrored)
                for mirrored, upright in ((False, crop), (True, crop[:, ::-1]))
                for y, x in np.argwhere((square == upright[0, 0]).all(axis=2))
                if np.array_equal(square[y : y + side, x : x + side], upright)
            ]
            assert len(where) == 1
            found.add(where[0])
    return found


def test_caffes_crops_lie_in_a_squashed_square():
    torch.manual_seed(0)
    square = np.asarray(Image.fromarray(PIXELS).resize((256, 256), Image.Resampling.BILINEAR))
    found = places(squash_place_and_flip(227), square, 227, 12)
    assert len(found) > 8
    assert {mirrored for *_, mirrored in found} == {True, False}
    assert places(squash_and_centre(227), square, 227, 1) <= {(y, x, False) for y in (14, 15) for x in (14, 15)}
    ten = places(squash_and_place_ten(227), square, 227, 1)
    assert len(ten) > 8
    assert {mirrored for *_, mirrored in ten} == {False}
    assert squash_and_centre(64)(Image.fromarray(PIXELS))["image"].shape == (3, 64, 64)


@pytest.mark.parametrize("name", ["supervised_alexnet", "supervised_places", "cc_jigsaw_pp"])
def test_caffes_recipes_train_on_such_crops(name: str):
    recipe = find_recipes()[name]
    torch.manual_seed(0)
    square = np.asarray(Image.fromarray(PIXELS).resize((256, 256), Image.Resampling.BILINEAR))
    view = Preprocessing(name, lambda image: recipe.method.views(image, recipe.input)["image"])
    found = places(view, square, 227, 12)
    assert len(found) > 8
    assert {mirrored for *_, mirrored in found} == {True, False}


@pytest.mark.parametrize("scale", ["paper", "photos", "desk", "smoke"])
@pytest.mark.parametrize(
    ("name", "training", "test"),
    [
        ("linear_imagenet_zhang", "squash-place-flip", "squash-centre"),
        ("linear_places205_zhang", "squash-place-flip", "squash-centre"),
        ("linear_imagenet_gidaris", "place-flip", "centre"),
        ("linear_places205_gidaris", "place-flip", "centre"),
        ("linear_imagenet_caron", "centre-place-flip", "ten-crops"),
        ("linear_places205_caron", "centre-place-flip", "ten-crops"),
        ("nonlinear_imagenet_noroozi", "squash-place-flip", "squash-place-ten"),
        ("nonlinear_imagenet_gidaris", "place-flip", "centre"),
    ],
)
def test_each_protocol_has_the_views_of_its_paper(name: str, training: str, test: str, scale: Scale):
    values = TRANSFERS[name].values[scale]  # type: ignore[attr-defined]
    assert (values.augment(64).name, values.test_view(64).name) == (f"{training}-64", f"{test}-64")


def test_deepcluster_trains_on_the_central_square_and_tests_on_ten_crops_of_all():
    torch.manual_seed(0)
    short = Image.fromarray(PIXELS).resize((341, 256), Image.Resampling.BILINEAR)
    left = round((341 - 256) / 2)
    found = places(centre_place_and_flip(224), np.asarray(short), 224, 12)
    assert len(found) > 8
    assert {mirrored for *_, mirrored in found} == {True, False}
    assert all(left <= x <= left + 32 for _, x, _ in found)
    expected = torch.stack([v2.functional.pil_to_tensor(crop) for crop in v2.TenCrop(224)(short)])
    crops = ten_crops(224)(Image.fromarray(PIXELS))["image"]
    assert torch.equal(crops, expected)
    assert torch.equal(crops[3], torch.from_numpy(np.array(short)[32:, 117:]).permute(2, 0, 1))  # the last corner
    assert torch.equal(crops[5:9], crops[[1, 0, 3, 2]].flip(-1))  # the corners of the mirrored image


def test_softmax_is_averaged_over_crops():
    weight = torch.randn(3 * 4 * 4, 7, dtype=torch.float64)
    images = torch.randn(5, 10, 3, 4, 4, dtype=torch.float64)
    found = over_crops(lambda x: torch.stack([x.flatten(1) @ weight, x.flatten(1) @ -weight]), images)
    for sign, scores in ((1, found[0]), (-1, found[1])):
        exponents = np.exp(sign * images.flatten(2).numpy() @ weight.numpy())
        np.testing.assert_allclose(scores, (exponents / exponents.sum(axis=2, keepdims=True)).mean(axis=1))
    one = over_crops(lambda x: x.flatten(1) @ weight, images[:, 0])
    torch.testing.assert_close(one, images[:, 0].flatten(1) @ weight)  # of a single view, the scores as they are


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"), "smoke", datasets=("imagenet",), progress=False)


@pytest.fixture
def context(world: Path, tmp_path: Path) -> Context:
    return Context(world, "smoke", 0, tmp_path, torch.device("cpu"), 0, lambda *_: None)


def test_deepclusters_heads_are_right_where_torchvisions_ten_crops_say_so(context: Context):
    transfer, trunk = linear("linear_imagenet_caron"), small()
    run = _Run(transfer.card, transfer.values["smoke"], trunk, context)
    images = open_dataset(context.data_root, "imagenet", "val")
    labels = torch.as_tensor(images.labelled(Classes).values)
    heads = run._heads(len(images.classes), len(images))
    for parameter in heads.parameters():
        nn.init.normal_(parameter)  # so that classes are far apart, and rounding decides nothing
    found = run._right(heads, Views(images, run.test_view, 0))  # (heads, N)
    resize, crop = v2.Resize(73), v2.TenCrop(64)
    for i, label in enumerate(labels):
        crops = torch.stack([v2.functional.pil_to_tensor(one) for one in crop(resize(images.open(i)))])
        with torch.no_grad():
            maps = tapped(trunk, CARON_TAPS, trunk.input.prepare(crops))
            votes = heads(maps).softmax(dim=-1).mean(dim=1)  # (heads, classes)
        assert torch.equal(found[..., i], votes.argmax(dim=-1) == label)
    assert 0 < found.float().mean() < 0.5


# Heads


def test_zhangs_heads_see_standardised_maps_and_begin_at_zero():
    torch.manual_seed(0)
    probe = linear("linear_imagenet_zhang").values["paper"]
    x = torch.randn(8, 4, 3, 3) * 5 + 2
    heads = Heads({"conv1": x}, 6, probe, seed=0, choosing=1)
    (head,) = cast(nn.ModuleList, heads.linears["conv1"])
    assert isinstance(head, nn.Linear)
    assert not head.weight.any()
    assert not head.bias.any()
    nn.init.normal_(head.weight)
    logits = heads({"conv1": x})[0]
    wide = x.double().numpy()
    mean, variance = (of(wide, axis=(0, 2, 3), keepdims=True) for of in (np.mean, np.var))
    expected = ((wide - mean) / np.sqrt(variance + 1e-5)).reshape(8, -1) @ head.weight.detach().double().numpy().T
    np.testing.assert_allclose(logits.detach(), expected, rtol=1e-4, atol=1e-4)
    running = heads.norms["conv1"]
    numbers = x.numel() // 4
    np.testing.assert_allclose(running.running_mean, 0.1 * mean.ravel(), rtol=1e-5)
    np.testing.assert_allclose(running.running_var, 0.9 + 0.1 * variance.ravel() * numbers / (numbers - 1), rtol=1e-5)


@pytest.mark.parametrize("dataset", ["imagenet", "places205"])
@pytest.mark.parametrize(
    ("who", "norm"), [("zhang", nn.BatchNorm2d), ("gidaris", nn.BatchNorm2d), ("caron", nn.Identity)]
)
def test_deepclusters_heads_alone_see_maps_as_they_are(dataset: str, who: str, norm: type[nn.Module]):
    for probe in linear(f"linear_{dataset}_{who}").values.values():
        heads = Heads({"conv1": torch.zeros(2, 96, 10, 10)}, 50, probe, seed=0, choosing=1)
        assert type(heads.norms["conv1"]) is norm


def test_deepclusters_heads_have_no_norm_and_begin_as_torchs_do():
    probe = linear("linear_imagenet_caron").values["paper"]
    heads = Heads({"conv1": torch.zeros(2, 96, 10, 10)}, 50, probe, seed=0, choosing=1)
    assert isinstance(heads.norms["conv1"], nn.Identity)
    (head,) = cast(nn.ModuleList, heads.linears["conv1"])
    torch.manual_seed(1)
    for ours, theirs in zip(head.parameters(), nn.Linear(9600, 50).parameters(), strict=True):
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.01 if ours.ndim > 1 else 0.4)
        assert 0 < ours.abs().max().item() <= 1 / math.sqrt(9600)


# Rates


def rates(name: str, images: int, steps: tuple[int, ...]) -> list[float]:
    transfer = TRANSFERS[name]
    values = transfer.values["paper"]  # type: ignore[attr-defined]
    optimizer = values.optimizer if isinstance(values, Retraining) else values.optimizers[0]
    return [optimizer.lr * values.course.factor(step, images) for step in steps]


@pytest.mark.parametrize(("name", "images"), [("linear_imagenet_zhang", IMAGENET), ("linear_places205_zhang", PLACES)])
def test_zhangs_rates_at_every_milestone(name: str, images: int):
    probe = linear(name).values["paper"]
    steps = (0, 39_999, 40_000, 79_999, 80_000, 119_999, 120_000, 139_999)
    assert rates(name, images, steps) == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
    assert (probe.course.steps_total(images), probe.course.batch(images)) == (140_000, 256)
    (optimizer,) = probe.optimizers
    assert (optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.9, False, 5e-4)
    assert (probe.held_out, probe.views, probe.track_every) == (0, None, None)


@pytest.mark.parametrize(
    ("name", "images", "epoch"), [("linear_imagenet_caron", IMAGENET, 5004), ("linear_places205_caron", PLACES, 9565)]
)
def test_deepclusters_rate_falls_as_the_released_code_lets_it(name: str, images: int, epoch: int):
    probe = linear(name).values["paper"]
    (optimizer,) = probe.optimizers
    steps = (0, 1, epoch, 90 * epoch - 1)
    assert rates(name, images, steps) == pytest.approx(
        [0.01 / math.sqrt(1 + 0.01 * 1e-7 * t) for t in steps], rel=1e-12
    )
    assert rates(name, images, steps)[-1] < 0.01 * 0.9999
    assert InverseRoot(0.5).factor(6, 100, 10) == 0.5  # 1 / sqrt(1 + 3)
    assert (probe.course.steps_total(images), probe.course.batch(images)) == (90 * epoch, 256)
    assert (optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.9, False, 1e-7)
    assert (probe.held_out, probe.views, probe.track_every) == (0, None, Epochs(1))


def test_rotnets_protocol_is_the_same_on_places():
    ours, theirs = (linear(f"linear_{name}_gidaris").values for name in ("places205", "imagenet"))
    assert ours == theirs
    epoch = PLACES // 192
    steps = tuple(epoch * epochs for epochs in (4.99, 5, 15, 25, 34.99))
    found = rates("linear_places205_gidaris", PLACES, tuple(int(step) for step in steps))
    assert found == pytest.approx([1e-2, 2e-3, 4e-4, 8e-5, 8e-5])


def test_the_nonlinear_rates_at_every_milestone():
    steps = (0, 99_999, 100_000, 199_999, 200_000, 299_999, 300_000, 349_999)
    expected = [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5]
    assert rates("nonlinear_imagenet_noroozi", IMAGENET, steps) == pytest.approx(expected)
    noroozi, gidaris = (retraining(f"nonlinear_imagenet_{name}") for name in ("noroozi", "gidaris"))
    assert (noroozi.course.steps_total(IMAGENET), noroozi.course.batch(IMAGENET)) == (350_000, 256)
    optimizer = SGD(lr=0.01, momentum=0.9, weight_decay=5e-4, decays="weights", bias_rate=2)
    assert noroozi.optimizer == optimizer
    epochs = tuple(6672 * epoch + late for epoch in (10, 20, 30) for late in (-1, 0))
    expected = [1e-2, 2e-3, 2e-3, 4e-4, 4e-4, 8e-5]
    assert rates("nonlinear_imagenet_gidaris", IMAGENET, epochs) == pytest.approx(expected)
    assert (gidaris.course.steps_total(IMAGENET), gidaris.course.batch(IMAGENET)) == (40 * 6672, 192)
    assert gidaris.optimizer == SGD(lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)


def test_caffes_biases_have_twice_the_rate_and_no_decay():
    torch.manual_seed(0)
    (values,) = linear("linear_imagenet_zhang").values["paper"].optimizers
    model = nn.Linear(3, 2).double()
    optimizer = build_optimizer([(model.parameters(), values)])
    weight, bias = (p.detach().clone() for p in model.parameters())
    speed = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for _ in range(3):
        gradients = torch.randn_like(weight), torch.randn_like(bias)
        model.weight.grad, model.bias.grad = (gradient.clone() for gradient in gradients)
        optimizer.step()
        speed = [0.9 * v + g for v, g in zip(speed, (gradients[0] + 5e-4 * weight, gradients[1]), strict=True)]
        weight, bias = weight - 0.01 * speed[0], bias - 0.02 * speed[1]
    torch.testing.assert_close(model.weight.detach(), weight)
    torch.testing.assert_close(model.bias.detach(), bias)


# What is trained anew


TRANSFERRED = replace(CAFFENET, units=())  # as networks of tiles and patches are exported: they have no fc6


@pytest.mark.parametrize("architecture", [ROTNET, CAFFENET, TRANSFERRED], ids=["rotnet", "caffenet", "up to conv5"])
def test_above_every_layer_stands_the_rest_of_the_network(architecture: AlexNet):
    """With the network's own weights, what is trained above a layer gives the network's own conv5."""
    trunk = small(architecture)
    networks = Networks(trunk, retraining("nonlinear_imagenet_noroozi"), 5, seed=0).eval()
    maps = trunk.forward_stages(torch.randn(2, 3, 64, 64))
    for place, layer in enumerate(CONVOLUTIONS):
        convolutions = networks.above[layer].convolutions
        own = [trunk.layers[name] for name in CONVOLUTIONS[place + 1 :]]
        assert len(convolutions) == len(own) == 4 - place
        assert all(not torch.equal(a, b) for a, b in zip(weights(convolutions), weights(own), strict=True)), "anew"
        convolutions.load_state_dict(copy.deepcopy(nn.Sequential(*own)).state_dict())
        torch.testing.assert_close(convolutions(maps[layer]), maps["conv5"])
        assert all(parameter.requires_grad for parameter in networks.above[layer].parameters())


def weights(layers: object) -> list[Tensor]:
    modules = nn.ModuleList(layers).modules()  # type: ignore[arg-type]
    return [module.weight for module in modules if isinstance(module, nn.Conv2d)]


def test_what_is_begun_anew_follows_from_the_seed_and_moves_no_other_draw():
    trunk, values = small(), retraining("nonlinear_imagenet_noroozi")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (Networks(trunk, values, 5, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[key], again[key]) for key in first)
    last = "classifier.6.weight"
    assert not torch.equal(first[f"above.conv5.{last}"], other[f"above.conv5.{last}"])
    assert not torch.equal(first[f"above.conv5.{last}"], first[f"above.conv4.{last}"])


@pytest.mark.parametrize("side", [13, 3, 1])
def test_pool5_is_the_networks_own_on_the_papers_maps_and_has_a_cell_on_small_ones(side: int):
    x = torch.randn(2, 4, side, side)
    assert torch.equal(POOL5(x), F.max_pool2d(x, 3, 2) if side > 1 else x)


@pytest.mark.parametrize(
    ("width", "inputs"), [(0.25, (256 // 4, 1024, 1024)), (0.0625, (256 // 16, 256, 256))], ids=["desk", "smoke"]
)
def test_the_layers_on_top_begin_as_their_papers_say(width: float, inputs: tuple[int, int, int]):
    trunk = replace(ROTNET, width=width).build(SMALL).eval()
    assert isinstance(trunk, AlexNetwork)
    noroozi, gidaris = (
        [
            module
            for module in Networks(trunk, retraining(f"nonlinear_imagenet_{name}"), 500, 0).above["conv4"].modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
        ]
        for name in ("noroozi", "gidaris")
    )
    for layer, std, paper, found, bias in zip(
        noroozi[-3:], (0.005, 0.005, 0.01), (9216, 4096, 4096), inputs, (1, 1, 0), strict=True
    ):
        assert layer.weight.shape[1] == found
        assert layer.weight.std().item() == pytest.approx(std * math.sqrt(paper / found), rel=0.03)
        assert layer.bias is not None
        assert bool((layer.bias == bias).all())
    assert [type(layer) for layer in gidaris] == [nn.Conv2d, nn.Linear, nn.Linear, nn.Linear]
    for layer in gidaris:
        outputs = layer.weight.shape[0] * (9 if isinstance(layer, nn.Conv2d) else 1)
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / outputs), rel=0.05)


def kinds(layers: nn.Module) -> str:
    """The name of each layer, in order; a star where a layer with weights has no bias."""
    leaves = [one for one in layers.modules() if not isinstance(one, nn.Sequential | Above)]
    return " ".join(type(one).__name__ + "*" * (getattr(one, "bias", one) is None) for one in leaves)


def test_the_layers_on_top_stand_in_their_papers_order():
    """RotNet's have BatchNorm and no biases where its shift follows, CaffeNet's dropout."""
    trunk = small()
    noroozi, gidaris = (
        {layer: kinds(above) for layer, above in Networks(trunk, retraining(name), 5, 0).above.items()}
        for name in ("nonlinear_imagenet_noroozi", "nonlinear_imagenet_gidaris")
    )
    fully = "Linear* BatchNorm1d ReLU Linear* BatchNorm1d ReLU Linear"
    assert gidaris == {"conv4": f"Conv2d BatchNorm2d ReLU {fully}", "conv5": fully}
    assert list(noroozi) == [*CONVOLUTIONS]
    assert noroozi["conv5"] == "Linear ReLU Dropout Linear ReLU Dropout Linear"


def test_the_nonlinear_networks_learn_each_by_its_own_loss():
    trunk = small()
    networks = Networks(trunk, retraining("nonlinear_imagenet_noroozi"), 5, seed=0).eval()
    labels = torch.tensor([0, 4, 2])
    with torch.no_grad():
        maps = trunk.forward_stages(torch.randn(3, 3, 64, 64))
    networks.loss(maps, labels).backward()
    for layer, above in networks.above.items():
        alone = F.cross_entropy(above(maps[layer]), labels)
        parameters = list(above.parameters())
        for ours, theirs in zip(parameters, torch.autograd.grad(alone, parameters), strict=True):
            torch.testing.assert_close(ours.grad, theirs)


OF_ALEXNETS = [name for name, transfer in TRANSFERS.items() if "AlexNet" in transfer.card.takes]


@pytest.mark.parametrize("name", OF_ALEXNETS)
def test_other_networks_are_refused_by_the_card(name: str):
    card = TRANSFERS[name].card
    assert card.refusal("AlexNet", ()) == ""
    assert f"{name} is made for the stages of AlexNet" in card.refusal("ResNet", ())


@pytest.mark.parametrize("name", [name for name in OF_ALEXNETS if "imagenet" in name])
def test_a_network_without_the_layers_is_told_where_nobody_read_the_card(name: str, context: Context):
    resnet = ResNet(width=0.0625).build(InputSpec(32)).eval()
    with pytest.raises(UserError, match=r"takes AlexNets apart; a ResidualNetwork is none|there is no stage conv2"):
        TRANSFERS[name].run(resnet, context)
