"""A stage that keeps the resolution of the one before it, as detectors and segmentation have it."""

from __future__ import annotations

from torch import nn

from benchmark.backbones.contract import Backbone, Stage


def dilate_last_stage(backbone: Backbone) -> None:
    """Its stride becomes 1, and all its 3x3 convolutions get dilation 2. No weight changes."""
    *_, before, last = backbone.stages
    for part in backbone.parts(last):
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
                if module.kernel_size == (3, 3):
                    module.dilation = module.padding = (2, 2)
    backbone.stages = {**backbone.stages, last: Stage(backbone.stages[last].channels, backbone.stages[before].stride)}
