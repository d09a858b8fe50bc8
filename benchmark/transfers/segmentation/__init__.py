"""Transfers to semantic segmentation."""

from benchmark.transfers.segmentation.fcn import voc12_seg_fcn_moco
from benchmark.transfers.segmentation.fcn32s import voc12_seg_fcn32s

__all__ = ["voc12_seg_fcn32s", "voc12_seg_fcn_moco"]
