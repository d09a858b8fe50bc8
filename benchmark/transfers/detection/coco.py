"""Detection and instance segmentation of COCO val2017 by Mask R-CNN on the first stages of a ResNet-50, with the last
stage as the head that boxes and masks share.

He et al., CVPR 2020 (arXiv:1911.05722), section 4.2.2 and Table 5d, as in facebookresearch/moco,
detection/configs/coco_R_50_C4_2x_moco.yaml [MOCO]: the one schedule for COCO that was released. What it leaves open is
detectron2's default [D2]. There MoCo reaches 40.7 AP of boxes and 35.4 of masks, a supervised ResNet-50 40.0 and 34.7,
one trained from nothing 35.6 and 31.4.

The scores are pycocotools' own: its COCOeval reads the annotation file and what was found, under COCO's ids.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmark.core.optimisation import SGD, Milestones, Steps, Warmup
from benchmark.data.annotation import Annotated
from benchmark.data.boxes import read_instances
from benchmark.data.coco import NAME, annotation_file
from benchmark.data.findings import bad
from benchmark.records.metric import PERCENT
from benchmark.transfers.contract import ProtocolCard
from benchmark.transfers.detection.c4 import Detection, DetectionValues, Task
from benchmark.transfers.detection.desk import MOCO_DEPARTURES, at_scales, desk_departures
from benchmark.transfers.detection.settings import TRAINED, Detections
from benchmark.transfers.training import Course

ENDINGS = {"bbox": "", "segm": "_mask"}  # of the metrics' names, by what COCOeval calls the kind
AT = {"ap": slice(None), "ap50": 0, "ap75": 5}  # places among COCOeval's ten IoU thresholds
ALL_SIZES, HUNDRED = 0, 2  # places among its sizes of objects, and its most detections an image

# masks need more cells than boxes: in 4x4 even the true masks of Toyland reach an AP of only 5, in 8x8 one of 26
DESK_STEPS, DESK_CELLS = 800, 8

Result = dict[str, Any]  # what COCO's format says of one thing found


def coco_scores(test: Annotated, found: list[Detections]) -> tuple[dict[str, float], dict[str, Any]]:
    """AP, AP50 and AP75 of boxes and of masks, in percent, and each class's."""
    from pycocotools.coco import COCO

    path = annotation_file(test.images.root.parent, test.images.name.split("/")[1])
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        truth = COCO(path)
    ids = {image["file_name"]: image["id"] for image in truth.dataset["images"]}
    image_ids = [ids[file.partition("/")[2]] for file in test.images.files]
    metrics: dict[str, float] = {}
    per_class: dict[str, dict[str, float]] = {}
    for kind, ending in ENDINGS.items():
        results = _results(kind, image_ids, found, test, sorted(truth.getCatIds()))
        precision, summary = _evaluated(kind, truth, results, image_ids)
        if summary[0] < 0:
            raise bad(path, f"no image of {test.images.name} shows an object to be found", test.fix)
        metrics |= {f"{name}{ending}": 100 * value for name, value in zip(AT, summary, strict=True)}
        for name, values in _of_each_class(precision, test.classes).items():
            per_class.setdefault(name, {}).update({f"{what}{ending}": value for what, value in values.items()})
    return metrics, {"per_class": per_class}


def _of_each_class(precision: np.ndarray, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """AP, AP50 and AP75 in percent of the classes that have an object; of the others all precisions are -1."""
    points = dict(zip(classes, np.moveaxis(precision, 2, 0), strict=True))
    return {
        name: {what: 100 * float(own[at].mean()) for what, at in AT.items()}
        for name, own in points.items()
        if own.max() >= 0
    }


def _results(
    kind: str, image_ids: Sequence[int], found: list[Detections], test: Annotated, category_ids: Sequence[int]
) -> list[Result]:
    results = []
    for image_id, one, annotation in zip(image_ids, found, test.annotations, strict=True):
        where = _masks(one, annotation.size) if kind == "segm" else _boxes(one)
        for place, label, score in zip(where, one.labels.tolist(), one.scores.tolist(), strict=True):
            results.append({**place, "image_id": image_id, "category_id": category_ids[label], "score": score})
    return results


def _boxes(found: Detections) -> list[Result]:
    corners = found.boxes.astype(float)
    return [{"bbox": box} for box in np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).tolist()]


def _masks(found: Detections, size: tuple[int, int]) -> list[Result]:
    """Without their boxes, whose area COCOeval would take for the masks'."""
    return [{"segmentation": {"size": [size[1], size[0]], "counts": counts}} for counts in found.masks]


def _evaluated(kind: str, truth: Any, results: list[Result], image_ids: list[int]) -> tuple[np.ndarray, list[float]]:
    """COCOeval's precision (10 thresholds, 101 recalls, classes), and the first three of its summary; -1 where there is
    nothing to find."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        given = truth.loadRes(results) if results else COCO()  # loadRes wants at least one
        if not results:
            given.dataset = {**truth.dataset, "annotations": []}
            given.createIndex()
        evaluation = COCOeval(truth, given, kind)
        evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.eval["precision"][..., ALL_SIZES, HUNDRED], evaluation.stats[:3].tolist()


def _trains(train: Annotated) -> Annotated:
    return train.without_ignored().with_objects()


PAPER = DetectionValues(
    replace(TRAINED, mask_channels=256),  # D2
    Course(
        Steps(180_000),  # MOCO
        16,  # MOCO
        Milestones((Steps(120_000), Steps(160_000)), warmup=Warmup(Steps(1_000), 0.001)),  # MOCO; warm-up D2
    ),
    SGD(lr=0.02, momentum=0.9, weight_decay=1e-4),  # MOCO; momentum and decay D2
    short_sides=(640, 672, 704, 736, 768, 800),  # MOCO
    precise_steps=200,  # MOCO, with D2's number of batches
)

coco_det_c4_moco = Detection(
    ProtocolCard(
        id="coco_det_c4_moco",
        version=1,
        title="COCO val2017, Mask R-CNN C4, everything trained",
        citation="He et al., CVPR 2020, arXiv:1911.05722, section 4.2.2; 40.7 AP of boxes, 35.4 of masks (2x schedule)",
        metrics=dict.fromkeys((f"{name}{ending}" for ending in ENDINGS.values() for name in AT), PERCENT),
        datasets=((NAME, "train"), (NAME, "val")),
        takes=("ResNet",),
        trains=True,
        frozen="nothing: all weights train, BatchNorm in training mode",
        selected="nothing: the last iterate is scored at every scale",
        departures=(
            *MOCO_DEPARTURES,
            *desk_departures(DESK_STEPS, DESK_CELLS),
            f"desk: masks of {DESK_CELLS}x{DESK_CELLS} cells",
        ),
    ),
    at_scales(PAPER, 0, DESK_STEPS, DESK_CELLS),
    Task(read_instances, _trains, coco_scores),
)
