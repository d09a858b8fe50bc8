"""What a detector trains on: boxes that follow their pixels, what learns at which rate, measured statistics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.core.optimisation import SGD, Epochs, Milestones, Steps
from benchmark.core.plain import as_plain
from benchmark.data.annotation import Annotated, Annotation
from benchmark.data.image_set import ImageSet
from benchmark.data.voc import CLASSES
from benchmark.recipe.inputs import InputSpec
from benchmark.transfers import find_transfers
from benchmark.transfers.contract import Context
from benchmark.transfers.detection import c4
from benchmark.transfers.detection.c4 import Detection, DetectionValues, TestSamples, TrainSamples, scaled
from benchmark.transfers.detection.faster_rcnn import FasterRcnn
from benchmark.transfers.detection.settings import FROZEN, TRAINED, Detector, DetectorSettings, Target
from benchmark.transfers.training import Course

BOX = (10, 4, 30, 20)  # of the one bright rectangle in the image below
SMALL = DetectionValues(
    FROZEN, Course(Steps(4), 2, Milestones(())), SGD(lr=0.1), short_sides=(32, 64, 96), test_side=64
)


@pytest.fixture
def annotated(tmp_path: Path) -> Annotated:
    pixels = np.zeros((32, 48, 3), dtype=np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    one = Annotation(np.array([BOX], dtype=np.float32), np.array([7]), np.array([True]), (48, 32))
    return Annotated(ImageSet("voc2007/test", tmp_path, ["a.png"]), (one,), CLASSES, "Mend it.")


def bright(pixels: Tensor) -> list[int]:
    """The box around what is brighter than grey."""
    y, x = (pixels[0] > 127).nonzero().unbind(dim=1)
    return [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]


def test_boxes_follow_their_pixels(annotated: Annotated) -> None:
    samples = TrainSamples(annotated, SMALL, seed=0)
    seen = set()
    for epoch in range(40):
        pixels, target = samples[(epoch, 0)]
        assert target.labels.tolist() == [7]
        assert np.abs(np.array(bright(pixels)) - target.boxes[0].numpy()).max() <= 0.5
        seen.add((pixels.shape[1], target.boxes[0, 0].item() > pixels.shape[2] - target.boxes[0, 2].item()))
    assert seen == {(side, flipped) for side in (32, 64, 96) for flipped in (False, True)}


def test_found_boxes_are_given_in_the_original_image(annotated: Annotated) -> None:
    pixels, _, size = TestSamples(annotated, SMALL, seed=0)[(0, 0)]
    assert pixels.shape == (3, 64, 96)
    corners = torch.tensor([bright(pixels), [-5, -5, 200, 200], [95, 0, 96, 1], [96, 0, 99, 9]]).float()
    found = c4.Found(corners, torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.arange(4))
    back = c4._in_original(found, (96, 64), size)
    np.testing.assert_allclose(back.boxes[0], BOX, atol=0.5)
    assert back.boxes[1].tolist() == [0, 0, 48, 32]
    assert back.labels.tolist() == [0, 1, 2]  # the last lies beside the image


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (500, 112), (333, 500), (500, 500), (142, 500)])
@pytest.mark.parametrize("side", [480, 512, 800])
def test_images_get_the_size_that_detectron2_gives_them(size: tuple[int, int], side: int) -> None:
    transforms = pytest.importorskip("detectron2.data.transforms")
    height, width = transforms.ResizeShortestEdge.get_output_shape(size[1], size[0], side, 1333)
    assert scaled(Image.new("RGB", size), side, 1333).size == (width, height)


def small(norm: str = "batch") -> Backbone:
    torch.manual_seed(0)
    return ResNet(width=0.0625, norm=norm).build(InputSpec(32))  # type: ignore[arg-type]


def detector(settings: DetectorSettings) -> FasterRcnn:
    return FasterRcnn(small(), 20, settings, seed=0)


def test_what_learns_and_at_which_rate() -> None:
    values = replace(SMALL, optimizer=SGD(lr=0.1, weight_decay=1e-4), head_rate=10.0)
    rates = grouped(detector(FROZEN), values)
    assert not any(name.startswith(("backbone.conv1", "backbone.layer1")) or "bn" in name for name in rates)
    assert rates["backbone.layer2.0.conv1.weight"] == rates["backbone.layer4.2.conv3.weight"] == (0.1, 1e-4)
    assert rates["rpn_hidden.weight"] == rates["classes.bias"] == (1.0, 1e-4)
    everything = detector(TRAINED)
    rates = grouped(everything, values)
    assert rates.keys() == dict(everything.named_parameters()).keys()
    assert rates["backbone.conv1.weight"] == (0.1, 1e-4)
    assert rates["backbone.layer4.0.downsample.1.weight"] == (0.1, 0.0)
    assert rates["extra_norm.bias"] == (1.0, 0.0)


def grouped(one: FasterRcnn, values: DetectionValues) -> dict[str, tuple[float, float]]:
    """Parameter -> (rate, decay)."""
    name = {id(parameter): name for name, parameter in one.named_parameters()}
    groups = c4._groups(one, values)
    return {name[id(p)]: (own.lr, own.weight_decay) for parameters, own in groups for p in parameters}


def test_frozen_batchnorm_stays_in_evaluation_mode() -> None:
    modes = {m.training for m in detector(FROZEN).train().backbone.modules() if isinstance(m, nn.BatchNorm2d)}
    assert modes == {False}
    modes = {m.training for m in detector(TRAINED).train().modules() if isinstance(m, nn.BatchNorm2d)}
    assert modes == {True}


class Normed(Detector):
    """One BatchNorm over the pixels, and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        return {"loss": self.norm(torch.stack(images)).sum()}


def test_statistics_are_plain_averages_over_batches() -> None:
    model = Normed().train()
    with torch.no_grad():
        model.losses([torch.full((3, 4, 4), 100.0)], [])  # what training left behind must go
    batches = [torch.randn(2, 3, 4, 4) + number for number in range(5)]
    values = replace(SMALL, precise_steps=5)
    steps = []

    def source(order: c4.TrainOrder) -> object:
        steps.extend(range(order.first_step, order.last_step))
        return (((list(batch), 0), []) for batch in batches)

    context = Context(Path(), "smoke", 0, Path(), torch.device("cpu"), 0, lambda *_: None)
    c4._measure_statistics(
        model, values, lambda inputs, targets: model.losses(inputs[0], targets)["loss"], source, 6, context
    )
    assert steps == [4, 5, 6, 7, 8]  # the steps after the last one that trained
    assert model.norm.momentum == 0.1
    mean = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in batches]).mean(dim=0)
    variance = torch.stack([batch.transpose(0, 1).flatten(1).var(dim=1) for batch in batches]).mean(dim=0)
    torch.testing.assert_close(model.norm.running_mean, mean)
    torch.testing.assert_close(model.norm.running_var, variance)


PAPER = {  # steps, drops, warm-up steps and where it starts, rate: PIRL supplement B and MoCo's detection configs
    "voc07_det_c4_pirl": (12_500, (9_500,), 1_000, 1 / 3, 0.003),
    "voc0712_det_c4_pirl": (25_000, (17_000,), 1_000, 1 / 3, 0.003),
    "voc0712_det_c4_moco": (24_000, (18_000, 22_000), 100, 0.001, 0.02),
    "voc0712_det_dilated_c5_moco": (24_000, (18_000, 22_000), 100, 0.001, 0.02),
}


@pytest.mark.parametrize("name", PAPER)
def test_paper_values(name: str) -> None:
    transfer = find_transfers()[name]
    assert isinstance(transfer, Detection)
    paper = transfer.values["paper"]
    steps, drops, warmup, start, rate = PAPER[name]
    images = 16_551 if "0712" in name else 5_011
    assert paper.course.batch_size == 16
    assert paper.course.steps_total(images) == steps
    assert paper.optimizer == SGD(lr=rate, momentum=0.9, weight_decay=1e-4)
    assert paper.head_rate == 1.0
    assert paper.course.factor(0, images) == pytest.approx(start)
    assert paper.course.factor(warmup, images) == 1.0
    for number, drop in enumerate(drops):
        assert paper.course.factor(drop - 1, images) == pytest.approx(0.1**number)
        assert paper.course.factor(drop, images) == pytest.approx(0.1 ** (number + 1))
    assert paper.short_sides == (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    assert (paper.test_side, paper.longest_side) == (800, 1333)
    assert paper.settings.norm == ("trained" if name.endswith("moco") else "frozen")
    assert paper.settings.extra_norm == name.endswith("c4_moco")
    assert paper.settings.pooled_side == (14 if "c4" in name else 7)
    assert paper.settings.frozen_stages == (0 if name.endswith("moco") else 2)
    assert paper.precise_steps == (200 if name.endswith("moco") else 0)
    assert transfer.card.datasets[-1] == ("voc2007", "test")
    assert list(transfer.card.metrics) == ["ap", "ap50", "ap75"]
    assert transfer.engines == (("torchvision", "detectron2") if "c4" in name else ())


def test_defaults_are_detectron2s() -> None:
    config = pytest.importorskip("detectron2.config").get_cfg()
    rpn, roi, head = config.MODEL.RPN, config.MODEL.ROI_HEADS, config.MODEL.ROI_BOX_HEAD
    settings = DetectorSettings(norm="frozen")
    assert [list(settings.anchor_sides)] == config.MODEL.ANCHOR_GENERATOR.SIZES
    assert [list(settings.anchor_ratios)] == config.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS
    assert (settings.anchors, settings.anchors_positive) == (rpn.BATCH_SIZE_PER_IMAGE, rpn.POSITIVE_FRACTION)
    assert settings.proposals_train == (rpn.PRE_NMS_TOPK_TRAIN, rpn.POST_NMS_TOPK_TRAIN)
    assert settings.proposals_test == (rpn.PRE_NMS_TOPK_TEST, rpn.POST_NMS_TOPK_TEST)
    assert settings.proposals_overlap == rpn.NMS_THRESH
    assert (settings.regions, settings.regions_positive) == (roi.BATCH_SIZE_PER_IMAGE, roi.POSITIVE_FRACTION)
    assert (settings.least_score, settings.overlap) == (roi.SCORE_THRESH_TEST, roi.NMS_THRESH_TEST)
    assert settings.detections == config.TEST.DETECTIONS_PER_IMAGE
    assert settings.pooled_side == head.POOLER_RESOLUTION
    assert settings.frozen_stages == config.MODEL.BACKBONE.FREEZE_AT


def test_another_setting_is_another_checkpoint() -> None:
    changed = replace(SMALL, settings=replace(SMALL.settings, regions=3))
    assert as_plain(changed) != as_plain(SMALL)
    assert as_plain(replace(SMALL, course=replace(SMALL.course, length=Epochs(4)))) != as_plain(SMALL)


def test_what_is_sampled_follows_from_the_step(annotated: Annotated, tmp_path: Path) -> None:
    """And not from the random numbers drawn before, which a resumed run has not drawn."""
    few = replace(SMALL, settings=replace(FROZEN, regions=2, anchors=4), optimizer=SGD(lr=0.001), precise_steps=1)
    # loader processes: in this one, drawing a sample would seed torch just before
    context = Context(tmp_path, "smoke", 0, tmp_path, torch.device("cpu"), 1, lambda *_: None)
    states = []
    for before in (1, 2):
        torch.manual_seed(before)
        model = detector(few.settings)
        torch.manual_seed(before)
        c4._train(model, few, annotated, tmp_path / "none.pt", context)
        states.append(model.state_dict())
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
