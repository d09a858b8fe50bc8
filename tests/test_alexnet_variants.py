"""The papers' AlexNets against what is published of them: layers, parameters, what a cell sees, what probes get."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmark.backbones.alexnet import (
    CAFFENET,
    COLORIZATION,
    CONTEXT_FREE,
    CONTEXT_PREDICTION,
    DEEPCLUSTER,
    ROTNET,
    AlexNet,
)
from benchmark.backbones.contract import Backbone
from benchmark.backbones.split_alexnet import SPLIT_BRAIN
from benchmark.backbones.weights import load_backbone, save_backbone
from benchmark.core.errors import UserError
from benchmark.core.plain import as_plain
from benchmark.recipe import BGR, InputSpec, Lab, Lightness, Sobel
from benchmark.transfers.features import tapped
from benchmark.transfers.linear_alexnet import CARON_TAPS, ZHANG_TAPS

CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5")
VARIANTS = {  # with the input that each is pretrained on
    "rotnet": (ROTNET, InputSpec(224)),
    "deepcluster": (DEEPCLUSTER, InputSpec(224, Sobel())),
    "caffenet": (CAFFENET, InputSpec(227, BGR())),
    "context_prediction": (CONTEXT_PREDICTION, InputSpec(96)),
    "context_free": (CONTEXT_FREE, InputSpec(64, BGR())),
    "colorization": (COLORIZATION, InputSpec(180, Lightness())),
    "split_brain": (SPLIT_BRAIN, InputSpec(180, Lab())),
}
EACH = pytest.mark.parametrize("name", VARIANTS)


def shapes_only(architecture: AlexNet, spec: InputSpec) -> Backbone:
    with torch.device("meta"):
        return architecture.build(spec).eval()


def parameters(architecture: AlexNet, spec: InputSpec) -> int:
    return sum(p.numel() for p in shapes_only(architecture, spec).parameters())


def narrow(name: str, size: int | None = None) -> Backbone:
    architecture, spec = VARIANTS[name]
    torch.manual_seed(0)
    return replace(architecture, width=1 / 16).build(replace(spec, size=size or spec.size)).eval()


# Parameters


def weights(outputs: int, inputs: int, kernel: int = 1) -> int:
    """With a bias each."""
    return outputs * inputs * kernel**2 + outputs


def test_context_predictions_parameters_written_out():
    """BatchNorm has none of its own, and no layer lacks its bias for it."""
    by_hand = weights(96, 3, 11) + weights(256, 96, 5) + weights(384, 256, 3) + weights(384, 384, 3)
    by_hand += weights(256, 384, 3) + weights(4096, 256 * 3 * 3)
    assert parameters(*VARIANTS["context_prediction"]) == by_hand == 13_188_480


def test_context_free_networks_parameters_are_the_papers_27_million():
    """It counts those of the network that learns labels from tiles of 75 px: 27.5 million all told, about 2 million of
    them in fc6, which has 512 units."""
    papers = replace(CONTEXT_FREE, units=(512,), fc6_side=4)
    fc6 = weights(512, 4 * 4 * 256)
    trunk = parameters(papers, InputSpec(75, BGR()))
    assert trunk - parameters(replace(papers, units=()), InputSpec(75, BGR())) == fc6 == 2_097_664
    assert trunk + weights(4096, 9 * 512) + weights(1000, 4096) == pytest.approx(27.5e6, rel=0.005)
    released = parameters(*VARIANTS["context_free"])
    assert released == trunk - fc6 + weights(1024, 3 * 3 * 256)


def test_colorizations_parameters_are_caffenets_but_for_the_input():
    """Its fc6 has CaffeNet's weights, though it is a convolution, and BatchNorm has none of its own."""
    assert parameters(*VARIANTS["colorization"]) == 60_965_224 - weights(1000, 4096) - 96 * 2 * 11**2


def test_split_brains_parameters_written_out():
    halves = [
        weights(48, channels, 11)
        + weights(128, 48, 5)
        + weights(192, 128, 3)
        + weights(192, 192, 3)
        + weights(128, 192, 3)
        + weights(2048, 128, 6)
        + weights(2048, 2048)
        for channels in (1, 2)
    ]
    assert parameters(*VARIANTS["split_brain"]) == sum(halves)


# Maps, and what a cell sees


@pytest.mark.parametrize(
    ("name", "size", "sides", "vectors"),
    [
        ("context_prediction", 96, (24, 12, 6), {"fc6": (4096,)}),
        ("context_free", 64, (27, 13, 6), {"fc6": (1024,)}),
        ("context_free", 75, (33, 16, 8), {"fc6": (1024,)}),
        ("colorization", 180, (45, 23, 12), {"fc6": (4096, 12, 12), "fc7": (4096, 12, 12)}),
        ("split_brain", 180, (45, 23, 12), {"fc6": (4096, 12, 12), "fc7": (4096, 12, 12)}),
    ],
)
def test_maps_have_the_papers_sizes(name: str, size: int, sides: tuple[int, ...], vectors: dict[str, tuple[int, ...]]):
    """12 x 12 are colorization's predictions; 3 x 3 cells of a 64 px tile go into fc6, and 4 x 4 of a 75 px one."""
    architecture, spec = VARIANTS[name]
    x = torch.zeros(2, spec.channels, size, size, device="meta")
    backbone = shapes_only(architecture, replace(spec, size=size))
    found = {name: tuple(y.shape[1:]) for name, y in backbone.forward_stages(x).items()}
    of_each = (*sides, sides[-1], sides[-1])
    maps = {f"conv{i}": (c, n, n) for i, c, n in zip(range(1, 6), (96, 256, 384, 384, 256), of_each, strict=True)}
    assert found == maps | vectors
    assert {stage: one.channels for stage, one in backbone.stages.items()} == {k: v[0] for k, v in found.items()}


def seen_by_one_cell(backbone: Backbone, stage: str, size: int) -> tuple[int, int]:
    """Height and width of the part of an image on which the map's middle cell depends. Pools become averages, since a
    maximum depends on the largest alone; weights become positive, so that nothing cancels and no ReLU cuts off."""
    twin = copy.deepcopy(backbone).double()
    for layer in twin.modules():
        for name, one in list(layer.named_children()):
            if isinstance(one, nn.MaxPool2d):
                setattr(layer, name, nn.AvgPool2d(one.kernel_size, one.stride, one.padding, ceil_mode=one.ceil_mode))
    for p in twin.parameters():
        p.data = p.data.abs()
    x = torch.ones(1, backbone.input.channels, size, size, dtype=torch.float64, requires_grad=True)
    y = twin.forward_stages(x, stage)[stage]
    y[0, :, y.shape[2] // 2, y.shape[3] // 2].sum().backward()
    assert x.grad is not None
    rows, columns = np.nonzero(x.grad[0].abs().sum(dim=0).numpy())
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


@EACH
def test_cells_see_as_much_of_the_image_as_published(name: str):
    """The kernels and pools are Krizhevsky's in all; with half the stride in conv1 a cell sees far less."""
    wanted = (11, 31, 55, 71, 87) if name == "context_free" else (11, 51, 99, 131, 163)
    backbone = narrow(name, 227)
    found = [seen_by_one_cell(backbone, stage, 227) for stage in CONVOLUTIONS]
    assert found == [(side, side) for side in wanted]


def test_colorizations_fc6_sees_what_caffenets_would():
    """355 px, as the fc6 of a CaffeNet without borders: the kernel's cells lie as far apart as pool5's strides."""
    assert seen_by_one_cell(narrow("colorization"), "fc6", 387) == (355, 355)


@EACH
def test_a_stages_stride_is_how_far_its_cells_move(name: str):
    backbone = narrow(name, 227)
    spans = {stage: backbone.stages[stage].stride for stage in CONVOLUTIONS}
    assert list(spans.values()) == ([2, 4, 8, 8, 8] if name == "context_free" else [4, 8, 16, 16, 16])
    x = torch.randn(1, backbone.input.channels, 243, 259)
    for stage, span in spans.items():
        assert span is not None
        here, there = (backbone.forward_stages(x[..., at : at + 243], stage)[stage] for at in (0, span))
        middle = here.shape[-1] // 2
        torch.testing.assert_close(here[:, :, middle, middle + 1], there[:, :, middle, middle])


@pytest.mark.parametrize("half", [0, 1])
def test_split_brains_halves_do_not_see_each_others_channels(half: int):
    backbone = narrow("split_brain", 64)
    x = torch.randn(1, 3, 64, 64, requires_grad=True)
    for stage, y in backbone.forward_stages(x).items():
        (gradient,) = torch.autograd.grad(y.chunk(2, dim=1)[half].sum(), x, retain_graph=True)
        seen = gradient.abs().sum(dim=(0, 2, 3)) > 0
        assert seen.tolist() == [half == 0, half == 1, half == 1], stage


# What they compute


def convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 1, padding: int = 0) -> np.ndarray:
    """x (C, H, W), weight (K, C, k, k)"""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("chwij,kcij->khw", windows, weight) + bias[:, None, None]


def in_two_groups(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, padding: int) -> np.ndarray:
    """The first half of the filters sees the first half of the channels alone, and the second the second."""
    halves = zip(np.split(x, 2), np.split(weight, 2), np.split(bias, 2), strict=True)
    return np.concatenate([convolved(*half, padding=padding) for half in halves])


def pooled_as_caffe_does(x: np.ndarray) -> np.ndarray:
    """The largest of 3 x 3 at every second place. The last window may hang over the edge."""
    cells = [math.ceil((side - 3) / 2) + 1 for side in x.shape[1:]]
    return np.array(
        [
            [[one[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max() for j in range(cells[1])] for i in range(cells[0])]
            for one in x
        ]
    )


def normalised_by_neighbours(x: np.ndarray) -> np.ndarray:
    """Of 5 channels, alpha 1e-4 divided by 5, beta 0.75."""
    y = np.empty_like(x)
    for channel in range(len(x)):
        around = x[max(channel - 2, 0) : channel + 3]
        y[channel] = x[channel] / (1 + 1e-4 / 5 * (around**2).sum(axis=0)) ** 0.75
    return y


def test_caffenet_computes_what_its_definition_says_in_double_precision():
    backbone = narrow("caffenet", 71).double()  # maps of 16, 8 and 4 cells, of which Caffe's pools leave half
    state = {key: value.numpy() for key, value in backbone.state_dict().items()}

    def of(stage: str) -> tuple[np.ndarray, np.ndarray]:
        weight, bias = (value for key, value in state.items() if key.startswith(f"layers.{stage}."))
        return weight, bias

    def relu(y: np.ndarray) -> np.ndarray:
        return np.maximum(y, 0)

    torch.manual_seed(1)
    x = 50 * torch.randn(1, 3, 71, 71, dtype=torch.float64)
    y = {"conv1": relu(convolved(x[0].numpy(), *of("conv1"), stride=4))}
    below = normalised_by_neighbours(pooled_as_caffe_does(y["conv1"]))
    y["conv2"] = relu(in_two_groups(below, *of("conv2"), padding=2))
    below = normalised_by_neighbours(pooled_as_caffe_does(y["conv2"]))
    y["conv3"] = relu(convolved(below, *of("conv3"), padding=1))
    y["conv4"] = relu(in_two_groups(y["conv3"], *of("conv4"), padding=1))
    y["conv5"] = relu(in_two_groups(y["conv4"], *of("conv5"), padding=1))
    weight, bias = of("fc6")
    y["fc6"] = relu(weight @ pooled_as_caffe_does(y["conv5"]).ravel() + bias)
    weight, bias = of("fc7")
    y["fc7"] = relu(weight @ y["fc6"] + bias)
    found = {stage: one[0].detach().numpy() for stage, one in backbone.forward_stages(x).items()}
    assert found.keys() == y.keys()
    assert [y[f"conv{number}"].shape[1] for number in (1, 2, 5)] == [16, 8, 4]
    for stage, one in y.items():
        assert one.std() > 0
        np.testing.assert_allclose(found[stage], one, rtol=1e-11, atol=1e-11, err_msg=stage)


@pytest.mark.parametrize(
    ("name", "normed", "affine"),
    [
        ("rotnet", (*CONVOLUTIONS, "fc6", "fc7"), True),
        ("deepcluster", CONVOLUTIONS, True),
        ("caffenet", (), None),
        ("context_prediction", ("conv3", "conv4", "conv5", "fc6"), False),
        ("context_free", (), None),
        ("colorization", (*CONVOLUTIONS, "fc6", "fc7"), False),
    ],
)
def test_batch_norm_follows_the_layers_that_the_papers_name(name: str, normed: tuple[str, ...], affine: bool | None):
    backbone = shapes_only(*VARIANTS[name])
    norms = {
        key.split(".")[1]: one.affine
        for key, one in backbone.named_modules()
        if isinstance(one, nn.modules.batchnorm._BatchNorm)
    }
    assert norms == dict.fromkeys(normed, affine)
    layers = {k.split(".")[1]: m for k, m in backbone.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert {stage for stage, layer in layers.items() if layer.bias is None} == (
        {"fc6", "fc7"} & {*normed} if affine else set()
    )


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "split_brain"])
def test_response_normalisation_comes_after_the_first_two_pools(name: str):
    modules = shapes_only(*VARIANTS[name]).named_modules()
    with_it = {key for key, one in modules if isinstance(one, nn.LocalResponseNorm)}
    has_it = name in ("caffenet", "context_prediction", "context_free")
    assert with_it == ({"layers.conv2.1", "layers.conv3.1"} if has_it else set())


# Initial weights


def test_context_prediction_starts_as_caffes_xavier():
    """Uniform, of variance 1 / inputs; no bias."""
    torch.manual_seed(0)
    backbone = replace(CONTEXT_PREDICTION, width=0.25).build(InputSpec(96))
    for key, p in backbone.named_parameters():
        if key.endswith("bias"):
            assert not p.any(), key
            continue
        bound = math.sqrt(3 / p[0].numel())
        assert p.std().item() == pytest.approx(math.sqrt(1 / p[0].numel()), rel=0.02), key
        assert bound * 0.99 < p.abs().max() <= bound, key


@pytest.mark.parametrize("name", ["context_free", "colorization"])
def test_full_size_networks_start_with_the_released_deviations(name: str):
    """Though fc6 has fewer inputs than CaffeNet's, from a tile, or is a convolution."""
    architecture, spec = VARIANTS[name]
    torch.manual_seed(0)
    backbone = replace(architecture, units=architecture.units[:1] if name == "context_free" else (64,)).build(spec)
    state = backbone.state_dict()
    weights = {key.split(".")[1]: one for key, one in state.items() if key.endswith("weight")}
    assert weights["fc6"].std().item() == pytest.approx(0.005, rel=0.02)
    for stage in CONVOLUTIONS:
        assert weights[stage].std().item() == pytest.approx(0.01, rel=0.02), stage


# Probes


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ("rotnet", "split_brain")])
def test_every_probe_of_96_to_256_channels_gets_the_published_numbers(name: str):
    """Of every network of CaffeNet's channels, whatever its padding and strides are."""
    architecture, spec = VARIANTS[name]
    backbone = shapes_only(replace(architecture, units=()), replace(spec, size=227))
    x = torch.zeros(1, spec.channels, 227, 227, device="meta")
    for taps in (ZHANG_TAPS, CARON_TAPS):
        assert [y[0].numel() for y in tapped(backbone, taps, x).values()] == [9600, 9216, 9600, 9600, 9216]


@pytest.mark.parametrize(
    ("name", "size", "pools"),
    [
        # Caron et al., as in facebookresearch/deepcluster's eval_linear.py
        ("deepcluster", 224, [(6, 6, 3), (4, 4, 0), (3, 3, 1), (3, 3, 1), (2, 2, 0)]),
        # Goyal et al., ICCV 2019, as in facebookresearch/fair_self_supervision_benchmark: CaffeNet, and Jigsaw's
        # network, which keeps its stride of 2
        ("caffenet", 227, [(19, 4, 0), (12, 3, 0), (9, 1, 0), (9, 1, 0), (8, 1, 0)]),
        ("context_free", 227, [(28, 9, 0), (24, 6, 0), (14, 3, 0), (14, 3, 0), (16, 2, 0)]),
    ],
)
def test_published_pools_give_the_published_numbers(name: str, size: int, pools: list[tuple[int, int, int]]):
    """Kernel, stride and padding fit maps of the authors' sizes alone: conv1's are 55 or 109 cells wide."""
    architecture, spec = VARIANTS[name]
    backbone = shapes_only(replace(architecture, units=()), replace(spec, size=size))
    maps = backbone.forward_stages(torch.zeros(1, spec.channels, size, size, device="meta"))
    numbers = [F.avg_pool2d(y, *pool).numel() for y, pool in zip(maps.values(), pools, strict=True)]
    assert numbers == [9600, 9216, 9600, 9600, 9216]


# As files, and at other sizes; those that were there before are in test_alexnet.py

NEW = pytest.mark.parametrize("name", ["context_prediction", "context_free", "colorization", "split_brain"])


@NEW
def test_a_file_gives_back_the_same_variant(name: str, tmp_path: Path):
    backbone = narrow(name)
    save_backbone(tmp_path / "b", backbone, {})
    again, _ = load_backbone(tmp_path / "b")
    assert again.architecture == backbone.architecture
    x = torch.randn(1, backbone.input.channels, backbone.input.size, backbone.input.size)
    assert torch.equal(again(x), backbone(x))


@NEW
def test_every_stage_is_alive_on_small_images(name: str):
    backbone = narrow(name, 32)
    maps = backbone.forward_stages(torch.randn(2, backbone.input.channels, 32, 32))
    for stage, y in maps.items():
        assert y.shape[:2] == (2, backbone.stages[stage].channels)
        assert y.std() > 0, stage


@pytest.mark.parametrize("name", ["context_prediction", "colorization", "split_brain"])
def test_group_norm_can_stand_in_for_batch_norm(name: str):
    architecture, spec = VARIANTS[name]
    torch.manual_seed(0)
    backbone = replace(architecture, norm="group", width=1 / 16).build(replace(spec, size=64)).train()
    x = torch.randn(4, spec.channels, 64, 64)
    torch.testing.assert_close(backbone(x)[:2], backbone(x[:2]))


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("pool_padding", [0, 1])
def test_fc6_fits_the_pools_at_any_size(ceil: bool, pool_padding: int):
    architecture = replace(CAFFENET, ceil=ceil, pool_padding=pool_padding, units=(16,), width=1 / 16)
    for size in range(64, 97, 4):  # conv1's map grows by one cell
        backbone = shapes_only(architecture, InputSpec(size))
        assert backbone(torch.zeros(1, 3, size, size, device="meta")).shape == (1, 2)


def test_a_network_can_end_at_its_last_map():
    backbone = replace(CAFFENET, units=(), width=1 / 16).build(InputSpec(67))
    assert (backbone.output, backbone.out_channels) == ("conv5", 16)
    assert backbone(torch.randn(2, 3, 67, 67)).shape == (2, 16)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: replace(CAFFENET, pool_padding=2), "pool_padding must be 0 or 1, not 2"),
        (lambda: replace(CAFFENET, stride=0), "stride must be at least 1"),
        (lambda: replace(CAFFENET, units=(8, 8, 8)), "units are those of fc6 and fc7"),
        (lambda: replace(SPLIT_BRAIN, groups=1), "groups must be 2, one for each half"),
        (lambda: replace(SPLIT_BRAIN, units=(4095, 4096)), r"not \[4095\]"),
        (lambda: replace(SPLIT_BRAIN, response_norm=True), "it would look across the halves"),
        (lambda: SPLIT_BRAIN.build(InputSpec(64, Lightness())), "has only one"),
    ],
)
def test_what_makes_no_network_says_why(make, told: str):
    with pytest.raises(UserError, match=told):
        make()


def test_what_was_pretrained_before_keeps_its_identity():
    """Fields that came later are told only where they differ from what there was."""
    before = {"is", "channels", "padding", "groups", "normed", "response_norm", "dropout", "ceil", "start", "width"}
    before |= {"norm", "over"}
    assert {frozenset(as_plain(one)) for one in (ROTNET, DEEPCLUSTER, CAFFENET)} == {frozenset(before)}
    assert as_plain(CONTEXT_FREE).keys() - before == {"stride", "units", "fc6_side"}
