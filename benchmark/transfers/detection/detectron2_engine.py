"""The same detector built by detectron2 (facebookresearch/detectron2, its git head; an optional extra).

detectron2 stands on its own here: its model, its losses, its inference. Its optimizer and data pipeline do not take
part, since the harness trains, so that runs resume exactly under either engine.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from benchmark.backbones.contract import Backbone
from benchmark.core.errors import UserError
from benchmark.recipe.inputs import RGB
from benchmark.transfers.detection.faster_rcnn import FasterRcnn
from benchmark.transfers.detection.settings import Detector, DetectorSettings, Found, Target

INSTALL = (
    "detectron2 is not installed; it is not on the package index: "
    "pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2"
)
LOSSES = {
    "loss_rpn_cls": "objectness",
    "loss_rpn_loc": "anchor_boxes",
    "loss_cls": "classes",
    "loss_box_reg": "region_boxes",
    "loss_mask": "masks",
}
HEADS = {
    "rpn_hidden": "proposal_generator.rpn_head.conv",
    "rpn_objectness": "proposal_generator.rpn_head.objectness_logits",
    "rpn_boxes": "proposal_generator.rpn_head.anchor_deltas",
    "extra_norm": "roi_heads.res5.norm",
    "classes": "roi_heads.box_predictor.cls_score",
    "boxes": "roi_heads.box_predictor.bbox_pred",
    "mask_hidden": "roi_heads.mask_head.deconv",
    "masks": "roi_heads.mask_head.predictor",
}


def is_installed() -> bool:
    return importlib.util.find_spec("detectron2") is not None


class Detectron2(Detector):
    """Starts with exactly the weights that FasterRcnn starts with. Raises UserError without detectron2, and for a
    backbone other than a ResNet-50 with BatchNorm."""

    def __init__(self, backbone: Backbone, num_classes: int, settings: DetectorSettings, seed: int) -> None:
        super().__init__()
        if not is_installed():
            raise UserError(INSTALL)
        self.input, self.learns_masks = backbone.input, settings.mask_channels > 0
        self.model: Any = _built(backbone, num_classes, settings)
        load_converted(self.model, FasterRcnn(backbone, num_classes, settings, seed))

    def head_parameters(self) -> Iterator[nn.Parameter]:
        heads = tuple(HEADS.values())
        return (p for name, p in self.model.named_parameters() if name.startswith(heads))

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        from detectron2.structures import Boxes, Instances, PolygonMasks
        from detectron2.utils.events import EventStorage

        given = self._inputs(images)
        for one, target in zip(given, targets, strict=True):
            objects = Instances(one["image"].shape[1:])
            objects.gt_boxes, objects.gt_classes = Boxes(target.boxes), target.labels
            if target.masks:
                objects.gt_masks = PolygonMasks([[one.ravel() for one in polygons] for polygons in target.masks])
            one["instances"] = objects
        with EventStorage():  # detectron2 logs into it; nobody reads it here
            losses = self.model(given)
        return {name: losses[theirs] for theirs, name in LOSSES.items() if theirs in losses}

    def detect(self, images: list[Tensor], proposals: Sequence[Tensor] = ()) -> list[Found]:
        found = self.model.inference(self._inputs(images), do_postprocess=False)
        return [
            Found(
                one.pred_boxes.tensor, one.scores, one.pred_classes, one.pred_masks[:, 0] if self.learns_masks else None
            )
            for one in found
        ]

    def propose(self, images: list[Tensor]) -> list[Tensor]:
        batch = self.model.preprocess_image(self._inputs(images))
        proposals, _ = self.model.proposal_generator(batch, self.model.backbone(batch.tensor), None)
        return [one.proposal_boxes.tensor for one in proposals]

    def _inputs(self, images: list[Tensor]) -> list[dict[str, Any]]:
        return [{"image": image} for image in images]


def _built(backbone: Backbone, num_classes: int, settings: DetectorSettings) -> nn.Module:
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    stem = backbone.stages["conv1"].channels
    config = get_cfg()
    model, rpn, roi, resnet = config.MODEL, config.MODEL.RPN, config.MODEL.ROI_HEADS, config.MODEL.RESNETS
    model.DEVICE = "cpu"  # moved to where it runs by the caller, as every module
    colour = backbone.input.colour
    if not isinstance(colour, RGB):
        raise UserError(f"detectron2 takes RGB images, not {type(colour).__name__}; give --engine torchvision")
    model.PIXEL_MEAN = [255 * mean for mean in colour.mean]
    model.PIXEL_STD = [255 * std for std in colour.std]
    config.INPUT.FORMAT = "RGB"
    model.BACKBONE.FREEZE_AT = settings.frozen_stages
    resnet.DEPTH = 50
    resnet.STRIDE_IN_1X1 = False
    # in one process BatchNorm and SyncBN are the same; what trains on several refuses a BatchNorm that is not ours
    resnet.NORM = "FrozenBN" if settings.norm == "frozen" else "BN"
    resnet.STEM_OUT_CHANNELS, resnet.RES2_OUT_CHANNELS, resnet.WIDTH_PER_GROUP = stem, 4 * stem, stem
    model.ANCHOR_GENERATOR.SIZES = [list(settings.anchor_sides)]
    model.ANCHOR_GENERATOR.ASPECT_RATIOS = [list(settings.anchor_ratios)]
    rpn.BATCH_SIZE_PER_IMAGE, rpn.POSITIVE_FRACTION = settings.anchors, settings.anchors_positive
    rpn.PRE_NMS_TOPK_TRAIN, rpn.POST_NMS_TOPK_TRAIN = settings.proposals_train
    rpn.PRE_NMS_TOPK_TEST, rpn.POST_NMS_TOPK_TEST = settings.proposals_test
    rpn.NMS_THRESH = settings.proposals_overlap
    roi.NUM_CLASSES = num_classes
    roi.BATCH_SIZE_PER_IMAGE, roi.POSITIVE_FRACTION = settings.regions, settings.regions_positive
    roi.SCORE_THRESH_TEST, roi.NMS_THRESH_TEST = settings.least_score, settings.overlap
    config.TEST.DETECTIONS_PER_IMAGE = settings.detections
    model.ROI_BOX_HEAD.POOLER_RESOLUTION = settings.pooled_side
    model.MASK_ON, model.ROI_MASK_HEAD.CONV_DIM = settings.mask_channels > 0, settings.mask_channels
    built: Any = build_model(config)
    # under autocast it would round the regions' corners to bf16, to whole pixels and worse
    built.roi_heads.pooler.register_forward_pre_hook(lambda _, inputs: ([x.float() for x in inputs[0]], *inputs[1:]))
    if settings.extra_norm:
        built.roi_heads.res5.add_module("norm", nn.BatchNorm2d(32 * stem))  # last in the sequence, as in MoCo's head
    return built


def load_converted(model: nn.Module, ours: FasterRcnn) -> None:
    """Copy every weight of `ours` to detectron2's name for it. Each key must be there, and none be left over."""
    converted = {_their_name(key): value for key, value in ours.state_dict().items()}
    wanted = model.state_dict()
    kept = {key: value for key, value in converted.items() if key in wanted or not key.endswith("num_batches_tracked")}
    if kept.keys() != wanted.keys():
        raise UserError(
            f"this backbone does not fit detectron2's ResNet-50: "
            f"missing {sorted(wanted.keys() - kept.keys())[:5]}, unexpected {sorted(kept.keys() - wanted.keys())[:5]}"
        )
    model.load_state_dict(kept, strict=True)


def _their_name(key: str) -> str:
    """ "backbone.layer1.0.bn2.weight" -> "backbone.res2.0.conv2.norm.weight"; "classes.bias" -> …cls_score.bias."""
    module, _, name = key.rpartition(".")
    if not module.startswith("backbone."):
        return f"{HEADS[module]}.{name}"
    parts = module.removeprefix("backbone.").split(".")
    if not parts[0].startswith("layer"):  # conv1, bn1
        return f"backbone.stem.conv1{'.norm' if parts[0] == 'bn1' else ''}.{name}"
    stage, block, *inner = parts
    home = "roi_heads.res5" if stage == "layer4" else f"backbone.res{int(stage[-1]) + 1}"
    layer = {
        "downsample.0": "shortcut",
        "downsample.1": "shortcut.norm",
        **{f"bn{number}": f"conv{number}.norm" for number in (1, 2, 3)},
    }.get(".".join(inner), inner[0])
    return f"{home}.{block}.{layer}.{name}"
