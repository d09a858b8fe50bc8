"""COCO's protocol: scores that are pycocotools' own, masks that follow their objects, the paper's values."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import handmade
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmark.backbones.resnet import ResNet
from benchmark.core.errors import UserError
from benchmark.core.optimisation import SGD, Milestones, Steps
from benchmark.data.annotation import Annotated, Annotation
from benchmark.data.boxes import read_instances
from benchmark.data.image_set import ImageSet
from benchmark.recipe.inputs import InputSpec
from benchmark.toyland import build_world
from benchmark.transfers import find_transfers
from benchmark.transfers.detection import c4
from benchmark.transfers.detection.c4 import Detection, DetectionValues, TrainSamples
from benchmark.transfers.detection.coco import coco_scores
from benchmark.transfers.detection.faster_rcnn import FasterRcnn
from benchmark.transfers.detection.masks import compressed, decompressed, pasted, within_boxes
from benchmark.transfers.detection.settings import TRAINED, Detections, Found, Target
from benchmark.transfers.training import Course

PERSON, DOG, TOOTHBRUSH = range(3)
WITH_MASKS = replace(TRAINED, mask_channels=16)


def square(x1: int, y1: int, x2: int, y2: int, size: tuple[int, int] = (10, 8)) -> str:
    image = np.zeros((size[1], size[0]), dtype=bool)
    image[y1:y2, x1:x2] = True
    return compressed(image)


def detections(*rows: tuple[int, int, int, int, int, float]) -> Detections:
    """Of (x1, y1, x2, y2, label, score); masks fill their boxes."""
    boxes = np.array([row[:4] for row in rows], dtype=np.float32).reshape(-1, 4)
    labels = np.array([row[4] for row in rows], dtype=np.int64)
    scores = np.array([row[5] for row in rows], dtype=np.float32)
    return Detections(boxes, scores, labels, tuple(square(*row[:4]) for row in rows))


# --- scores


def written(root: Path, *objects: dict[str, Any]) -> Annotated:
    """The handmade val images with other objects."""
    path = handmade.coco(root) / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"] = [{"id": number, **one} for number, one in enumerate(objects, start=1)]
    path.write_text(json.dumps(content))
    return read_instances(root, "coco2017", "val")


def box(image_id: int, category_id: int, x1: int, y1: int, x2: int, y2: int) -> dict[str, Any]:
    """An object that fills its box."""
    outline = [x1, y1, x2, y1, x2, y2, x1, y2]
    sides = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
    return {"image_id": image_id, "category_id": category_id, "iscrowd": 0, "segmentation": [outline], **sides}


def test_by_hand(tmp_path: Path) -> None:
    """Two dogs and a person, in the images 397133, 37777 and 139. Of the three dogs that were found, the surest and the
    least sure are dogs, the one between is none: precision is 1 up to a recall of a half, which 51 of COCO's 101 points
    are, and two thirds up to 1. The person overlaps what was found by 8 of 16: enough for AP50 alone."""
    test = written(tmp_path, box(397133, 18, 0, 0, 4, 4), box(37777, 18, 5, 0, 9, 4), box(139, 1, 2, 2, 6, 6))
    found = [
        detections((0, 0, 4, 4, DOG, 0.9), (6, 4, 10, 8, DOG, 0.8)),
        detections((2, 2, 6, 4, PERSON, 0.5)),
        detections((5, 0, 9, 4, DOG, 0.7)),
    ]
    metrics, detail = coco_scores(test, found)
    dog = 100 * (51 + 50 * 2 / 3) / 101
    assert detail["per_class"]["dog"] == pytest.approx(dict.fromkeys(metrics, dog))
    assert detail["per_class"]["person"] == pytest.approx(
        {"ap": 10, "ap50": 100, "ap75": 0, "ap_mask": 10, "ap50_mask": 100, "ap75_mask": 0}
    )
    assert "toothbrush" not in detail["per_class"]
    assert metrics["ap50"] == pytest.approx((dog + 100) / 2)
    assert metrics["ap75_mask"] == pytest.approx(dog / 2)


def test_finding_part_of_a_crowd_counts_neither_way(tmp_path: Path) -> None:
    herd = {**box(139, 18, 0, 4, 10, 8), "iscrowd": 1, "segmentation": {"size": [8, 10], "counts": [4] * 20}}
    test = written(tmp_path, herd, box(139, 18, 0, 0, 4, 4))
    surest = (2, 5, 5, 8, DOG, 0.9)  # within the herd
    nothing = detections()
    alone = coco_scores(test, [nothing, detections((0, 0, 4, 4, DOG, 0.8)), nothing])
    assert coco_scores(test, [nothing, detections(surest, (0, 0, 4, 4, DOG, 0.8)), nothing]) == alone
    assert alone[0]["ap"] == pytest.approx(100)
    elsewhere = detections((6, 0, 9, 3, DOG, 0.9), (0, 0, 4, 4, DOG, 0.8))
    assert coco_scores(test, [nothing, elsewhere, nothing])[0]["ap"] == pytest.approx(50)


def test_nothing_found_is_nought_and_nothing_to_find_is_an_error(tmp_path: Path) -> None:
    test = written(tmp_path, box(139, 18, 0, 0, 4, 4))
    metrics, _ = coco_scores(test, [detections()] * 3)
    assert set(metrics.values()) == {0.0}
    herd = {**box(139, 18, 0, 4, 10, 8), "iscrowd": 1, "segmentation": {"size": [8, 10], "counts": [4] * 20}}
    with pytest.raises(UserError, match=r"instances_val2017\.json: no image of coco2017/val shows an object"):
        coco_scores(written(tmp_path, herd), [detections()] * 3)


def test_only_the_images_that_were_read_are_scored(tmp_path: Path) -> None:
    """One that cannot be read is left out, and what it shows is nobody's fault."""
    written(tmp_path, box(397133, 18, 0, 0, 4, 4), box(139, 18, 0, 0, 4, 4))
    handmade.text(tmp_path / "coco/unreadable.txt", "val2017/000000397133.jpg\t0 bytes\n")
    test = read_instances(tmp_path, "coco2017", "val")
    metrics, _ = coco_scores(test, [detections((0, 0, 4, 4, DOG, 0.9)), detections()])
    assert metrics["ap"] == pytest.approx(100)


def near(test: Annotated, seed: int) -> list[Detections]:
    """Objects shifted a little, some of another class, some twice, some not at all; their masks have holes."""
    rng = np.random.default_rng(seed)
    found = []
    for one in test.annotations:
        seen = one.subset(~one.ignored)
        again = np.repeat(np.arange(len(seen.boxes)), rng.integers(0, 3, len(seen.boxes)))
        boxes = np.clip(seen.boxes[again] + rng.normal(0, 2, (len(again), 4)), 0, np.tile(one.size, 2))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        boxes = boxes.astype(np.float32)
        another = rng.integers(0, len(test.classes), len(again))
        labels = np.where(rng.random(len(again)) < 0.2, another, seen.labels[again])
        masks = []
        for place, around in zip(again, torch.from_numpy(boxes), strict=True):
            (cells,) = within_boxes([seen.masks[place]], around[None], 16)
            unsure = torch.from_numpy(rng.uniform(0.4, 1, (16, 16))).float()
            masks.append(compressed(pasted(cells * unsure, around, one.size)))
        found.append(Detections(boxes, rng.random(len(again)).astype(np.float32), labels, tuple(masks)))
    return found


def as_results(test: Annotated, found: list[Detections], ids: dict[str, int], kind: str) -> list[dict[str, Any]]:
    """COCO's format for results, by the names of files and categories."""
    results = []
    for file, one, annotation in zip(test.images.files, found, test.annotations, strict=True):
        width, height = annotation.size
        for place, (x1, y1, x2, y2) in enumerate(one.boxes.tolist()):
            result = {"image_id": int(Path(file).stem), "category_id": ids[test.classes[one.labels[place]]]}
            result["score"] = one.scores[place].item()
            if kind == "bbox":
                result["bbox"] = [x1, y1, x2 - x1, y2 - y1]
            else:
                result["segmentation"] = {"size": [height, width], "counts": one.masks[place]}
            results.append(result)
    return results


def test_the_scores_are_those_of_a_results_file_that_pycocotools_reads(tmp_path: Path) -> None:
    """What was found, written to a file under COCO's ids by other code than ours, and scored as its demo does."""
    root = build_world(tmp_path / "world", "smoke", datasets=["coco2017"], progress=False)
    test = read_instances(root, "coco2017", "train")
    found = near(test, seed=0)
    metrics, detail = coco_scores(test, found)
    for name, value in metrics.items():
        assert np.mean([values[name] for values in detail["per_class"].values()]) == pytest.approx(value)
    listing, file = root / "coco/annotations/instances_train2017.json", tmp_path / "results.json"
    ids = {category["name"]: category["id"] for category in json.loads(listing.read_text())["categories"]}
    for kind, ending in (("bbox", ""), ("segm", "_mask")):
        file.write_text(json.dumps(as_results(test, found, ids, kind)))
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(listing))
            evaluation = COCOeval(truth, truth.loadRes(str(file)), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        assert 2 < 100 * evaluation.stats[0] < 60
        assert [metrics[f"{name}{ending}"] for name in ("ap", "ap50", "ap75")] == (100 * evaluation.stats[:3]).tolist()


def test_perfect_detections_score_a_hundred(tmp_path: Path) -> None:
    """Labels are the places of COCO's ids in increasing order, boxes and masks where the file has them."""
    root = build_world(tmp_path / "world", "smoke", datasets=["coco2017"], progress=False)
    test = read_instances(root, "coco2017", "val")
    found = []
    for one in test.annotations:
        kept = one.subset(~one.ignored)
        drawn = [
            coco_masks.merge(coco_masks.frPyObjects([p.ravel().tolist() for p in polygons], *one.size[::-1]))
            for polygons in kept.masks
        ]
        codes = tuple(mask["counts"].decode() for mask in drawn)
        found.append(Detections(kept.boxes, np.ones(len(kept.boxes), np.float32), kept.labels, codes))
    metrics, detail = coco_scores(test, found)
    assert metrics == pytest.approx(dict.fromkeys(metrics, 100))
    assert len(detail["per_class"]) > 10


# --- masks


def test_cells_that_a_polygon_covers() -> None:
    left = (np.array([[10.0, 20], [30, 20], [30, 60], [10, 60]]),)
    corners = (
        np.array([[10.0, 20], [20, 20], [20, 30], [10, 30]]),
        np.array([[40.0, 50], [50, 50], [50, 60], [40, 60]]),
    )
    boxes = torch.tensor([[10.0, 20, 50, 60], [10, 20, 50, 60], [30, 20, 50, 60]])
    cells = within_boxes([left, corners, left], boxes, 4)
    assert cells.dtype == torch.bool
    assert cells[0].tolist() == [[True, True, False, False]] * 4
    assert cells[1].nonzero().tolist() == [[0, 0], [3, 3]]
    assert not cells[2].any()


def test_cells_are_drawn_into_the_image() -> None:
    whole = pasted(torch.ones(4, 4), torch.tensor([2.0, 1, 8, 5]), (10, 8))
    assert whole.shape == (8, 10)
    assert np.argwhere(whole).tolist() == [[y, x] for y in range(1, 5) for x in range(2, 8)]
    halves = torch.tensor([[1.0, 0], [1, 0]])
    assert pasted(halves, torch.tensor([0.0, 0, 8, 8]), (10, 8)).any(axis=0).tolist() == [True] * 4 + [False] * 6
    assert pasted(torch.ones(2, 2), torch.tensor([-3.0, 5.7, 20, 9]), (10, 8)).sum() == 20  # y 6 and 7 of every column


def test_an_object_comes_back_from_its_cells() -> None:
    angles = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    oval = np.stack([60 + 40 * np.cos(angles), 50 + 30 * np.sin(angles)], axis=1)
    truth = coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects([oval.ravel().tolist()], 100, 120))).astype(bool)
    around = torch.tensor([[20.0, 20, 100, 80]])
    back = pasted(within_boxes([(oval,)], around, 14)[0].float(), around[0], (120, 100))
    assert (back & truth).sum() / (back | truth).sum() > 0.93
    np.testing.assert_array_equal(decompressed(compressed(back), (120, 100)), back)


def test_masks_are_drawn_as_detectron2_draws_them() -> None:
    layers = pytest.importorskip("detectron2.layers", reason="docs/protocols.md, Engines, says how to get detectron2")
    generator = torch.Generator().manual_seed(0)
    cells = torch.rand(40, 14, 14, generator=generator)
    corners = torch.rand(40, 2, 2, generator=generator).sort(dim=1).values * torch.tensor([90.0, 70.0])
    boxes = torch.cat([corners[:, 0], corners[:, 1] + 1], dim=1)
    wanted = layers.paste_masks_in_image(cells, boxes, (64, 80)).numpy()
    for own, corner, drawn in zip(cells, boxes, wanted, strict=True):
        np.testing.assert_array_equal(pasted(own, corner, (80, 64)), drawn)


def test_polygons_follow_their_pixels(tmp_path: Path) -> None:
    bounds = (10, 4, 30, 20)
    pixels = np.zeros((32, 48, 3), dtype=np.uint8)
    pixels[bounds[1] : bounds[3], bounds[0] : bounds[2]] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    outline = np.array([[10, 4], [30, 4], [30, 20], [10, 20]], dtype=np.float32)
    one = Annotation(np.array([bounds], np.float32), np.array([7]), np.array([False]), (48, 32), ((outline,),))
    annotated = Annotated(ImageSet("coco2017/train", tmp_path, ["a.png"]), (one,), (), "Mend it.")
    values = DetectionValues(WITH_MASKS, Course(Steps(4), 2, Milestones(())), SGD(lr=0.1), short_sides=(32, 64, 96))
    flipped = set()
    for epoch in range(20):
        _, target = TrainSamples(annotated, values, seed=0)[(epoch, 0)]
        (polygon,) = target.masks[0]
        assert polygon.dtype == np.float64
        np.testing.assert_allclose([*polygon.min(axis=0), *polygon.max(axis=0)], target.boxes[0], atol=1e-4)
        flipped.add(bool(polygon[0, 0] > polygon[1, 0]))
    assert flipped == {False, True}


def test_masks_are_given_in_the_original_image() -> None:
    found = Found(
        torch.tensor([[4.0, 2, 16, 10], [30, 0, 40, 8]]), torch.tensor([0.9, 0.8]), torch.arange(2), torch.ones(2, 4, 4)
    )
    back = c4._in_original(found, (20, 16), (10, 8))
    assert len(back.masks) == len(back.boxes) == 1  # the other lies beside the image
    assert back.masks[0] == square(2, 1, 8, 5)


# --- the network


def detector() -> FasterRcnn:
    torch.manual_seed(0)
    backbone = ResNet(width=0.0625).build(InputSpec(32))
    return FasterRcnn(backbone, 3, replace(WITH_MASKS, regions=8, anchors=8, least_score=0.9), seed=0)


def test_a_mask_is_learned_for_the_true_class_alone() -> None:
    model = detector().train()
    target = Target(
        torch.tensor([[8.0, 8, 56, 56]]), torch.tensor([DOG]), ((np.array([[8.0, 8], [56, 8], [56, 56], [8, 56]]),),)
    )
    loss = model.losses([torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)], [target])["masks"]
    assert loss.item() == pytest.approx(np.log(2), rel=0.1)  # as drawn, it says a half everywhere
    loss.backward()
    assert model.masks.weight.grad is not None
    moved = model.masks.weight.grad.flatten(1).abs().sum(dim=1) > 0
    assert moved.tolist() == [label == DOG for label in range(3)]
    assert model.classes.weight.grad is None


def test_masks_are_learned_where_they_are_asked_for_and_change_nothing_else() -> None:
    plain = FasterRcnn(detector().backbone, 3, TRAINED, seed=0).state_dict()
    with_masks = detector()
    assert with_masks.state_dict().keys() - plain.keys() == {
        f"{layer}.{kind}" for layer in ("mask_hidden", "masks") for kind in ("weight", "bias")
    }
    assert all(torch.equal(with_masks.state_dict()[key], value) for key, value in plain.items())
    heads = {id(parameter) for parameter in with_masks.head_parameters()}
    assert {id(with_masks.mask_hidden.weight), id(with_masks.masks.bias)} <= heads


def test_an_image_in_which_nothing_is_found() -> None:
    with torch.inference_mode():
        (found,) = detector().eval().detect([torch.zeros(3, 64, 64, dtype=torch.uint8)])
    assert found.masks is not None
    assert found.masks.shape == (0, 14, 14)
    assert c4._in_original(found, (64, 64), (64, 64)).masks == ()


def test_paper_values() -> None:
    """MoCo's coco_R_50_C4_2x_moco.yaml, and detectron2's defaults where it says nothing."""
    transfer = find_transfers()["coco_det_c4_moco"]
    assert isinstance(transfer, Detection)
    paper, images = transfer.values["paper"], 117_266
    assert paper.course.batch_size == 16
    assert paper.course.steps_total(images) == 180_000
    assert paper.optimizer == SGD(lr=0.02, momentum=0.9, weight_decay=1e-4)
    assert paper.head_rate == 1.0
    rates = {0: 0.001, 1_000: 1.0, 119_999: 1.0, 120_000: 0.1, 159_999: 0.1, 160_000: 0.01, 179_999: 0.01}
    assert {step: pytest.approx(paper.course.factor(step, images)) for step in rates} == rates
    assert paper.short_sides == (640, 672, 704, 736, 768, 800)
    assert (paper.test_side, paper.longest_side, paper.precise_steps) == (800, 1333, 200)
    assert paper.settings == replace(TRAINED, mask_channels=256)
    assert transfer.card.datasets == (("coco2017", "train"), ("coco2017", "val"))
    assert list(transfer.card.metrics) == ["ap", "ap50", "ap75", "ap_mask", "ap50_mask", "ap75_mask"]
