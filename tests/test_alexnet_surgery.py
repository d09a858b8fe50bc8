"""From the AlexNet that is pretrained to the one that transfers: the same function, or a clear refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmark.backbones.alexnet import (
    CAFFENET,
    COLORIZATION,
    CONTEXT_FREE,
    CONTEXT_PREDICTION,
    DEEPCLUSTER,
    ROTNET,
    AlexNet,
)
from benchmark.backbones.alexnet_surgery import carried_over, folded, halves_joined
from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.split_alexnet import SPLIT_BRAIN
from benchmark.backbones.weights import save_backbone
from benchmark.core.errors import UserError
from benchmark.recipe import BGR, InputSpec, Lab, Lightness

WIDTH = 1 / 16
PLAIN = replace(CAFFENET, response_norm=False, width=WIDTH)  # what colorization and split-brain transfer
TRUNK = replace(CAFFENET, units=(), width=WIDTH)  # what jigsaw transfers


def trained(architecture: AlexNet, spec: InputSpec) -> Backbone:
    """In double precision, with statistics, scales and shifts as training might leave them."""
    torch.manual_seed(0)
    backbone = replace(architecture, width=WIDTH).build(spec).double().eval()
    for one in backbone.modules():
        if isinstance(one, nn.modules.batchnorm._BatchNorm):
            assert one.running_mean is not None
            assert one.running_var is not None
            one.running_mean.normal_(std=0.5)
            one.running_var.uniform_(0.2, 3)
            if one.affine:
                nn.init.normal_(one.weight)
                nn.init.normal_(one.bias)
    for name, p in backbone.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(p)
    return backbone


def images(backbone: Backbone, size: int | None = None) -> Tensor:
    side = size or backbone.input.size
    return torch.randn(2, backbone.input.channels, side, side, dtype=torch.float64)


def assert_same_function(ours: Backbone, theirs: Backbone, x: Tensor) -> None:
    found, wanted = ours.forward_stages(x), theirs.forward_stages(x)
    assert list(found) == list(wanted)
    for stage, y in wanted.items():
        assert y.std() > 0, f"{stage} is dead and shows nothing"
        torch.testing.assert_close(found[stage], y, rtol=1e-10, atol=1e-10)


def norms_of(backbone: Backbone) -> list[nn.Module]:
    return [one for one in backbone.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]


# BatchNorm


@pytest.mark.parametrize(
    ("architecture", "spec"),
    [
        (ROTNET, InputSpec(96)),
        (DEEPCLUSTER, InputSpec(96)),
        (CONTEXT_PREDICTION, InputSpec(96)),
        (COLORIZATION, InputSpec(96, Lightness())),
        (CAFFENET, InputSpec(96)),
    ],
    ids=["rotnet", "deepcluster", "context_prediction", "colorization", "caffenet"],
)
def test_a_folded_network_computes_the_same(architecture: AlexNet, spec: InputSpec, tmp_path: Path):
    """Convolutions, groups, linear layers; with and without scale and shift; with and without a bias before."""
    backbone = trained(architecture, spec)
    before = {key: one.clone() for key, one in backbone.state_dict().items()}
    plain = folded(backbone)
    assert norms_of(plain) == []
    assert_same_function(plain, backbone, images(backbone))
    assert plain.architecture.normed == "none"
    save_backbone(tmp_path / "b", plain, {})  # which refuses what its architecture does not build
    with torch.no_grad():
        for p in plain.parameters():
            p.zero_()
    for key, one in backbone.state_dict().items():
        assert torch.equal(one, before[key]), f"{key} was changed by folding, or is shared"


def test_folding_keeps_the_precision():
    backbone = replace(ROTNET, width=WIDTH).build(InputSpec(64)).eval()
    plain = folded(backbone)
    assert {p.dtype for p in plain.parameters()} == {torch.float32}
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(plain(x), backbone(x))
    assert not plain.training


# Strides, padding and tiles


def test_one_trunk_of_the_puzzle_becomes_a_plain_network_of_stride_4():
    cfn = trained(CONTEXT_FREE, InputSpec(64, BGR()))
    plain = carried_over(cfn, TRUNK, InputSpec(227, BGR()))
    assert (plain.architecture, plain.input) == (TRUNK, InputSpec(227, BGR()))
    assert plain.stages["conv5"].stride == 16
    x = images(plain)
    with_2, with_4 = cfn.forward_stages(x, "conv1")["conv1"], plain.forward_stages(x)["conv1"]
    assert torch.equal(with_4, with_2[..., ::2, ::2])
    for key, one in plain.state_dict().items():
        assert torch.equal(one, cfn.state_dict()[key])


def test_the_puzzles_linear_probes_keep_the_stride_of_2():
    cfn = trained(CONTEXT_FREE, InputSpec(64, BGR()))
    plain = carried_over(cfn, replace(TRUNK, stride=2), InputSpec(227, BGR()))
    x = images(plain)
    maps = plain.forward_stages(x)
    assert [y.shape[-1] for y in maps.values()] == [109, 54, 27, 27, 27]
    assert torch.equal(maps["conv5"], cfn.forward_stages(x, "conv5")["conv5"])


def test_one_trunk_of_context_prediction_becomes_caffenet_without_groups():
    trunk = trained(CONTEXT_PREDICTION, InputSpec(96))
    into = replace(TRUNK, groups=1)
    plain = carried_over(folded(trunk), into, InputSpec(227))
    assert norms_of(plain) == []
    x = images(plain)
    padded = torch.nn.functional.pad(x, (5, 5, 5, 5))
    wanted, found = (one.forward_stages(y, "conv5") for one, y in ((trunk, x), (plain, padded)))
    torch.testing.assert_close(found["conv5"], wanted["conv5"], rtol=1e-10, atol=1e-10)


def test_without_padding_every_cell_inside_computes_the_same():
    """Pools without their padding look 1 cell further: after conv1 that is 4 pixels, after conv2 8, and conv1's own
    padding is 5, so that all 17 in all lie between the two networks' cells."""
    dense = trained(COLORIZATION, InputSpec(275, Lightness()))
    plain = carried_over(folded(dense), replace(PLAIN, units=()), InputSpec(260, Lightness()))
    x = images(dense)
    wanted = dense.forward_stages(x, "conv5")["conv5"]
    found = plain.forward_stages(x[..., 15:, 15:])["conv5"]  # 15 more are the width of 2 cells
    inside = slice(4, 11)  # 81 pixels from each border
    beyond = slice(inside.start + 2, inside.stop + 2)
    torch.testing.assert_close(found[..., inside, inside], wanted[..., beyond, beyond], rtol=1e-10, atol=1e-10)


def test_a_map_of_fc7_says_in_the_middle_what_the_vector_says():
    """conv5 is 13 cells wide. pool5 gives the vector's fc6 every second window; the kernel of fc6 at the middle cell of
    the map has steps of 2."""
    dense = trained(COLORIZATION, InputSpec(195, Lightness()))
    vectors = carried_over(dense, replace(COLORIZATION, fully_convolutional=False, width=WIDTH))
    x = images(dense)
    maps, found = dense.forward_stages(x), vectors.forward_stages(x)
    assert maps["conv5"].shape[-1] == 13
    for stage in ("fc6", "fc7"):
        assert found[stage].std() > 0
        torch.testing.assert_close(found[stage], maps[stage][:, :, 6, 6], rtol=1e-10, atol=1e-10)


def test_colorization_becomes_caffenet_with_all_its_layers():
    dense = trained(COLORIZATION, InputSpec(180, Lightness()))
    plain = carried_over(folded(dense), PLAIN, InputSpec(227, Lightness()))
    assert plain(images(plain)).shape == (2, 256)
    fc6 = {key: one for key, one in plain.state_dict().items() if key.startswith("layers.fc6") and "weight" in key}
    assert [tuple(one.shape) for one in fc6.values()] == [(256, 16 * 6 * 6)]


# Halves


def test_joined_halves_compute_the_same(tmp_path: Path):
    split = trained(SPLIT_BRAIN, InputSpec(96, Lab()))
    whole = halves_joined(split)
    assert_same_function(whole, split, images(split))
    assert_same_function(folded(whole), split, images(split))
    save_backbone(tmp_path / "b", folded(whole), {})
    plain = carried_over(folded(whole), PLAIN, InputSpec(227, Lab()))
    assert plain.stages.keys() == {"conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"}
    state = plain.state_dict()
    third = state["layers.conv3.1.weight"]
    assert not third[:12, 8:].any()
    assert not third[12:, :8].any()
    assert third[:12, :8].all()
    assert third[12:, 8:].all()


# What starts anew


def test_stages_after_the_last_one_carried_over_start_anew():
    cfn = trained(CONTEXT_FREE, InputSpec(64, BGR()))
    into, spec = replace(CAFFENET, width=WIDTH), InputSpec(227, BGR())
    torch.manual_seed(3)
    plain = carried_over(cfn, into, spec, upto="conv3")
    torch.manual_seed(3)
    fresh = into.build(spec).double().state_dict()
    for key, one in plain.state_dict().items():
        is_old = key.startswith(("layers.conv1", "layers.conv2", "layers.conv3"))
        assert torch.equal(one, (cfn.state_dict() if is_old else fresh)[key]), key


def test_what_is_carried_over_whole_draws_no_random_numbers():
    """A run that was stopped before its export and goes on must come to the same file."""
    cfn, split = trained(CONTEXT_FREE, InputSpec(64, BGR())), trained(SPLIT_BRAIN, InputSpec(64, Lab()))
    before = torch.get_rng_state()
    carried_over(cfn, TRUNK, InputSpec(227, BGR()))
    folded(halves_joined(split))
    assert torch.equal(torch.get_rng_state(), before)


# Refusals


def small(architecture: AlexNet) -> Backbone:
    return replace(architecture, width=WIDTH).build(InputSpec(64))


@pytest.mark.parametrize(
    ("cut", "told"),
    [
        (lambda: folded(small(replace(ROTNET, norm="group"))), 'set backbone.norm to "batch"'),
        (lambda: folded(ResNet(width=WIDTH).build(InputSpec(64))), "ResidualNetwork is not an AlexNet"),
        (lambda: folded(small(SPLIT_BRAIN)), "join the two halves first"),
        (lambda: halves_joined(small(CAFFENET)), "AlexNetwork has no halves to join"),
        (lambda: carried_over(small(COLORIZATION), replace(PLAIN, units=())), "conv1: .* fold BatchNorm"),
        (lambda: carried_over(small(CONTEXT_FREE), PLAIN), "response normalisation"),
        (lambda: carried_over(small(CONTEXT_FREE), replace(CAFFENET, width=WIDTH)), "fc7 is not in both networks"),
        (
            lambda: carried_over(small(CONTEXT_FREE), replace(CAFFENET, units=(1024,), width=WIDTH), InputSpec(227)),
            r"fc6: its layer\.weight is \(64, 144\), and \(64, 576\) is needed",
        ),
        (
            lambda: carried_over(small(CONTEXT_FREE), replace(CAFFENET, groups=1, units=(), width=WIDTH)),
            r"conv2: its layer\.weight is \(16, 3, 5, 5\), and \(16, 6, 5, 5\) is needed",
        ),
        (
            lambda: carried_over(small(CAFFENET), TRUNK, InputSpec(64, Lightness())),
            r"conv1: its layer\.weight is \(6, 3, 11, 11\), and \(6, 1, 11, 11\) is needed",
        ),
        (lambda: carried_over(small(CAFFENET), TRUNK, upto="conv6"), "conv6 is not in both networks"),
    ],
)
def test_what_cannot_be_done_says_why(cut, told: str):
    with pytest.raises(UserError, match=told):
        cut()
