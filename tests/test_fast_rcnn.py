"""Fast R-CNN on AlexNets against torchvision's RoI heads, detectron2's and formulas in double precision."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import box_iou, roi_pool

from benchmark.backbones.alexnet import CAFFENET, CONTEXT_PREDICTION, DEEPCLUSTER, ROTNET, AlexNet, AlexNetwork
from benchmark.backbones.alexnet_surgery import caffenets_convolutions, folded
from benchmark.core.optimisation import SGD
from benchmark.data.annotation import Annotated, Annotation
from benchmark.data.image_set import ImageSet
from benchmark.data.voc import CLASSES
from benchmark.recipe.inputs import BGR, InputSpec
from benchmark.toyland import build_world
from benchmark.transfers import find_transfers
from benchmark.transfers.contract import Context
from benchmark.transfers.detection import c4, detectron2_engine
from benchmark.transfers.detection.average_precision import average_precisions, eleven_points
from benchmark.transfers.detection.c4 import TestSamples, TrainSamples
from benchmark.transfers.detection.fast_rcnn import (
    FastRcnn,
    Normalisation,
    anew_for_regions,
    for_regions,
    matches_of,
    measured_offsets,
)
from benchmark.transfers.detection.settings import Detections, RegionSettings, Target
from benchmark.transfers.detection.voc_alexnet import FastRcnnDetection, voc07_det_fast_rcnn_krahenbuhl

SPREAD = torch.tensor([0.1, 0.15, 0.2, 0.25])
NETWORKS = {"CaffeNet": CAFFENET, "RotNet": ROTNET, "DeepCluster": DEEPCLUSTER}
EVERYTHING = RegionSettings(regions=512)  # more than there are, so that all are used


def built(architecture: AlexNet, size: int = 64, width: float = 0.0625) -> AlexNetwork:
    """With BatchNorm's statistics, scales and shifts no network's first ones."""
    torch.manual_seed(0)
    network = replace(architecture, width=width).build(InputSpec(size))
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    assert isinstance(network, AlexNetwork)
    return network.eval()


def detector(settings: RegionSettings = EVERYTHING, architecture: AlexNet = DEEPCLUSTER) -> FastRcnn:
    """With heads that say something: as drawn, all classes would score about the same. Dropout is off."""
    offsets = Normalisation(torch.zeros(20, 4), SPREAD.expand(20, 4))
    one = FastRcnn(for_regions(built(architecture), settings.cells, 0), 20, settings, offsets, seed=0)
    generator = torch.Generator().manual_seed(1)
    nn.init.normal_(one.classes.weight, std=0.1, generator=generator)
    nn.init.normal_(one.boxes.weight, std=0.05, generator=generator)
    return one.eval()


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    coarse = [torch.rand(1, 3, 8, 8, generator=generator) for _ in range(2)]
    sizes = ((96, 128), (160, 112))
    return [(nn.functional.interpolate(c, s)[0] * 255).to(torch.uint8) for c, s in zip(coarse, sizes, strict=True)]


def targets(least: float = 0.0) -> list[Target]:
    """With proposals around the objects and anywhere; of these only such as overlap an object at least so much."""
    rng = np.random.default_rng(3)
    found = []
    for image, rows, labels in zip(
        images(), [[[8, 8, 60, 70], [40, 20, 120, 90]], [[5, 60, 80, 150]]], [[3, 19], [7]], strict=True
    ):
        boxes = torch.tensor(rows).float()
        near = boxes.repeat(12, 1) + torch.from_numpy(rng.normal(0, 7, (12 * len(boxes), 4))).float()
        corners = rng.uniform(0, 60, (30, 2))
        anywhere = torch.from_numpy(np.hstack([corners, corners + rng.uniform(8, 60, (30, 2))])).float()
        proposals = torch.cat([near, anywhere])
        height, width = image.shape[1:]
        proposals[:, ::2].clamp_(0, width)
        proposals[:, 1::2].clamp_(0, height)
        kept = box_iou(proposals, boxes).max(dim=1).values >= least
        found.append(Target(boxes, torch.tensor(labels), proposals=proposals[kept]))
    return found


def maps_of(ours: FastRcnn) -> Tensor:
    pixels = [ours.network.input.prepare(image) for image in images()]
    padded = [nn.functional.pad(x, (0, 128 - x.shape[2], 0, 160 - x.shape[1])) for x in pixels]
    return ours.network.forward_stages(torch.stack(padded), "conv5")["conv5"]


class Pool(nn.Module):
    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], _: object) -> Tensor:
        return roi_pool(features["0"], [box - torch.tensor([0.0, 0, 1, 1]) for box in boxes], 6, 1 / 16)


class Predict(nn.Module):
    """Our last layers, with the background first, as torchvision has it, and offsets so much smaller."""

    def __init__(self, ours: FastRcnn, divisor: float) -> None:
        super().__init__()
        self.ours, self.divisor = ours, divisor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self.ours.classes(x), self.ours.boxes(x) / self.divisor
        return torch.cat([logits[:, -1:], logits[:, :-1]], dim=1), torch.cat([deltas[:, :4] * 0, deltas], dim=1)


def torchvisions(ours: FastRcnn, divisor: float) -> RoIHeads:
    """Its smooth L1 bends at 1/9: the same as 1/9 of what one that bends at 1 says of nine times as large offsets."""
    heads = RoIHeads(
        Pool(), nn.Sequential(ours.network.layers["fc6"][1:], ours.network.layers["fc7"]), Predict(ours, divisor),
        fg_iou_thresh=0.5, bg_iou_thresh=0.5, batch_size_per_image=ours.settings.regions, positive_fraction=0.25,
        bbox_reg_weights=tuple((1 / (divisor * SPREAD)).tolist()),
        score_thresh=-1.0, nms_thresh=0.3, detections_per_img=10_000,
    )  # fmt: skip
    return heads.eval()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("regions", [512, 16])
def test_losses_are_those_of_torchvisions_heads(name: str, regions: int) -> None:
    ours = detector(replace(EVERYTHING, regions=regions), NETWORKS[name])
    theirs = torchvisions(ours, 9.0)
    theirs.training = True
    few = targets(least=0.1)  # as torchvision has no overlap below which nothing is sampled
    told = [{"boxes": one.boxes, "labels": one.labels + 1} for one in few]
    with torch.no_grad():
        torch.manual_seed(5)
        _, wanted = theirs({"0": maps_of(ours)}, [one.proposals for one in few], [(96, 128), (160, 112)], told)
        torch.manual_seed(5)
        found = ours.losses(images(), targets())
    assert found["classes"] > 0.1
    assert found["region_boxes"] > 0.01
    torch.testing.assert_close(found["classes"], wanted["loss_classifier"], rtol=1e-5, atol=0)
    torch.testing.assert_close(found["region_boxes"], 9 * wanted["loss_box_reg"], rtol=1e-5, atol=0)


def test_what_is_found_is_what_torchvisions_heads_find() -> None:
    """Given each grid of cells once: what lies in the same cells scores the same, and no order is right."""
    ours, proposals = detector(), [one.proposals for one in targets()]
    apart = [of_cells_apart(boxes) for boxes in proposals]
    with torch.inference_mode():
        wanted, _ = torchvisions(ours, 1.0)({"0": maps_of(ours)}, apart, [(96, 128), (160, 112)])
        found = ours.detect(images(), proposals)
    for a, b in zip(found, wanted, strict=True):
        assert 20 < len(a.scores) == len(b["scores"]) < 20 * 60
        given, expected = in_order(a.scores, a.labels, a.boxes), in_order(b["scores"], b["labels"] - 1, b["boxes"])
        for one, other in zip(given, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def of_cells_apart(boxes: Tensor) -> Tensor:
    seen, kept = set(), []
    for x1, y1, x2, y2 in boxes.tolist():
        cells = tuple(round(value / 16) for value in (x1, y1, x2 - 1, y2 - 1))
        kept.append(cells not in seen)
        seen.add(cells)
    assert 20 < sum(kept) < len(kept)
    return boxes[torch.tensor(kept)]


def in_order(scores: Tensor, labels: Tensor, boxes: Tensor) -> tuple[Tensor, ...]:
    order = torch.from_numpy(np.lexsort((boxes[:, 0].numpy(), scores.numpy(), labels.numpy())))
    return scores[order], labels[order], boxes[order]


def test_only_the_surest_of_each_class_are_kept_before_others_are_dropped() -> None:
    ours, proposals = detector(replace(EVERYTHING, detections=3)), [one.proposals for one in targets()]
    with torch.inference_mode():
        for few, all_found in zip(
            ours.detect(images(), proposals), detector().detect(images(), proposals), strict=True
        ):
            assert few.labels.bincount(minlength=20).max() <= 3
            assert torch.equal(few.labels.unique(), torch.arange(20))
            assert few.scores.max() == all_found.scores.max()


@pytest.mark.skipif(not detectron2_engine.is_installed(), reason=detectron2_engine.INSTALL)
@pytest.mark.parametrize("regions", [512, 16])
def test_losses_are_those_of_detectron2s_heads(regions: int) -> None:
    """Its matcher leaves out what overlaps less than 0.1 by itself, and its smooth L1 bends at 1."""
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.matcher import Matcher
    from detectron2.modeling.poolers import ROIPooler
    from detectron2.modeling.roi_heads import StandardROIHeads
    from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
    from detectron2.structures import Boxes, ImageList, Instances
    from detectron2.utils.events import EventStorage

    ours = detector(replace(EVERYTHING, regions=regions))
    pooler = ROIPooler(6, [1 / 16], 0, "ROIPool")
    last = torch.tensor([0.0, 0, 1, 1])
    pooler.register_forward_pre_hook(lambda _, x: (x[0], [Boxes(one.tensor - last) for one in x[1]]))
    units = ours.network.stages["fc7"].channels
    predictor = FastRCNNOutputLayers(
        ShapeSpec(channels=units), box2box_transform=Box2BoxTransform(tuple((1 / SPREAD).tolist())), num_classes=20,
        smooth_l1_beta=1.0,
    )  # fmt: skip
    predictor.cls_score, predictor.bbox_pred = ours.classes, ours.boxes
    head: Any = nn.Sequential(ours.network.layers["fc6"][1:], ours.network.layers["fc7"])
    theirs = StandardROIHeads(
        box_in_features=["conv5"], box_pooler=pooler, box_head=head.eval(), box_predictor=predictor, num_classes=20,
        batch_size_per_image=regions, positive_fraction=0.25, proposal_matcher=Matcher([0.1, 0.5], [-1, 0, 1]),
    )  # fmt: skip
    proposals, truths = [], []
    for image, one in zip(images(), targets(), strict=True):
        proposed, truth = Instances(image.shape[1:]), Instances(image.shape[1:])
        proposed.proposal_boxes, proposed.objectness_logits = Boxes(one.proposals), torch.zeros(len(one.proposals))
        truth.gt_boxes, truth.gt_classes = Boxes(one.boxes), one.labels
        proposals.append(proposed)
        truths.append(truth)
    with torch.no_grad(), EventStorage():
        torch.manual_seed(5)
        _, wanted = theirs(ImageList(torch.zeros(2, 3, 160, 128), []), {"conv5": maps_of(ours)}, proposals, truths)
        torch.manual_seed(5)
        found = ours.losses(images(), targets())
    torch.testing.assert_close(found["classes"], wanted["loss_cls"], rtol=1e-5, atol=0)
    torch.testing.assert_close(found["region_boxes"], wanted["loss_box_reg"], rtol=1e-5, atol=0)


def test_what_is_sampled() -> None:
    """A quarter positive at most; what overlaps an object by less than a tenth is not trained on."""
    boxes, label = torch.tensor([[0.0, 0, 100, 100]]), torch.tensor([4])
    heights = [49.0, 50.0, 10.0, 9.0] * 30  # of the object's 100, which makes these the overlaps, in percent
    proposals = torch.tensor([[0.0, 0, 100, height] for height in heights])
    settings = RegionSettings()
    matches = matches_of(Target(boxes, label, proposals=proposals), settings)
    assert matches.is_positive.tolist() == [False, True, False, False] * 30 + [True]
    assert matches.is_negative.tolist() == [True, False, True, False] * 30 + [False]
    torch.manual_seed(0)
    sampled = detector(settings)._sampled(matches)
    assert (len(sampled.labels), int(sampled.is_positive.sum())) == (64, 16)
    assert torch.equal(sampled.labels == 4, sampled.is_positive)
    assert torch.equal(sampled.labels == 20, sampled.is_negative)
    assert not (sampled.regions[:, 3] == 9).any()
    few = matches_of(Target(boxes, label, proposals=proposals[:6]), settings)
    assert len(detector(settings)._sampled(few).labels) == 6  # 3 negative, 3 positive, of which one is the object


def test_offsets_are_normalised_by_a_formula_in_double_precision() -> None:
    rng = np.random.default_rng(0)
    annotations, offsets = [], {0: [], 1: []}  # type: ignore[var-annotated]
    for _ in range(12):
        objects = np.array([[10, 10, 40, 50], [55, 20, 95, 60]], dtype=np.float32)
        near = np.repeat(objects, 25, axis=0) + rng.normal(0, 4, (50, 4)).astype(np.float32)
        annotations.append(Annotation(objects, np.array([0, 1]), np.zeros(2, bool), (100, 80), proposals=near))
        for box in np.concatenate([near, objects]).astype(float):
            overlaps = [iou(box, one) for one in objects.astype(float)]
            label = int(np.argmax(overlaps))
            if overlaps[label] >= 0.5:
                dx, *rest = offset(box, objects[label].astype(float))
                offsets[label] += [[dx, *rest], [-dx, *rest]]  # and in the mirror
    annotated = Annotated(ImageSet("a/b", Path(), ["a"] * 12), tuple(annotations), ("x", "y", "z"), "")
    found = measured_offsets(annotated, RegionSettings())
    for label, rows in offsets.items():
        assert len(rows) > 100
        np.testing.assert_allclose(found.mean[label], np.mean(rows, axis=0), atol=1e-5)
        np.testing.assert_allclose(found.spread[label], np.std(rows, axis=0), rtol=1e-4)
    assert found.mean[2].tolist() == [0, 0, 0, 0]
    assert found.spread[2].tolist() == [1, 1, 1, 1]  # no object of this class


def iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = [max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1)]
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])


def offset(region: np.ndarray, wanted: np.ndarray) -> list[float]:
    sides = [(x[2] - x[0], x[3] - x[1]) for x in (region, wanted)]
    middles = [((x[0] + x[2]) / 2, (x[1] + x[3]) / 2) for x in (region, wanted)]
    moved = [(middles[1][i] - middles[0][i]) / sides[0][i] for i in (0, 1)]
    return moved + [math.log(sides[1][i] / sides[0][i]) for i in (0, 1)]


def test_offsets_are_learned_normalised_and_found_as_they_are() -> None:
    """A head that says exactly what it was to learn finds the objects' own boxes."""
    mean = torch.linspace(-0.2, 0.2, 80).view(20, 4)
    offsets = Normalisation(mean, SPREAD.expand(20, 4))
    ours = FastRcnn(for_regions(built(CAFFENET), 6, 0), 20, RegionSettings(), offsets, seed=0).eval()
    box = torch.tensor([[10.0, 12, 60, 50]])
    proposal = torch.tensor([[20.0, 10, 64, 60]])
    wanted = (torch.tensor([offset(proposal[0].double().numpy(), box[0].double().numpy())]) - mean[7]) / SPREAD
    with torch.no_grad():
        ours.boxes.weight.zero_()
        ours.boxes.bias.view(20, 4)[7] = wanted[0]
        ours.classes.weight.zero_()
        ours.classes.bias[7] = 9.0
        (found,) = ours.detect([images()[0]], [proposal])
        target = Target(box, torch.tensor([7]), proposals=proposal)
        ours.boxes.bias.view(20, 4)[7] = wanted[0] + torch.tensor([0.5, 0, 2.0, 0])
        sampled = ours.losses([images()[0]], [target])
    assert found.labels[0] == 7
    torch.testing.assert_close(found.boxes[0], box[0], atol=1e-3, rtol=0)
    # the proposal is 0.5²/2 and 2 - 1/2 off; the object's own box, which is a region too, has no offset at all
    own = ((wanted[0] + torch.tensor([0.5, 0, 2.0, 0])) - (0 - mean[7]) / SPREAD).abs()
    expected = 0.125 + 1.5 + torch.where(own < 1, own**2 / 2, own - 0.5).sum()
    torch.testing.assert_close(sampled["region_boxes"], (expected / 2).float(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_cells_lie_where_regions_look_for_them(name: str) -> None:
    """The middle of what cell i sees is pixel 16 i: then a box over 16 is a box of cells. What a cell sees are the
    pixels that raise it, in a network whose weights are all above zero."""
    network = for_regions(built(NETWORKS[name], width=1 / 64), 6, 0)
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.01 if parameter.ndim > 1 else 0.0)
    cell, side = 9, 289
    seen = []
    with torch.no_grad():
        for x in range(16 * cell - 110, 16 * cell + 111):
            image = torch.zeros(1, 3, 17, side)
            image[0, :, 8, x] = 1e3
            seen += [x] if network.forward_stages(image, "conv5")["conv5"][0, 0, :, cell].sum() > 0 else []
    assert (seen[0] + seen[-1]) / 2 == 16 * cell
    assert seen[-1] - seen[0] + 1 == 163  # as many as conv5 of an AlexNet sees


def test_fully_connected_layers_are_the_networks_own_where_they_fit() -> None:
    for architecture, size in ((ROTNET, 224), (CAFFENET, 227), (DEEPCLUSTER, 224)):
        network = built(architecture, size)
        found, wanted = for_regions(network, 6, seed=3), folded(network)
        assert anew_for_regions(network, 6) == ()
        for stage in ("conv1", "conv5", "fc6", "fc7"):
            ours, theirs = (list(one.layers[stage].parameters()) for one in (found, wanted))
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), stage


@pytest.mark.parametrize("made", ["too small an image", "patches"])
def test_else_they_begin_by_the_seed(made: str) -> None:
    if made == "patches":
        network = caffenets_convolutions(folded(built(CONTEXT_PREDICTION, 96)), 227)
    else:
        network = built(CAFFENET, 64)
    torch.manual_seed(1)
    first = for_regions(network, 6, seed=3)
    torch.manual_seed(2)
    again, other = for_regions(network, 6, seed=3), for_regions(network, 6, seed=4)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name
        is_new = name.startswith("layers.fc") and name.endswith("weight")
        assert torch.equal(parameter, other.get_parameter(name)) != is_new, name
    assert anew_for_regions(network, 6) == ("fc6", "fc7")
    assert first.layers["fc6"][2].weight.shape == (256, 16 * 6 * 6)
    for stage in ("conv1", "conv5"):
        for ours, theirs in zip(first.layers[stage].parameters(), network.layers[stage].parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_what_learns_and_at_which_rate() -> None:
    ours = detector(architecture=CAFFENET)
    values = voc07_det_fast_rcnn_krahenbuhl.values["paper"]
    optimizer = c4.build_optimizer(c4._groups(ours, values))
    names = {id(p): name for name, p in ours.named_parameters()}
    rates = {
        names[id(p)]: (group["initial_lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert rates.keys() == {name for name in names.values() if ".conv1." not in name}
    for name, rate in rates.items():
        assert rate == ((0.002, 0.0) if name.endswith("bias") else (0.001, 5e-4)), name


def test_paper_values() -> None:
    card, paper = voc07_det_fast_rcnn_krahenbuhl.card, voc07_det_fast_rcnn_krahenbuhl.values["paper"]
    assert paper.course.batch_size == 2
    assert paper.course.steps_total(5_011) == 150_000
    factors = [paper.course.factor(step, 5_011) for step in (0, 49_999, 50_000, 99_999, 100_000, 149_999)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert paper.optimizer == SGD(lr=0.001, momentum=0.9, weight_decay=5e-4, decays="weights", bias_rate=2)
    assert (paper.short_sides, paper.longest_side) == ((480, 576, 688, 864, 1200), 2000)
    assert (paper.test_side, paper.test_longest_side) == (600, 1000)
    assert paper.settings == RegionSettings(6, 64, 0.25, 0.5, 0.1, 0.3, 100)
    assert next(iter(card.metrics)) == "ap50"
    assert card.datasets == (("voc2007", "trainval"), ("voc2007", "test"))


@pytest.mark.parametrize("architecture", ["ResNet", "SplitAlexNet", "Descriptors"])
def test_the_card_refuses_what_it_has_no_layers_for(architecture: str) -> None:
    assert "is made for the stages of AlexNet" in voc07_det_fast_rcnn_krahenbuhl.card.refusal(architecture, ())


def test_proposals_follow_their_pixels(tmp_path: Path) -> None:
    """As boxes do, scaled and mirrored: the first proposal is the object's own box."""
    Image.new("RGB", (48, 32)).save(tmp_path / "a.png")
    rows = np.array([[10, 4, 30, 20], [0, 0, 48, 32]], dtype=np.float32)
    one = Annotation(rows[:1], np.array([7]), np.array([False]), (48, 32), proposals=rows)
    annotated = Annotated(ImageSet("voc2007/test", tmp_path, ["a.png"]), (one,), CLASSES, "Mend it.")
    values = voc07_det_fast_rcnn_krahenbuhl.values["smoke"]
    seen = set()
    for epoch in range(40):
        pixels, target = TrainSamples(annotated, values, seed=0)[(epoch, 0)]
        assert torch.equal(target.proposals[:1], target.boxes)
        assert target.proposals[1].tolist() == [0, 0, pixels.shape[2], pixels.shape[1]]
        seen.add(target.boxes[0, 0].item())
    assert len(seen) == 4  # two sizes, twice
    _, (proposals,), _ = TestSamples(annotated, values, seed=0)[(0, 0)]
    assert proposals.tolist() == [[30, 12, 90, 60], [0, 0, 144, 96]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"), "smoke", datasets=("voc2007",), progress=False)


def test_a_whole_transfer(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its AP is the evaluator's of what it found; the record tells the proposals."""
    kept: list[list[Detections]] = []
    detect = c4._detect
    monkeypatch.setattr(c4, "_detect", lambda *given: kept.append(detect(*given)) or kept[-1])  # type: ignore[func-returns-value]
    said: dict[str, dict[str, float]] = {}
    report = lambda what, done, total, figures: said.update({what: figures})  # noqa: E731
    context = Context(world, "smoke", 0, tmp_path, torch.device("cpu"), 0, report)
    transfer = voc07_det_fast_rcnn_krahenbuhl
    scores = transfer.run(built(CAFFENET), context)
    test = transfer.task.read(world, "voc2007", "test")
    aps = average_precisions(test.annotations, kept[0], 20, eleven_points)
    assert scores.metrics["ap50"] == pytest.approx(float(np.nanmean(aps[0])))
    assert sum(len(one.scores) for one in kept[0]) > 100
    assert scores.detail["begun_anew"] == ["fc6", "fc7"]
    proposals = scores.detail["proposals"]["voc2007/test"]
    assert proposals["from"] == "windows"
    assert proposals["recall"] == said["proposals of voc2007/test"]["recall"] > 90
    assert scores.data == transfer.annotations(world)


def test_where_real_data_is_read_the_files_are_asked_for(world: Path) -> None:
    shortfalls = voc07_det_fast_rcnn_krahenbuhl.shortfalls(world)
    assert list(shortfalls) == ["proposals of voc2007/trainval", "proposals of voc2007/test"]
    assert "0 of 20 images" in shortfalls["proposals of voc2007/test"]
    assert "sslbench propose" in shortfalls["proposals of voc2007/test"]


def test_it_is_found() -> None:
    found = find_transfers()["voc07_det_fast_rcnn_krahenbuhl"]
    assert isinstance(found, FastRcnnDetection)
    assert found.chosen_engine(None) is None


def test_inputs_of_any_colour_space_are_kept() -> None:
    network = replace(CAFFENET, width=0.0625).build(InputSpec(64, BGR()))
    assert for_regions(network, 6, 0).input.colour == BGR()
