"""Transfers to object detection."""

from benchmark.transfers.detection.coco import coco_det_c4_moco
from benchmark.transfers.detection.voc import voc07_det_c4_pirl, voc0712_det_c4_moco, voc0712_det_c4_pirl
from benchmark.transfers.detection.voc_alexnet import voc07_det_fast_rcnn_krahenbuhl
from benchmark.transfers.detection.voc_cpc import voc07_det_cpc_v2
from benchmark.transfers.detection.voc_dilated_c5 import voc0712_det_dilated_c5_moco

__all__ = [
    "coco_det_c4_moco",
    "voc07_det_c4_pirl",
    "voc07_det_cpc_v2",
    "voc07_det_fast_rcnn_krahenbuhl",
    "voc0712_det_c4_moco",
    "voc0712_det_c4_pirl",
    "voc0712_det_dilated_c5_moco",
]
