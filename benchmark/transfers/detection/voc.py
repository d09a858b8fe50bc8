"""Detection on VOC2007 test by Faster R-CNN on the first stages of a ResNet-50, with the last stage as its head.

*_pirl: Misra & van der Maaten, CVPR 2020 (arXiv:1912.01991), section 3.1 and supplement B [PIRL]; BatchNorm frozen.
*_moco: He et al., CVPR 2020 (arXiv:1911.05722), section 4.2.1, as in facebookresearch/moco, detection/ [MOCO]; all
        layers train, BatchNorm over the whole batch, one more BatchNorm in the head.

What neither states is detectron2's default [D2]. There PIRL reaches an AP of 54.0 under the first, a supervised
ResNet-50 52.6 (VOC07+12).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmark.core.optimisation import SGD, Milestones, Steps, Warmup
from benchmark.data.annotation import Annotated
from benchmark.data.boxes import read_boxes
from benchmark.data.voc import CLASSES
from benchmark.records.metric import PERCENT
from benchmark.transfers.contract import ProtocolCard
from benchmark.transfers.detection.average_precision import THRESHOLDS, average_precisions, eleven_points
from benchmark.transfers.detection.c4 import Detection, DetectionValues, Task
from benchmark.transfers.detection.desk import MOCO_DEPARTURES, PADDING, at_scales, desk_departures
from benchmark.transfers.detection.settings import FROZEN, TRAINED, Detections, DetectorSettings
from benchmark.transfers.training import Course

TRAINVAL07, TRAINVAL12, TEST07 = ("voc2007", "trainval"), ("voc2012", "trainval"), ("voc2007", "test")
METRICS = {"ap": PERCENT, "ap50": PERCENT, "ap75": PERCENT}


def _score(test: Annotated, found: list[Detections]) -> tuple[dict[str, float], dict[str, Any]]:
    aps = average_precisions(test.annotations, found, len(CLASSES), eleven_points)
    return _metrics(aps), {"per_class": _per_class(aps)}


def _metrics(aps: np.ndarray) -> dict[str, float]:
    """(10 thresholds, classes) -> AP, AP50 and AP75, over the classes that have objects."""
    per_threshold = np.nanmean(aps, axis=1)
    at = dict(zip(THRESHOLDS, per_threshold.tolist(), strict=True))
    return {"ap": float(per_threshold.mean()), "ap50": at[0.5], "ap75": at[0.75]}


def _per_class(aps: np.ndarray) -> dict[str, dict[str, float]]:
    """class -> metrics, of the classes that have objects."""
    return {name: _metrics(aps[:, [c]]) for c, name in enumerate(CLASSES) if not np.isnan(aps[0, c])}


VOC = Task(read_boxes, Annotated.with_objects, _score)


def _course(steps: int, warmup: Warmup, *drops: int) -> Course:
    return Course(Steps(steps), 16, Milestones(tuple(Steps(drop) for drop in drops), warmup=warmup))


def _pirl(train: tuple[tuple[str, str], ...], steps: int, drop: int, reported: str) -> Detection:
    card = ProtocolCard(
        id="voc0712_det_c4_pirl" if len(train) > 1 else "voc07_det_c4_pirl",
        version=2,
        title="VOC2007 detection, Faster R-CNN C4, BatchNorm frozen",
        citation=f"Misra & van der Maaten, CVPR 2020, arXiv:1912.01991, section 3.1, supplement B; {reported}",
        metrics=METRICS,
        datasets=(*train, TEST07),
        takes=("ResNet",),
        trains=True,
        frozen="paper: conv1, res2 and every BatchNorm; the rest trains",
        selected="nothing: the last iterate is scored at every scale",
        departures=(
            "paper: one rate for every backbone, 0.003; the paper trains its supervised and jigsaw rows at 0.02, and "
            "VISSL's file has 0.002",
            "paper: the warm-up starts at a third of the rate, as in the paper; VISSL's file leaves detectron2's 0.001",
            f"{PADDING}. BatchNorm is frozen, so only what lies next to the padding changes",
            "desk: stage res3 is frozen too",
            *desk_departures(),
        ),
    )
    paper = DetectionValues(
        FROZEN,
        _course(steps, Warmup(Steps(1_000), 1 / 3), drop),  # PIRL
        SGD(lr=0.003, momentum=0.9, weight_decay=1e-4),  # PIRL; momentum and decay D2
    )
    return Detection(card, at_scales(paper, frozen_stages=3), VOC)


def moco_detection_card(
    name: str, version: int, what: str, citation: str, departures: tuple[str, ...] = ()
) -> ProtocolCard:
    """Of a detector of MoCo's, whichever its head. departures: its own, besides those that all have."""
    return ProtocolCard(
        id=name,
        version=version,
        title=f"VOC2007 detection, Faster R-CNN {what}, everything trained",
        citation=f"He et al., CVPR 2020, arXiv:1911.05722, {citation}",
        metrics=METRICS,
        datasets=(TRAINVAL07, TRAINVAL12, TEST07),
        takes=("ResNet",),
        trains=True,
        frozen="nothing: all weights train, BatchNorm in training mode",
        selected="nothing: the last iterate is scored at every scale",
        departures=(*departures, *MOCO_DEPARTURES, *desk_departures()),
    )


def moco_values(settings: DetectorSettings) -> DetectionValues[DetectorSettings]:
    return DetectionValues(
        settings,
        _course(24_000, Warmup(Steps(100), 0.001), 18_000, 22_000),  # MOCO; where the warm-up starts D2
        SGD(lr=0.02, momentum=0.9, weight_decay=1e-4),  # MOCO
        precise_steps=200,  # MOCO, with D2's number of batches
    )


voc0712_det_c4_pirl = _pirl((TRAINVAL07, TRAINVAL12), 25_000, 17_000, "54.0 AP, 80.7 AP50, 59.7 AP75")
voc07_det_c4_pirl = _pirl((TRAINVAL07,), 12_500, 9_500, "44.7 AP, 73.4 AP50, 47.0 AP75")
voc0712_det_c4_moco = Detection(
    moco_detection_card("voc0712_det_c4_moco", 2, "C4", "section 4.2.1; 55.9 AP, 81.5 AP50, 62.6 AP75"),
    at_scales(moco_values(TRAINED), frozen_stages=0),
    VOC,
)
