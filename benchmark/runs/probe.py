"""What a network that is still training is worth so far, by its training images alone; no test image is looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from benchmark.backbones.contract import Backbone
from benchmark.backbones.norms import without_groups
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes
from benchmark.data.loader import Views
from benchmark.data.splits import held_out, labelled_fraction
from benchmark.engine.train import Machine
from benchmark.runs.representation import alignment, collapsed_share, rank_me, uniformity
from benchmark.transfers.features import as_input, at_positions, once, output_tap, tapped, working_copy
from benchmark.transfers.knn import vote
from benchmark.transfers.preprocessing import Preprocessing, centre_crop, crop_and_flip

MOST_IMAGES = 10_000
HELD_OUT = 0.2


class TrainingImagesProbe:
    """Its figures, of the backbone's output, averaged over space where it is a map:

    knn_top1_percent: how often held-out images are told right by the others, by the votes of the protocol
                      `knn_imagenet_wu`; where each image has one class. Held out are a fifth of each class, of at most
                      10,000 images of a fixed draw. They are held out of the vote: the run itself trains on all images.
    rankme, uniformity, collapsed_percent: of the same images' centre crops (of the held-out ones, uniformity).
    alignment: of two random crops of each held-out image, as linear classifiers are trained on.

    See benchmark.runs.representation for what they mean.
    """

    def __init__(self, pools: Mapping[str, ImageSet], seed: int, machine: Machine) -> None:
        """pools: the run's own images, of which it takes the first pool's, with their labels where the data has any,
        though the run may not see them."""
        self.seed, self.machine = seed, machine
        self.voting, self.held = _in_two(next(iter(pools.values())))

    def __call__(self, backbone: Backbone) -> dict[str, float]:
        trunk = working_copy(backbone, self.machine.device).eval()
        without_groups(trunk)
        side = trunk.input.size
        centre, random = centre_crop(side), crop_and_flip(side)
        database, queries = (self._features(trunk, images, centre) for images in (self.voting, self.held))
        views = [self._features(trunk, self.held, random, draw) for draw in range(2)]
        if not all(one.isfinite().all() for one in (database, queries, *views)):
            return {}  # the engine tells of a loss or weights that are not finite
        every = torch.cat([database, queries])
        figures = {
            "rankme": rank_me(every),
            "alignment": alignment(*views),
            "uniformity": uniformity(queries),
            "collapsed_percent": 100 * collapsed_share(every),
        }
        figures = self._told_right(database, queries) | figures
        return {name: value for name, value in figures.items() if math.isfinite(value)}

    def _told_right(self, database: Tensor, queries: Tensor) -> dict[str, float]:
        if not has_one_class_each(self.voting):
            return {}
        known, truth = (torch.as_tensor(images.labelled(Classes).values) for images in (self.voting, self.held))
        found = vote(queries, database, known, len(self.voting.classes)).argmax(dim=1)
        return {"knn_top1_percent": 100 * float((found == truth).double().mean())}

    def _features(self, trunk: Backbone, images: ImageSet, view: Preprocessing, draw: int = 0) -> Tensor:
        """(N, D) float32 on the CPU; `draw` tells one draw of a random view from another."""
        tap, rows = output_tap(trunk), []
        views = Views(images.without_labels(), view, self.seed)
        for pixels, _ in at_positions(views, once(len(images), epoch=draw), self.machine.workers):
            with torch.inference_mode():
                found = tapped(trunk, (tap,), as_input(trunk, pixels, self.machine.device))
            rows.append(found[tap.name].flatten(1).float().cpu())
        return torch.cat(rows)


def _in_two(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    """(those that vote, those held out)"""
    if has_one_class_each(images):
        few = images if len(images) <= MOST_IMAGES else labelled_fraction(images, MOST_IMAGES / len(images), 0)
        return held_out(few, HELD_OUT, 0)
    # evenly spread, as a draw from the largest sets would take a number for each of their images
    places = np.unique(np.linspace(0, len(images) - 1, MOST_IMAGES, dtype=np.int64))
    held = images.whole(places[:: round(1 / HELD_OUT)])
    others = np.setdiff1d(images.whole(places), held)
    return images.subset(others, "voting"), images.subset(held, "held out")


def has_one_class_each(images: ImageSet) -> bool:
    return isinstance(images.labels, Classes) and images.together == 1
