"""Descriptors that nobody learned: what a data set gives away to colours, layout, edges and frequencies alone.

Dalal & Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005. Beside HOG: colour histogram, 8 x 8
thumbnail, gradient orientations, and mean and maximum of log |DCT|; benchmark/backbones/descriptors.py has their values
and sources. A method that scores less than they do has not been shown to have learned objects.
Nothing is trained, and no seed changes a feature.

Departures:
- Where a protocol pools a network's stages, each descriptor is a stage as it is, and all of them in a row are one more.
- Not scored where the backbone itself trains: detection, segmentation, fine-tuning on few labels.
"""

from __future__ import annotations

from benchmark.backbones.descriptors import UNIT_RGB, Descriptors
from benchmark.recipe import DESK_SIZE, Constant, InputSpec, Pool, Recipe, Steps
from recipes.random_init import Untrained

descriptors = Recipe(
    title="Descriptors without learning",
    method=Untrained(),
    backbone=Descriptors(),
    data=Pool("imagenet"),
    length=Steps(0),
    batch_size=256,
    optimizers={},
    schedule=Constant(),
    input=InputSpec(colour=UNIT_RGB),
    desk=(DESK_SIZE,),
)
