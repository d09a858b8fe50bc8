"""The loop in which protocols train: under autocast where they say so, and exact where bf16 would not do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmark.backbones.resnet import ResNet
from benchmark.core.optimisation import SGD, Constant, Precision, Steps
from benchmark.data.image_set import ImageSet
from benchmark.data.loader import TrainOrder
from benchmark.recipe.inputs import InputSpec
from benchmark.transfers.contract import Context
from benchmark.transfers.detection.faster_rcnn import FasterRcnn
from benchmark.transfers.detection.settings import FROZEN
from benchmark.transfers.segmentation.fcn import pixel_loss
from benchmark.transfers.training import Course, build_optimizer, fit, fit_together


@pytest.mark.parametrize(
    ("precision", "cpu", "amx", "dtype"),
    [
        ("fp32", "AVX512", True, torch.float32),
        ("bf16", "AVX512", True, torch.bfloat16),
        ("bf16", "SVE256", False, torch.bfloat16),
        ("bf16", "AVX512", False, torch.float32),
        ("bf16", "AVX2", False, torch.float32),
    ],
)
def test_the_loss_is_taken_in_the_course_s_precision(
    precision: Precision, cpu: str, amx: bool, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: cpu)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    model, seen = nn.Linear(4, 2), set()

    def loss_of(x: Tensor, _: Tensor) -> Tensor:
        outputs = model(x)
        seen.add(outputs.dtype)
        return outputs.float().square().sum()

    def source(order: TrainOrder):
        return ((torch.ones(2, 4), torch.zeros(2)) for _ in range(order.first_step, 3))

    before = model.weight.detach().clone()
    images = ImageSet("some", tmp_path, ["a.png", "b.png"])
    context = Context(tmp_path, "smoke", 0, tmp_path, torch.device("cpu"), 0, lambda *_: None)
    optimizer = build_optimizer([(model.parameters(), SGD(lr=0.01))])
    fit(model, optimizer, loss_of, Course(Steps(3), 2, Constant(), precision), images, source, tmp_path / "s", context)
    assert seen == {dtype}
    assert model.weight.dtype == torch.float32
    assert not torch.equal(model.weight, before)


def test_boxes_stay_exact_under_autocast():
    torch.manual_seed(0)
    backbone = ResNet(width=0.125, zero_init_residual=True).build(InputSpec(64))
    detector = FasterRcnn(backbone, 20, FROZEN, seed=0).eval()
    nn.init.zeros_(detector.rpn_boxes.weight)  # so that proposals are the anchors themselves
    images = [torch.randint(256, (3, 200, 300), dtype=torch.uint8)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        maps, sizes = detector._maps(images)
        anchors, objectness, deltas = detector._read_anchors(maps)
        (proposals,) = detector._proposals(anchors, objectness, deltas, sizes, (10_000, 2_000))
        logits, boxes = detector._read_boxes(detector._read_regions(maps, [proposals]))
    assert {each.dtype for each in (objectness, deltas, logits, boxes)} == {torch.float32}
    clipped = anchors.clamp(min=0).minimum(torch.tensor([300.0, 200.0, 300.0, 200.0]))
    nearest = torch.cdist(proposals, clipped, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1).values
    assert nearest.max() < 1e-3  # bf16 has steps of 1 px between 128 and 256


def test_pixels_are_summed_in_float32():
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 21, 96, 96, dtype=torch.bfloat16), torch.randint(21, (2, 96, 96))
    expected = nn.functional.cross_entropy(logits.double(), masks)
    with torch.autocast("cpu", torch.bfloat16):
        assert pixel_loss(logits, masks).item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_a_loss_draws_is_the_same_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """AlexNet's dropout, for one: a process that goes on draws what the one that was killed would have drawn."""
    monkeypatch.setattr("benchmark.transfers.training.CHECKPOINT_SECONDS", -1.0)
    images = ImageSet("some", tmp_path, ["a.png", "b.png"])
    context = Context(tmp_path, "smoke", 0, tmp_path, torch.device("cpu"), 0, lambda *_: None)

    def trained(checkpoint: Path, killed_at: int | None) -> Tensor:
        torch.manual_seed(0 if killed_at is None else killed_at)  # no two processes begin alike
        model = nn.Linear(64, 2)
        nn.init.ones_(model.weight)
        nn.init.zeros_(model.bias)

        def loss_of(x: Tensor, _: Tensor) -> Tensor:
            return model(nn.functional.dropout(x)).square().sum()

        def source(order: TrainOrder):
            for step in range(order.first_step, 6):
                if step == killed_at:
                    raise KeyboardInterrupt
                yield torch.ones(2, 64), torch.zeros(2)

        optimizer = build_optimizer([(model.parameters(), SGD(lr=1e-4))])
        fit(model, optimizer, loss_of, Course(Steps(6), 2, Constant()), images, source, checkpoint, context)
        return model.weight.detach()

    whole = trained(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", 3)
    assert torch.equal(trained(tmp_path / "killed", None), whole)
    assert whole.std() > 0  # something was dropped


def test_a_part_may_have_nothing_to_learn_at_first(tmp_path: Path):
    """As a head for objects, of batches that have none."""
    images = ImageSet("some", tmp_path, ["a.png", "b.png"])
    context = Context(tmp_path, "smoke", 0, tmp_path, torch.device("cpu"), 0, lambda *_: None)
    model = nn.ModuleList([nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)])
    steps = 0

    def loss_of(x: Tensor, _: Tensor) -> Tensor:
        nonlocal steps
        steps += 1
        return torch.stack([part(x).sum() for part in model[:steps]]).sum()  # type: ignore[union-attr]

    def source(order: TrainOrder):
        return ((torch.ones(1, 2), None) for _ in range(3))

    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = build_optimizer([(model.parameters(), SGD(lr=1.0, momentum=0.5))])
    fit_together(model, optimizer, loss_of, Course(Steps(3), 2, Constant()), images, source, tmp_path / "s", context)
    moved = [(old - new).mean().item() for old, new in zip(before, model.parameters(), strict=True)]
    assert moved == pytest.approx([1 + 1.5 + 1.75, 1 + 1.5])
