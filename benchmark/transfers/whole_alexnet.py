"""The AlexNet that is fine-tuned on VOC, made of what a run has left behind: conv1 ... fc7, as in Caffe.

Networks of patches and tiles end at conv5, since their fc6 does not fit a whole image, and some end at fc6. On VOC they
all get fc6 and fc7 of CaffeNet's shape and initial weights; the papers start theirs from data.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from benchmark.backbones.alexnet import FULLY_CONNECTED, UNITS, AlexNet, AlexNetwork
from benchmark.backbones.alexnet_surgery import carried_over, folded
from benchmark.backbones.contract import Backbone
from benchmark.core.draws import mix
from benchmark.core.streams import Stream
from benchmark.recipe.inputs import InputSpec


def begun_anew(backbone: Backbone, cells: int | None = None) -> tuple[str, ...]:
    """The stages of `whole_alexnet` that do not come from the backbone: both or none, for fc7 means nothing without
    the fc6 that it was trained on."""
    has_both = all(name in backbone.stages for name in FULLY_CONNECTED)
    return () if has_both and cells is None else FULLY_CONNECTED


def whole_alexnet(backbone: Backbone, seed: int, cells: int | None = None) -> AlexNetwork:
    """A new network of conv1 ... fc7 of the backbone's weights, in evaluation mode: BatchNorm is folded into them, and
    dropout comes after fc6 and fc7. What is begun anew starts with Caffe's weights, drawn by the seed. cells: instead
    of the backbone's, an fc6 that takes cells x cells of pool5, and an fc7. UserError for a network that is no AlexNet,
    or has GroupNorm."""
    network = folded(backbone)
    anew = begun_anew(network, cells)
    units = (UNITS, UNITS) if anew else network.architecture.units
    whole = replace(network.architecture, units=units, dropout="after", start="caffe", fully_convolutional=False)
    # of this size images have so many cells, and 224 pixels six, whether pools keep a last window or not
    spec = None if cells is None else InputSpec(32 * (cells + 1), network.input.colour)
    return carried_over_by_seed(seed, network, whole, spec, upto="conv5" if anew else None)


def carried_over_by_seed(
    seed: int, network: Backbone, into: AlexNet, spec: InputSpec | None = None, upto: str | None = None
) -> AlexNetwork:
    """`carried_over`, where the seed draws what begins anew."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, Stream.BEGUN_ANEW))
        return carried_over(network, into, spec, upto)
