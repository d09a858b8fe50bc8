"""Both engines from the same weights: the same proposals, boxes, scores and losses, and the same record.

Needs detectron2: pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.core.errors import UserError
from benchmark.core.optimisation import SGD
from benchmark.recipe.inputs import InputSpec
from benchmark.toyland import build_world
from benchmark.transfers import find_transfers, training
from benchmark.transfers.contract import Context
from benchmark.transfers.detection import detectron2_engine
from benchmark.transfers.detection.c4 import Detection, _groups
from benchmark.transfers.detection.detectron2_engine import INSTALL, Detectron2, load_converted
from benchmark.transfers.detection.faster_rcnn import FasterRcnn
from benchmark.transfers.detection.settings import FROZEN, TRAINED, Detector, DetectorSettings, Target

needs_detectron2 = pytest.mark.skipif(not detectron2_engine.is_installed(), reason=INSTALL)
CLASSES = 20
SETTINGS = {"pirl": FROZEN, "moco": TRAINED, "coco": replace(TRAINED, mask_channels=32)}


def backbone(width: float = 0.125) -> Backbone:
    """With statistics, scales and shifts that are no network's first ones."""
    torch.manual_seed(0)
    built = ResNet(width=width).build(InputSpec(64))
    unsettle(built)
    return built


def unsettle(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, 0, 0.1)


def louder(detector: FasterRcnn) -> FasterRcnn:
    """Heads that say something: as drawn, all anchors and classes would score about the same."""
    generator = torch.Generator().manual_seed(1)
    for layer, std in ((detector.rpn_objectness, 0.3), (detector.rpn_boxes, 0.03), (detector.classes, 0.5)):
        nn.init.normal_(layer.weight, std=std, generator=generator)
    nn.init.normal_(detector.boxes.weight, std=0.1, generator=generator)
    if detector.settings.mask_channels:
        nn.init.normal_(detector.masks.weight, std=0.3, generator=generator)
    unsettle(detector.extra_norm)
    return detector


def both(settings: DetectorSettings) -> tuple[FasterRcnn, Detectron2]:
    ours = louder(FasterRcnn(backbone(), CLASSES, settings, seed=0))
    theirs = Detectron2(backbone(), CLASSES, settings, seed=0)
    load_converted(theirs.model, ours)
    return ours, theirs


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    sizes = ((96, 128), (128, 112), (120, 90))
    coarse = [torch.rand(1, 3, 8, 8, generator=generator) for _ in sizes]
    return [(nn.functional.interpolate(c, s)[0] * 255).to(torch.uint8) for c, s in zip(coarse, sizes, strict=True)]


def targets(masks: bool) -> list[Target]:
    rows = [[[8, 8, 60, 70], [40, 20, 120, 90]], [[0, 0, 112, 128]], [[5, 60, 40, 110], [6, 61, 41, 111]]]
    labels = [[3, 19], [0], [7, 7]]
    return [
        Target(torch.tensor(b).float(), torch.tensor(c), tuple(outline(*box) for box in b) if masks else ())
        for b, c in zip(rows, labels, strict=True)
    ]


def outline(x1: int, y1: int, x2: int, y2: int) -> tuple[np.ndarray, ...]:
    """Two polygons that together fill about half of a box."""
    middle = (x1 + x2) / 2
    left = [[x1, y1], [middle, (y1 + y2) / 2], [x1 + 0.3, y2]]
    right = [[middle, y1], [x2, y1 + 2.7], [x2 - 5, y2], [middle + 1, y2 - 0.6]]
    return np.array(left, dtype=np.float64), np.array(right, dtype=np.float64)


@needs_detectron2
@pytest.mark.parametrize("protocol", SETTINGS)
def test_the_same_proposals_boxes_and_scores(protocol: str):
    ours, theirs = (one.eval() for one in both(SETTINGS[protocol]))
    with torch.inference_mode():
        for image in images():
            (a,), (b,) = ours.propose([image]), theirs.propose([image])
            assert len(a) > 20
            torch.testing.assert_close(a, b, atol=1e-4, rtol=0)
            (found,), (wanted,) = ours.detect([image]), theirs.detect([image])
            assert len(found.scores) > 10, len(found.scores)
            assert found.labels.tolist() == wanted.labels.tolist()
            torch.testing.assert_close(found.scores, wanted.scores, atol=1e-4, rtol=0)
            torch.testing.assert_close(found.boxes, wanted.boxes, atol=1e-4, rtol=0)
            assert (found.masks is not None) == (protocol == "coco")
            if found.masks is not None:
                assert found.masks.std() > 0.1
                torch.testing.assert_close(found.masks, wanted.masks, atol=1e-4, rtol=0)


def losses(detector: Detector, masks: bool = False) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return detector.losses(images(), targets(masks))


@needs_detectron2
@pytest.mark.parametrize("protocol", SETTINGS)
@pytest.mark.parametrize("regions", [64, 8])
def test_the_same_losses(protocol: str, regions: int):
    ours, theirs = both(replace(SETTINGS[protocol], regions=regions, anchors=2 * regions))
    a, b = (losses(one.train(), protocol == "coco") for one in (ours, theirs))
    assert a.keys() == b.keys()
    assert ("masks" in a) == (protocol == "coco")
    assert all(value > 0 for value in a.values())
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-4, atol=0, msg=lambda text, name=name: f"{name}: {text}")


@needs_detectron2
def test_under_autocast_regions_keep_their_corners():
    """In bf16 they would lie on every second pixel from 256 on. Features are rounded, and in both engines alike."""
    from detectron2.structures import Boxes

    ours, theirs = both(FROZEN)
    maps = torch.rand(1, ours.backbone.stages["res4"].channels, 20, 30, generator=torch.Generator().manual_seed(4))
    region = torch.tensor([[131.3, 129.7, 301.4, 290.6]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = roi_align(maps.bfloat16().float(), [region], 14, 1 / 16, sampling_ratio=0, aligned=True)
        pooled = theirs.model.roi_heads.pooler([maps.bfloat16()], [Boxes(region)])
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, wanted, rtol=1e-4, atol=1e-5)


@needs_detectron2
def test_the_same_parameters_train_with_the_same_gradients():
    """Not with BatchNorm in training mode, whose gradients blow up differences in the last bit."""
    ours, theirs = both(replace(FROZEN, regions=64))
    for detector in (ours, theirs):
        torch.stack(list(losses(detector.train()).values())).sum().backward()
    given = {key: p.grad for key, p in theirs.model.named_parameters() if p.grad is not None}
    named = {detectron2_engine._their_name(key): p.grad for key, p in ours.named_parameters() if p.grad is not None}
    assert named.keys() == given.keys()
    assert not any(key.startswith(("backbone.stem", "backbone.res2")) or ".norm." in key for key in given)
    for key, grad in given.items():
        assert (named[key] - grad).norm() <= 1e-3 * grad.norm() + 1e-7, key


@needs_detectron2
def test_a_paper_sized_backbone_loads_with_no_key_missing_or_over():
    built = backbone(width=1.0)
    theirs = Detectron2(built, CLASSES, FROZEN, seed=0)
    keys = theirs.model.state_dict().keys()
    assert {"backbone.stem.conv1.norm.running_var", "roi_heads.res5.2.conv3.weight"} <= keys
    weight = theirs.model.state_dict()["backbone.res3.1.conv2.weight"]
    assert torch.equal(weight, built.state_dict()["layer2.1.conv2.weight"])


@needs_detectron2
def test_a_backbone_of_another_kind_is_an_error():
    group = ResNet(width=0.25, norm="group").build(InputSpec(64))
    with pytest.raises(UserError, match="does not fit detectron2"):
        Detectron2(group, CLASSES, TRAINED, seed=0)


@needs_detectron2
@pytest.mark.parametrize("protocol", SETTINGS)
def test_the_same_rates_and_decays(protocol: str):
    name = "coco_det_c4_moco" if protocol == "coco" else f"voc0712_det_c4_{protocol}"
    values = find_transfers()[name].values["desk"]
    assert values.head_rate != 1
    ours, theirs = both(SETTINGS[protocol])
    names = {id(p): detectron2_engine._their_name(key) for key, p in ours.named_parameters()}
    names |= {id(p): key for key, p in theirs.model.named_parameters()}
    by_name = [
        {names[id(p)]: (own.lr, own.weight_decay) for found, own in _groups(one, values) for p in found}
        for one in (ours, theirs)
    ]
    assert by_name[0] == by_name[1]
    assert len({*by_name[0].values()}) > 1


@needs_detectron2
@pytest.mark.parametrize(
    ("name", "rate"), [("voc07_det_c4_pirl", 1e-3), ("voc0712_det_c4_moco", 1e-5), ("coco_det_c4_moco", 1e-6)]
)
def test_a_whole_transfer_goes_the_same_way_on_both_engines(
    name: str, rate: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """From the files to the scores, by way of the losses at every step. With SGD, for Adam's first steps are as long
    for a gradient that is nought but for its last bit; and slowly where BatchNorm trains: there, noise of 1e-6 in the
    first weights moves the losses of one engine by some percent within four steps of the protocol's rate."""
    monkeypatch.setattr(training, "REPORT_STEPS", 1)
    world = build_world(tmp_path / "world", "smoke", datasets=("voc2007", "voc2012", "coco2017"), progress=False)
    whole = find_transfers()[name]
    smoke = whole.values["smoke"]
    exact = replace(smoke.course, precision="fp32")  # bf16 rounds the same sums to other numbers in other orders
    values = replace(smoke, optimizer=SGD(lr=rate, momentum=0.9), course=exact)
    transfer = Detection(whole.card, {"smoke": values}, whole.task)
    losses: dict[str, list[float]] = {"torchvision": [], "detectron2": []}
    found = {}
    for engine, seen in losses.items():
        context = Context(
            data_root=world,
            scale="smoke",
            seed=0,
            workspace=tmp_path / engine,
            device=torch.device("cpu"),
            workers=0,
            report=lambda what, done, total, figures, seen=seen: seen.extend(figures.values()),
            engine=engine,
        )
        found[engine] = transfer.run(backbone().eval(), context)
    ours, theirs = losses.values()
    assert len(ours) == 4
    assert len({*ours}) == 4
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert found["torchvision"].data == found["detectron2"].data
    assert found["torchvision"].metrics == pytest.approx(found["detectron2"].metrics, abs=1.0)


def test_without_detectron2_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(detectron2_engine, "is_installed", lambda: False)
    with pytest.raises(UserError, match="pip install"):
        Detectron2(backbone(), CLASSES, FROZEN, seed=0)
