"""Descriptors that nobody learned: what a data set gives away to colours, layout, edges and frequencies alone.

Colour histogram, 8 x 8 thumbnail, gradient orientations, HOG, and mean and maximum of log |DCT|; sources and values in
benchmark/backbones/descriptors.py. A method that scores less than they do has not been shown to have learned objects.
Nothing is trained, and no seed changes a feature.

Departures:
- Where a protocol taps a network's stages, each descriptor is a stage, and all of them in a row are one more. What it
  pools of a map it has nothing to pool of here.
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
