"""Detection on VOC2007 test by Fast R-CNN on an AlexNet, as tables of self-supervised AlexNets have it.

Girshick, "Fast R-CNN", ICCV 2015 (arXiv:1504.08083), with the values of rbgirshick/fast-rcnn, models/CaffeNet [FRCN].
Krähenbühl, Doersch, Donahue & Darrell, "Data-dependent Initializations of Convolutional Neural Networks", ICLR 2016
(arXiv:1511.06856), train longer and at several scales, and their tables are the ones that later papers continue. Their
values are those that Zhang et al. give on richzhang/colorization, README, section 6 [COL].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.backbones.contract import Backbone
from benchmark.core.optimisation import SGD, Adam, Cosine, Milestones, Steps, Warmup
from benchmark.data.annotation import Annotated
from benchmark.data.completeness import counted
from benchmark.data.proposals import HOME, proposals_file, proposals_of, read_with_proposals, share_proposed
from benchmark.recipe.scales import Scale
from benchmark.records.metric import PERCENT
from benchmark.transfers.contract import Context, ProtocolCard, values_at
from benchmark.transfers.detection.c4 import Detection, DetectionValues
from benchmark.transfers.detection.fast_rcnn import FastRcnn, anew_for_regions, for_regions, measured_offsets
from benchmark.transfers.detection.settings import Detector, RegionSettings
from benchmark.transfers.detection.voc import TEST07, TRAINVAL07, VOC
from benchmark.transfers.training import Course


class FastRcnnDetection(Detection):
    engines = ()

    def detector(self, trunk: Backbone, train: Annotated, values: DetectionValues[Any], context: Context) -> Detector:
        settings = values.settings
        network = for_regions(trunk, settings.cells, context.seed)
        return FastRcnn(network, len(train.classes), settings, measured_offsets(train, settings), context.seed)

    def told(self, backbone: Backbone, sets: Sequence[Annotated], context: Context) -> dict[str, Any]:
        each = zip(self.card.datasets, sets, strict=True)
        cells = values_at(context.scale, self.values, self.card).settings.cells
        return {
            "begun_anew": [*anew_for_regions(backbone, cells)],
            "proposals": {"/".join(one): self._proposed(*one, annotated, context) for one, annotated in each},
        }

    def _proposed(self, name: str, split: str, annotated: Annotated, context: Context) -> dict[str, Any]:
        """Where they come from, how many an image has, and the share of the objects that one of them finds."""
        path = proposals_file(context.data_root, name, split)
        counts = [len(boxes) for boxes in proposals_of(annotated)]
        told = {"recall": 100 * share_proposed(annotated), "per_image": float(np.mean(counts))}
        context.report(f"proposals of {annotated.images.name}", len(annotated), len(annotated), told)
        return {**told, "from": f"{HOME}/{path.name}" if path.is_file() else "windows"}

    def shortfalls(self, data_root: Path) -> dict[str, str]:
        missing = {}
        for name, split in self.card.datasets:
            path = proposals_file(data_root, name, split)
            if not path.is_file():
                images = len(self.task.read(data_root, name, split))
                missing[f"proposals of {name}/{split}"] = (
                    f"{counted(0, images, 'images')}: there is no {HOME}/{path.name}; it is in Fast R-CNN's "
                    "selective_search_data.tgz, and `sslbench propose` makes another"
                )
        return missing


PAPER = DetectionValues(
    RegionSettings(),
    Course(Steps(150_000), 2, Milestones((Steps(50_000), Steps(100_000)))),  # COL; the batch FRCN
    SGD(lr=0.001, momentum=0.9, weight_decay=5e-4, decays="weights", bias_rate=2),  # FRCN
    short_sides=(480, 576, 688, 864, 1200),  # COL, by the name of FRCN's multiscale.yml
    longest_side=2000,  # FRCN
    test_side=600,  # COL
    test_longest_side=1000,  # FRCN
)
DESK = replace(
    PAPER,
    course=Course(Steps(1_500), 2, Cosine(warmup=Warmup(Steps(20), 0.01)), "bf16"),
    optimizer=Adam(lr=1e-3, weight_decay=1e-4, decoupled=True),
    short_sides=(128, 152, 184),
    test_side=160,
    longest_side=320,
    test_longest_side=320,
)
SMOKE = replace(
    DESK,
    course=Course(Steps(4), 2, Cosine(warmup=Warmup(Steps(2), 0.01)), "bf16"),
    short_sides=(64, 96),
    test_side=96,
)
VALUES: dict[Scale, DetectionValues[RegionSettings]] = {"paper": PAPER, "desk": DESK, "smoke": SMOKE}

voc07_det_fast_rcnn_krahenbuhl = FastRcnnDetection(
    ProtocolCard(
        id="voc07_det_fast_rcnn_krahenbuhl",
        version=1,
        title="VOC2007 detection, Fast R-CNN on an AlexNet",
        citation="Girshick, ICCV 2015, arXiv:1504.08083; as in Krähenbühl et al., ICLR 2016, arXiv:1511.06856",
        metrics=dict.fromkeys(("ap50", "ap", "ap75"), PERCENT),
        datasets=(TRAINVAL07, TEST07),
        takes=("AlexNet",),
        trains=True,
        frozen="conv1, as released with Fast R-CNN; the rest trains. BatchNorm is folded into the weights before",
        selected="nothing: the last iterate is scored at every scale",
        departures=(
            "paper: a network without fc6 and fc7 gets new ones with CaffeNet's initial weights; the papers start them "
            "by k-means, as Krähenbühl et al. propose",
            "paper: no network is rescaled before; some of the papers' are, by Krähenbühl et al.'s method",
            "paper: all networks are padded as Fast R-CNN's CaffeNet is; few of the papers' detectors were released",
            "paper: the mean colour is the one that the network was trained with; the released code has one for all",
            "paper: an image is mirrored half the time; in the released code, every epoch has it both ways",
            "paper: boxes end after their last pixel, not on it; the released code's are a pixel narrower",
            "paper: the test keeps 100 detections of a class an image; the released code also drops all but 40 of them "
            "on average",
            "paper: scored by detectron2's rules; in VOC's MATLAB devkit an IoU of exactly a half is a match",
            "desk: proposals are windows that slide over the image, some 350 of each",
            "desk: every network is given new fc6 and fc7: those of a network for 64 px see one cell, not 6x6",
            "desk: 1,500 steps of AdamW on batches of 2, under bf16 autocast; rate 0.001, falling by half a cosine",
            "desk: shorter sides of 128, 152 and 184 px, tested at 160",
        ),
    ),
    VALUES,
    replace(VOC, read=read_with_proposals),
)
