"""ResNeXts against torchvision's, and the size that MoCo prints."""

from __future__ import annotations

import pytest
import torch
import torchvision

from benchmark.backbones.resnext import ResNeXt
from benchmark.core.errors import UserError
from benchmark.recipe import InputSpec
from benchmark.recipe.catalogue import find_recipes


def parameters(architecture: ResNeXt) -> int:
    return sum(p.numel() for p in architecture.build(InputSpec(64)).parameters())


def test_it_computes_what_torchvisions_does():
    reference = torchvision.models.resnext50_32x4d(num_classes=2).eval()
    network = ResNeXt(group_width=4).build(InputSpec(64)).eval()
    wanted = {key: value for key, value in reference.state_dict().items() if not key.startswith("fc.")}
    network.load_state_dict(wanted)
    reference.fc = torch.nn.Identity()  # type: ignore[assignment]
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(x), reference(x))


def test_mocos_has_the_parameters_that_it_prints():
    moco = find_recipes()["moco_resnext50"].backbone
    assert isinstance(moco, ResNeXt)
    assert round(parameters(moco) / 1e6) == 46


def test_a_narrow_one_keeps_a_channel_in_each_group():
    for width, channels in ((1.0, 8), (0.25, 2), (0.0625, 1)):
        conv2 = ResNeXt(width=width).build(InputSpec(64)).layer1[0].conv2
        assert (conv2.groups, conv2.weight.shape[1]) == (32, channels)


def test_groups_are_at_least_one():
    with pytest.raises(UserError, match="groups"):
        ResNeXt(groups=0)
