"""Transfers to object detection."""

from benchmark.transfers.detection.c4 import voc07_det_c4_pirl, voc0712_det_c4_moco, voc0712_det_c4_pirl

__all__ = ["voc07_det_c4_pirl", "voc0712_det_c4_moco", "voc0712_det_c4_pirl"]
