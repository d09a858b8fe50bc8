"""The detector on a dilated last stage: its map, and how its head reads a region."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torchvision.models import resnet50
from torchvision.models.detection.faster_rcnn import TwoMLPHead

from benchmark.backbones.resnet import ResNet
from benchmark.recipe.inputs import InputSpec
from benchmark.transfers.detection.settings import Detector, DetectorSettings, Target
from benchmark.transfers.detection.voc_dilated_c5 import DilatedC5

SETTINGS = DetectorSettings(norm="trained", frozen_stages=0, pooled_side=2, anchors=16, regions=8)


@pytest.fixture(scope="module")
def detector() -> DilatedC5:
    torch.manual_seed(0)
    return DilatedC5(ResNet(width=0.125).build(InputSpec(64)), 20, SETTINGS, seed=0).eval()


def test_sizes_are_the_papers() -> None:
    detector = DilatedC5(ResNet().build(InputSpec(64)), 20, DetectorSettings("trained", 0, pooled_side=7), seed=0)
    assert detector.reduction[0].weight.shape == (512, 2048, 3, 3)
    assert detector.rpn_hidden.weight.shape == (512, 512, 3, 3)
    assert [tuple(layer.weight.shape) for layer in detector.layers if isinstance(layer, nn.Linear)] == [
        (1024, 512 * 7 * 7),
        (1024, 1024),
    ]
    assert detector.classes.weight.shape == (21, 1024)
    convolutions = [m for m in detector.backbone.layer4.modules() if isinstance(m, nn.Conv2d)]  # type: ignore[union-attr]
    assert {m.stride for m in convolutions} == {(1, 1)}
    assert {m.dilation for m in convolutions if m.kernel_size == (3, 3)} == {(2, 2)}
    assert {m.dilation for m in convolutions if m.kernel_size == (1, 1)} == {(1, 1)}
    plain = {name: tuple(value.shape) for name, value in resnet50().state_dict().items() if "fc." not in name}
    assert {name: tuple(value.shape) for name, value in detector.backbone.state_dict().items()} == plain


def test_the_map_has_a_cell_for_16_pixels(detector: DilatedC5) -> None:
    maps, sizes = detector._maps([torch.zeros(3, 96, 64, dtype=torch.uint8)])
    assert maps.shape == (1, 64, 6, 4)
    assert sizes == [(96, 64)]
    anchors, objectness, deltas = detector._read_anchors(maps)
    assert len(anchors) == 6 * 4 * 15 == objectness.shape[1] == deltas.shape[1]
    assert (anchors[15] - anchors[0]).tolist() == pytest.approx([16, 0, 16, 0])


def test_a_region_is_read_by_two_layers(detector: DilatedC5) -> None:
    """As torchvision's head reads it, of a region that lies on whole cells: there pooling is a plain mean."""
    maps = torch.randn(1, 64, 6, 4)
    region = torch.tensor([[16.0, 32.0, 48.0, 96.0]])  # cells 1, 2 across and 2 to 5 down
    head = TwoMLPHead(64 * 2 * 2, 128)
    head.fc6, head.fc7 = (layer for layer in detector.layers if isinstance(layer, nn.Linear))  # type: ignore[assignment]
    # each of 2 x 2 parts is 2 cells high and 1 wide; aligned, it begins at a cell's edge
    pooled = avg_pool2d(maps[:, :, 2:6, 1:3], (2, 1))
    torch.testing.assert_close(detector._read_regions(maps, [region]), head(pooled)[:, :, None, None])


def test_every_parameter_learns(detector: DilatedC5) -> None:
    target = Target(torch.tensor([[8.0, 8.0, 56.0, 56.0]]), torch.tensor([3]))
    trained: Detector = detector.train()
    torch.manual_seed(0)
    pixels = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    losses = trained.losses(pixels, [target, target])
    assert losses.keys() == {"objectness", "anchor_boxes", "classes", "region_boxes"}
    gradients: list[Tensor | None] = list(
        torch.autograd.grad(sum(losses.values(), torch.zeros(())), list(trained.parameters()), allow_unused=True)
    )
    silent = [name for (name, _), g in zip(trained.named_parameters(), gradients, strict=True) if g is None]
    assert silent == []
