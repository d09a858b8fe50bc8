"""Transfers to semantic segmentation."""

from benchmark.transfers.segmentation.fcn import voc12_seg_fcn_moco

__all__ = ["voc12_seg_fcn_moco"]
