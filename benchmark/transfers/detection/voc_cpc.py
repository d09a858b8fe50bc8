"""Detection on VOC2007 test by Faster R-CNN on a ResNet, one that was trained on patches too.

Henaff et al., ICML 2020 (arXiv:1905.09272), section 4.3, on VOC2007's training images: 76.6 mAP with CPC v2's
ResNet-161, 74.7 with a supervised ResNet-152. The encoder of patches sees the whole image, as any ResNet can. Where it
ends after three stages, a last stage begun anew is the head.

What the paper leaves open is PIRL's, benchmark.transfers.detection.voc.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from benchmark.backbones.contract import Backbone
from benchmark.backbones.patch_grid import PatchwiseNetwork
from benchmark.backbones.resnet_v2 import PreactivationNetwork, ResNetV2
from benchmark.core.draws import mix
from benchmark.core.errors import UserError
from benchmark.core.optimisation import SGD, Milestones, Steps, Warmup
from benchmark.core.streams import Stream
from benchmark.data.annotation import Annotated
from benchmark.records.metric import PERCENT
from benchmark.transfers.contract import Context, ProtocolCard
from benchmark.transfers.detection.c4 import Detection, DetectionValues
from benchmark.transfers.detection.desk import PADDING, at_scales, desk_departures
from benchmark.transfers.detection.faster_rcnn import FasterRcnn
from benchmark.transfers.detection.settings import Detector, DetectorSettings
from benchmark.transfers.detection.voc import TEST07, TRAINVAL07, VOC
from benchmark.transfers.training import Course


class WholeImageDetection(Detection):
    engines = ()

    def detector(self, trunk: Backbone, train: Annotated, values: DetectionValues[Any], context: Context) -> Detector:
        network = with_last_stage(trunk, context.seed) if isinstance(trunk, PatchwiseNetwork) else trunk
        return FasterRcnn(network, len(train.classes), values.settings, context.seed)


def with_last_stage(backbone: PatchwiseNetwork, seed: int) -> PreactivationNetwork:
    """The encoder of patches as a network of whole images, with a fourth stage that the seed begins. Raises UserError
    for an encoder that is not a ResNet v2 of three stages."""
    plan = backbone.encoder.architecture
    if not isinstance(plan, ResNetV2) or plan.stages != 3:
        raise UserError(
            f"{plan} gets no head: detection on patches needs an encoder that is a ResNetV2 of three stages"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, Stream.BEGUN_ANEW))
        network = PreactivationNetwork(replace(plan, stages=4), backbone.input)
    # the fourth stage is new, and so is the norm that now comes after it
    kept = {key: tensor for key, tensor in backbone.encoder.state_dict().items() if not key.startswith("norm.")}
    network.load_state_dict(network.state_dict() | kept)
    return network.to(next(backbone.parameters()).device)


voc07_det_cpc_v2 = WholeImageDetection(
    ProtocolCard(
        id="voc07_det_cpc_v2",
        version=1,
        title="VOC2007 detection, Faster R-CNN C4, everything trained",
        citation="Henaff et al., ICML 2020, arXiv:1905.09272, section 4.3; 76.6 mAP",
        metrics=dict.fromkeys(("ap50", "ap", "ap75"), PERCENT),
        datasets=(TRAINVAL07, TEST07),
        takes=("ResNet", "ResNetV2", "PatchGrid"),
        trains=True,
        frozen="nothing: all weights train, BatchNorm in training mode",
        selected="nothing: the last iterate is scored at every scale",
        departures=(
            "paper: rates, steps, sizes of images and the head are those of PIRL's detector on VOC2007, but nothing is "
            "frozen; the paper's appendix could not be read, and no code was released",
            "paper: scored by detectron2's rules; in VOC's MATLAB devkit an IoU of exactly a half is a match",
            "paper: a network that ends after three stages gets a fourth as its head; what the paper's head is was not "
            "checked",
            "paper: the norm that ends the pretrained network of three stages is dropped, with its scale and shift. "
            "The fourth stage begins with a norm of its own, and a new one ends it; whether the paper keeps the "
            "pretrained one was not checked",
            f"{PADDING}. The statistics of any norm include the padding",
            *desk_departures(),
        ),
    ),
    at_scales(
        DetectionValues(
            DetectorSettings(norm="trained", frozen_stages=0),
            Course(Steps(12_500), 16, Milestones((Steps(9_500),), warmup=Warmup(Steps(1_000), 1 / 3))),
            SGD(lr=0.003, momentum=0.9, weight_decay=1e-4),
        ),
        frozen_stages=0,
    ),
    VOC,
)
