"""What the segmentation network is and trains on: masks that follow their pixels, void that counts nowhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import handmade
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet50

from benchmark.backbones.dilation import dilate_last_stage
from benchmark.backbones.resnet import ResNet
from benchmark.core.optimisation import SGD, Milestones, Steps
from benchmark.data.findings import BadData
from benchmark.data.image_set import ImageSet
from benchmark.data.masks import Masked
from benchmark.recipe.inputs import InputSpec
from benchmark.transfers import find_transfers
from benchmark.transfers.segmentation.fcn import (
    Crops,
    Fcn,
    Segmentation,
    SegmentationValues,
    pixel_loss,
)
from benchmark.transfers.segmentation.scoring import Whole
from benchmark.transfers.training import Course

SPEC = InputSpec(32)
VALUES = SegmentationValues(Course(Steps(4), 2, Milestones(())), SGD(lr=0.1), crop_side=40, channels=8)


@pytest.fixture
def masked(tmp_path: Path) -> Masked:
    """An image whose bright rectangle is class 5, on a background of class 0, with a void column between them."""
    pixels, mask = np.zeros((32, 48, 3), dtype=np.uint8), np.zeros((32, 48), dtype=np.uint8)
    pixels[8:24, 16:40], mask[8:24, 16:40], mask[:, 15] = 255, 5, 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    handmade.palette(tmp_path / "mask.png", mask)
    return Masked(ImageSet("voc2012/train masks", tmp_path, ["a.png"]), tmp_path, ("mask.png",))


def test_masks_follow_their_pixels(masked: Masked) -> None:
    crops = Crops(masked, VALUES, SPEC, seed=0)
    sides, shares = set(), []
    for epoch in range(60):
        pixels, mask = crops[(epoch, 0)]
        assert pixels.shape == (3, 40, 40)
        assert mask.shape == (40, 40)
        assert pixels.dtype == mask.dtype == torch.uint8
        counted = (mask != 255) & ((pixels[0] < 40) | (pixels[0] > 215))  # neither void nor blurred
        assert ((mask == 5) == (pixels[0] > 127))[counted].float().mean() > 0.95
        grey = (pixels == torch.tensor([124, 116, 104]).view(3, 1, 1)).all(dim=0)
        assert (mask[grey] == 255).all()  # beyond the image
        shares.append((mask == 5).float().mean().item())
        sides.add(bool((mask[:, :20] == 255).sum() > (mask[:, 20:] == 255).sum()))
    assert sides == {False, True}
    assert max(shares) > 3 * min(shares)  # small and large


def test_the_test_image_is_whole_and_its_mask_untouched(masked: Masked) -> None:
    pixels, mask = Whole(masked, 1, seed=0)[(0, 0)]
    assert torch.equal(pixels, torch.from_numpy(np.array(masked.images.open(0))).permute(2, 0, 1))
    assert mask.tolist() == masked.mask(0).tolist()
    enlarged, same = Whole(masked, 2, seed=0)[(0, 0)]
    assert enlarged.shape == (3, 64, 96)
    assert torch.equal(same, mask)


def test_a_mask_of_another_size_stops_the_training(masked: Masked, tmp_path: Path) -> None:
    handmade.palette(tmp_path / "mask.png", np.zeros((32, 47), dtype=np.uint8))
    error = Crops(masked, VALUES, SPEC, seed=0)[(0, 0)]
    assert "mask.png: is 47 × 32, but its image is 48 × 32" in str(error)
    with pytest.raises(BadData, match="is 47 × 32"):
        masked.check_size(0, masked.mask(0), (48, 32))


def test_void_pixels_do_not_count() -> None:
    logits, masks = torch.randn(2, 21, 5, 5, requires_grad=True), torch.randint(0, 21, (2, 5, 5)).to(torch.uint8)
    masks[0] = 255
    masks[1, 0] = 255
    loss = pixel_loss(logits, masks)
    torch.testing.assert_close(loss, F.cross_entropy(logits[1:, :, 1:], masks[1:, 1:].long()))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0].abs().sum() == logits.grad[1, :, 0].abs().sum() == 0
    nothing = pixel_loss(logits, torch.full_like(masks, 255))
    assert nothing.item() == 0


def dilated_reference(weights: dict[str, Tensor]) -> nn.Module:
    """torchvision's own dilated ResNet-50, whose first block keeps dilation 1: set to 2, as every 3x3 is here."""
    reference = resnet50(replace_stride_with_dilation=[False, False, True])
    first = reference.layer4[0].conv2
    first.dilation = first.padding = (2, 2)
    reference.load_state_dict(weights, strict=False)
    return reference.eval()


def test_the_last_stage_is_dilated_as_torchvision_dilates_it() -> None:
    torch.manual_seed(0)
    backbone = ResNet().build(SPEC).eval()
    dilate_last_stage(backbone)
    reference = dilated_reference(backbone.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        ours = backbone.forward_stages(x)["res5"]
        wanted = reference.maxpool(reference.relu(reference.bn1(reference.conv1(x))))
        for layer in (reference.layer1, reference.layer2, reference.layer3, reference.layer4):
            wanted = layer(wanted)
    assert ours.shape == (1, 2048, 4, 4)
    assert backbone.stages["res5"].stride == 16
    torch.testing.assert_close(ours, wanted)


def test_every_pixel_gets_a_class() -> None:
    model = Fcn(ResNet(width=0.0625).build(SPEC), VALUES, seed=0).eval()
    with torch.inference_mode():
        assert model(torch.randn(2, 3, 50, 37), torch.Size((25, 19))).shape == (2, 21, 25, 19)
    dilations = [layer.dilation for layer in model.convolutions if isinstance(layer, nn.Conv2d)]
    assert dilations == [(6, 6), (6, 6)]


@pytest.mark.parametrize("norm", ["trained", "frozen"])
def test_batch_norm_of_the_backbone_stays_only_if_asked_to(norm: Literal["trained", "frozen"]) -> None:
    backbone = ResNet(width=0.0625).build(SPEC)
    model = Fcn(backbone, replace(VALUES, norm=norm), seed=0).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(torch.randn(2, 3, 32, 32), torch.Size((32, 32))).sum().backward()
    moved = {name.split(".")[0] for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}
    assert moved == ({"backbone", "convolutions"} if norm == "trained" else {"convolutions"})
    norms = [one for one in backbone.modules() if isinstance(one, nn.BatchNorm2d)]
    assert {one.weight.grad is None for one in norms} == {norm == "frozen"}


def test_the_first_stages_stay_only_if_asked_to() -> None:
    backbone = ResNet(width=0.0625).build(SPEC)
    model = Fcn(backbone, replace(VALUES, frozen_stages=4), seed=0).train()
    model(torch.randn(2, 3, 32, 32), torch.Size((32, 32))).sum().backward()
    for stage in backbone.stages:
        grads = {p.grad is None for part in backbone.parts(stage) for p in part.parameters()}
        assert grads == {stage != "res5"}, stage


def test_paper_values() -> None:
    transfer = find_transfers()["voc12_seg_fcn_moco"]
    assert isinstance(transfer, Segmentation)
    paper = transfer.values["paper"]
    assert (paper.crop_side, paper.ratios, paper.channels, paper.dilation) == (513, (0.5, 2.0), 256, 6)
    assert paper.optimizer == SGD(lr=0.003, momentum=0.9, weight_decay=1e-4)
    assert paper.frozen_stages == 0
    assert (paper.head_rate, paper.norm, paper.enlarged, paper.course.batch_size) == (1.0, "trained", 1, 16)
    images = 10_582
    assert paper.course.steps_total(images) == 30_000
    factors = [paper.course.factor(step, images) for step in (0, 20_999, 21_000, 26_999, 27_000)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01])
