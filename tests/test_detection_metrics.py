"""VOC's average precision against detectron2's evaluator, pycocotools and cases done by hand."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import box_iou

from benchmark.data.annotation import Annotation
from benchmark.data.voc import CLASSES
from benchmark.transfers.detection.average_precision import THRESHOLDS, area, average_precisions, eleven_points
from benchmark.transfers.detection.settings import Detections

SIDE = 40
Case = tuple[list[Annotation], list[Detections]]


def truth(*objects: tuple[int, int, int, int, int, bool]) -> Annotation:
    """Of (x1, y1, x2, y2, label, difficult), 0-based and half-open."""
    rows = np.array([one[:4] for one in objects], dtype=np.float32).reshape(-1, 4)
    labels = np.array([one[4] for one in objects], dtype=np.int64)
    return Annotation(rows, labels, np.array([one[5] for one in objects], dtype=bool), (SIDE, SIDE))


def detections(*rows: tuple[float, float, float, float, int, float]) -> Detections:
    """Of (x1, y1, x2, y2, label, score)."""
    boxes = np.array([one[:4] for one in rows], dtype=np.float32).reshape(-1, 4)
    labels = np.array([one[4] for one in rows], dtype=np.int64)
    return Detections(boxes, np.array([one[5] for one in rows], dtype=np.float32), labels)


def crowded_cases(count: int, classes: int = 2, images: int = 3) -> Iterator[Case]:
    """Objects that overlap, a third of them difficult; detections that are shifted objects, duplicates, other classes
    or chance, with scores of which many are equal once rounded."""
    rng = np.random.default_rng(7)
    for _ in range(count):
        truths, found = [], []
        for _ in range(images):
            corners = rng.integers(0, 20, (rng.integers(0, 5), 2))
            boxes = np.concatenate([corners, corners + rng.integers(2, 20, corners.shape)], axis=1).astype(np.float32)
            labels, difficult = rng.integers(0, classes, len(boxes)), rng.random(len(boxes)) < 1 / 3
            truths.append(Annotation(boxes, labels, difficult, (SIDE, SIDE)))
            near = np.repeat(np.arange(len(boxes)), rng.integers(0, 4, len(boxes)))
            shift = rng.normal(0, 1.5, (len(near), 4)) * (rng.random((len(near), 1)) < 0.7)
            chance = rng.random((3, 2)) * 20
            given = np.concatenate([boxes[near] + shift, np.hstack([chance, chance + 10])]).astype(np.float32)
            given[:, 2:] = np.maximum(given[:, 2:], given[:, :2] + 1)
            kinds = np.append(labels[near], rng.integers(0, classes, 3))
            kinds = np.where(rng.random(len(kinds)) < 0.15, rng.integers(0, classes, len(kinds)), kinds)
            scores = rng.integers(0, 6, len(kinds)) / 6 + rng.normal(0, 2e-4, len(kinds))
            found.append(Detections(given, scores.astype(np.float32).clip(0, 1), kinds))
        yield truths, found


@pytest.mark.parametrize(("year", "cases"), [(2007, 1_000), (2012, 300)])
def test_it_is_detectron2s_evaluator(year: int, cases: int, tmp_path: Path) -> None:
    pytest.importorskip("detectron2.evaluation", reason="docs/protocols.md, Engines, says how to get detectron2")
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import PascalVOCDetectionEvaluator

    interpolation = eleven_points if year == 2007 else area
    nothing_to_find = 0
    for number, (truths, found) in enumerate(crowded_cases(cases)):
        folder, name = tmp_path / str(number), f"voc_{year}_fuzz_{number}"
        write_devkit(folder, truths)
        MetadataCatalog.get(name).set(thing_classes=list(CLASSES[:2]), dirname=str(folder), year=year, split="test")
        evaluator = PascalVOCDetectionEvaluator(name)
        evaluator.reset()
        evaluator.process(*as_detectron2(found))
        ours = average_precisions(truths, found, 2, interpolation)
        nothing_to_find += bool(np.isnan(ours).any())
        if year == 2012 and np.isnan(ours).any():
            continue  # recall is 0 / 0 there: its number is then nan too, and a warning
        with np.errstate(invalid="ignore"):
            theirs = evaluator.evaluate()["bbox"]
        ours = np.nan_to_num(ours)  # without an object to find, the 11 points of detectron2 are 0
        assert theirs["AP"] == pytest.approx(ours.mean(), abs=1e-9), number
        assert theirs["AP50"] == pytest.approx(ours[0].mean(), abs=1e-9), number
        assert theirs["AP75"] == pytest.approx(ours[5].mean(), abs=1e-9), number
    assert 0 < nothing_to_find < cases / 2


def write_devkit(folder: Path, truths: list[Annotation]) -> None:
    (folder / "Annotations").mkdir(parents=True)
    (folder / "ImageSets/Main").mkdir(parents=True)
    for number, image in enumerate(truths):
        objects = "".join(
            f"<object><name>{CLASSES[label]}</name><pose>Left</pose><truncated>0</truncated>"
            f"<difficult>{int(difficult)}</difficult><bndbox><xmin>{int(x1) + 1}</xmin><ymin>{int(y1) + 1}</ymin>"
            f"<xmax>{int(x2)}</xmax><ymax>{int(y2)}</ymax></bndbox></object>"
            for (x1, y1, x2, y2), label, difficult in zip(image.boxes, image.labels, image.ignored, strict=True)
        )
        (folder / f"Annotations/{number}.xml").write_text(f"<annotation>{objects}</annotation>")
    (folder / "ImageSets/Main/test.txt").write_text("".join(f"{number}\n" for number in range(len(truths))))


def as_detectron2(found: list[Detections]) -> tuple[list[dict], list[dict]]:
    from detectron2.structures import Boxes, Instances

    outputs = []
    for one in found:
        instances = Instances((SIDE, SIDE))
        instances.pred_boxes = Boxes(torch.from_numpy(one.boxes))
        instances.scores, instances.pred_classes = torch.from_numpy(one.scores), torch.from_numpy(one.labels)
        outputs.append({"instances": instances})
    return [{"image_id": str(number)} for number in range(len(found))], outputs


def separate_cases(count: int) -> Iterator[Case]:
    """No object overlaps another, no two scores are equal, and no IoU is a threshold, where COCO would match and VOC
    would not: then COCO's matching is VOC's."""
    rng = np.random.default_rng(3)
    for _ in range(count):
        truths, found = [], []
        scores = iter(rng.permutation(999) / 1000)
        for _ in range(3):
            places = rng.permutation(16)[: rng.integers(1, 9)]
            corners = np.stack([places % 4, places // 4], axis=1) * 10
            boxes = np.hstack([corners, corners + rng.integers(4, 10, (len(corners), 2))]).astype(np.float32)
            labels = rng.integers(0, 2, len(boxes))
            truths.append(Annotation(boxes, labels, np.zeros(len(boxes), dtype=bool), (SIDE, SIDE)))
            near = np.repeat(np.arange(len(boxes)), rng.integers(0, 3, len(boxes)))
            given = boxes[near] + np.round(rng.normal(0, 0.7, (len(near), 4)), 1)
            iou = box_iou(torch.from_numpy(given), torch.from_numpy(boxes[near]).double()).diagonal().numpy()
            clear = np.abs(iou[:, None] - THRESHOLDS).min(axis=1) > 1e-6
            given, near = given[clear].astype(np.float32), near[clear]
            sure = np.array([next(scores) for _ in near], dtype=np.float32)
            found.append(Detections(given, sure, labels[near]))
        yield truths, found


def test_it_is_pycocotools_where_the_definitions_agree() -> None:
    for truths, found in separate_cases(1_000):
        ours = average_precisions(truths, found, 2, eleven_points)
        assert np.nan_to_num(ours, nan=-100) == pytest.approx(coco(truths, found), abs=1e-6)


def coco(truths: list[Annotation], found: list[Detections]) -> np.ndarray:
    """(10, classes) in percent, -100 without objects: COCO's precision read at VOC's eleven recalls."""
    objects = [
        {"image_id": i, "category_id": int(label), "bbox": _xywh(box), "area": 1.0, "iscrowd": 0}
        for i, image in enumerate(truths)
        for box, label in zip(image.boxes, image.labels, strict=True)
    ]
    given = [
        {"image_id": i, "category_id": int(label), "bbox": _xywh(np.round(box.astype(float), 1)), "score": float(score)}
        for i, image in enumerate(found)
        for box, label, score in zip(image.boxes, image.labels, image.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO()
        dataset.dataset = {
            "images": [{"id": i} for i in range(len(truths))],
            "categories": [{"id": 0}, {"id": 1}],
            "annotations": [{"id": number, **one} for number, one in enumerate(objects, start=1)],
        }
        dataset.createIndex()
        evaluation = COCOeval(dataset, dataset.loadRes(given), "bbox")
        evaluation.params.recThrs, evaluation.params.maxDets = np.arange(0.0, 1.1, 0.1), [1000]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return 100 * evaluation.eval["precision"][..., 0, 0].mean(axis=1)


def _xywh(box: np.ndarray) -> list[float]:
    return [float(value) for value in (*box[:2], *(box[2:] - box[:2]))]


def ap50(truths: list[Annotation], found: list[Detections]) -> float:
    return average_precisions(truths, found, 1, eleven_points)[0, 0]


def test_by_hand() -> None:
    one = truth((0, 0, 10, 10, 0, False))
    exact = (0, 0, 10, 10, 0, 0.9)
    assert ap50([one], [detections(exact)]) == 100
    assert ap50([one], [detections((20, 20, 30, 30, 0, 0.95), exact)]) == 50, "a surer error halves every precision"
    assert ap50([one], [detections(exact, exact)]) == 100, "a duplicate comes after full recall"
    assert ap50([one], [detections((0, 0, 10, 20, 0, 0.9))]) == 0, "an IoU of exactly a half is no match"
    assert ap50([one], [detections()]) == 0
    assert average_precisions([one], [detections(exact)], 1, area).tolist() == [[100]] * len(THRESHOLDS)


def test_difficult_objects_count_neither_way() -> None:
    both = truth((0, 0, 10, 10, 0, False), (20, 20, 30, 30, 0, True))
    found = [detections((20, 20, 30, 30, 0, 0.9), (20, 20, 30, 30, 0, 0.8), (0, 0, 10, 10, 0, 0.7))]
    assert ap50([both], found) == 100
    assert np.isnan(ap50([truth((0, 0, 10, 10, 0, True))], found)), "there is nothing to find"


def test_a_detection_takes_the_object_it_overlaps_most_or_none() -> None:
    """The second goes to the first's object although the other is free: COCO would let it have that one."""
    two = truth((0, 0, 10, 10, 0, False), (0, 0, 10, 9, 0, False))
    found = [detections((0, 0, 10, 10, 0, 0.9), (0, 0, 10, 10, 0, 0.8))]
    assert ap50([two], found) == pytest.approx(100 * 6 / 11)
