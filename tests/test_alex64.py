"""Deep InfoMax's AlexNet for 64 pixels: sizes by hand from the released configuration, and its stages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import batch_norm, conv2d, linear, max_pool2d

from benchmark.backbones import architectures
from benchmark.backbones.alex64 import Alex64
from benchmark.backbones.weights import load_backbone, save_backbone
from benchmark.core.errors import UserError
from benchmark.recipe.inputs import InputSpec


def normed(inputs: int, outputs: int) -> int:
    """Weights without a bias, BatchNorm's scale and shift."""
    return inputs * outputs + 2 * outputs


def test_the_papers_size_by_hand():
    """alex64x64: 3 x 3 convolutions of 96, 192, 384, 384 and 192 channels, 7 x 7 x 192 into 4,096, 4,096, and 64."""
    with torch.device("meta"):
        network = Alex64().build(InputSpec(64))
    convolutions = [(27, 96), (9 * 96, 192), (9 * 192, 384), (9 * 384, 384), (9 * 384, 192)]
    wanted = sum(normed(*one) for one in (*convolutions, (9408, 4096), (4096, 4096))) + 4096 * 64 + 64
    assert sum(parameter.numel() for parameter in network.parameters()) == wanted == 58_416_160
    stages = network.forward_stages(torch.zeros(2, 3, 64, 64, device="meta"))
    shapes = {name: tuple(x.shape[1:]) for name, x in stages.items()}
    assert shapes == {"conv3": (384, 15, 15), "conv": (192, 7, 7), "fc": (4096,), "y": (64,)}
    assert {name: (one.channels, one.stride) for name, one in network.stages.items()} == {
        "conv3": (384, 4), "conv": (192, 8), "fc": (4096, None), "y": (64, None),
    }  # fmt: skip
    assert (network.output, network.out_channels) == ("y", 64)


def test_what_it_computes_is_written_out_here():
    torch.manual_seed(0)
    network = Alex64(width=0.0625).build(InputSpec(64)).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    values = list(network.state_dict().values())
    given = x = torch.randn(2, 3, 64, 64)
    wanted = {}
    for place in range(7):  # weight, then BatchNorm's scale, shift, mean, variance and count
        weight, scale, shift, mean, variance, _ = values[6 * place : 6 * place + 6]
        x = conv2d(x, weight, padding=1) if place < 5 else linear(x.flatten(1), weight)
        x = batch_norm(x, mean, variance, scale, shift).relu()
        x = max_pool2d(x, 3, 2) if place in (0, 1, 4) else x
        wanted |= {name: x for name, last in (("conv3", 2), ("conv", 4), ("fc", 6)) if last == place}
    wanted["y"] = linear(x, values[42], values[43])
    assert len(values) == 44
    with torch.no_grad():
        found = network.forward_stages(given)
        assert found.keys() == wanted.keys()
        for name, each in wanted.items():
            torch.testing.assert_close(found[name], each)
        assert list(network.forward_stages(given, "conv")) == ["conv3", "conv"]


@pytest.mark.parametrize("width", [1.0, 0.25, 0.0625])
def test_its_width_leaves_the_code_as_it_is(width: float):
    with torch.device("meta"):
        network = Alex64(width=width).build(InputSpec(64))
    channels = [one.channels for one in network.stages.values()]
    assert channels == [384 * width, 192 * width, 4096 * width, 64]


def test_it_is_found_saved_and_loaded(tmp_path: Path):
    assert architectures()["Alex64"] is Alex64
    torch.manual_seed(0)
    network = Alex64(code=5, width=0.0625, over=4).build(InputSpec(32)).eval()
    save_backbone(tmp_path / "b.safetensors", network, {})
    loaded, _ = load_backbone(tmp_path / "b.safetensors")
    x = torch.randn(2, 3, 32, 32)
    assert loaded.architecture == network.architecture
    assert torch.equal(loaded(x), network(x))
    assert loaded(x).shape == (2, 5)


def test_what_cannot_be_built_is_told():
    with pytest.raises(UserError, match="width must be more than 0"):
        Alex64(width=0.0)
    with pytest.raises(UserError, match="code must be at least 1"):
        Alex64(code=0)
    with pytest.raises(UserError, match="three pools leave nothing of 12 pixels"):
        Alex64().build(InputSpec(12))
