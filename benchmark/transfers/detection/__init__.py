"""Transfers to object detection."""

from benchmark.transfers.detection.coco import coco_det_c4_moco
from benchmark.transfers.detection.voc import voc07_det_c4_pirl, voc0712_det_c4_moco, voc0712_det_c4_pirl

__all__ = ["coco_det_c4_moco", "voc07_det_c4_pirl", "voc0712_det_c4_moco", "voc0712_det_c4_pirl"]
