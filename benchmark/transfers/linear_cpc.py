"""Linear classifiers as the papers on contrastive predictive coding train them, on images seen patch by patch.

linear_imagenet_cpc:    van den Oord et al., arXiv:1807.03748, section 3.2: on the average over the grid of patches.
linear_imagenet_cpc_v2: Henaff et al., ICML 2020 (arXiv:1905.09272), appendix A, as re-implementations quote it: the
                        cells are normalised over the batch, classified each, and their scores averaged.

A backbone that sees the image as a whole is scored in the same way, on the cells of its last stage.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmark.core.optimisation import SGD, Adam, Epochs, Milestones, Optimizer, Steps
from benchmark.records.metric import PERCENT
from benchmark.transfers.contract import ProtocolCard
from benchmark.transfers.linear import (
    CHOSEN_ON_HELD_OUT,
    DEPARTURES,
    ON_PHOTOS,
    LinearTransfer,
    Probe,
    probe_scales,
)
from benchmark.transfers.preprocessing import square_and_centre, square_place_and_flip
from benchmark.transfers.training import Course

V1_PART, V2_PART = 256 / 300, 260 / 300  # of the squashed image that a crop shows
V1_DROPS = (50 / 85, 75 / 85)  # of the training
FROZEN = "everything, BatchNorm's running statistics too"


def _rates(paper: Optimizer) -> tuple[Optimizer, ...]:
    """What the desk chooses from: features of another width have another size."""
    return tuple(replace(paper, lr=paper.lr * factor) for factor in (10, 1, 0.1))


def _v1() -> LinearTransfer:
    sgd = SGD(lr=0.1, momentum=0.9)
    paper = Probe(
        taps=None,
        batch_norm=False,
        augment=partial(square_place_and_flip, part=V1_PART),
        optimizers=(sgd,),
        course=Course(Steps(85_000), 2048, Milestones((Steps(50_000), Steps(75_000)))),
        test_view=partial(square_and_centre, part=V1_PART),
    )
    card = ProtocolCard(
        id="linear_imagenet_cpc",
        version=1,
        title="ImageNet, linear on the average over a grid of patches",
        citation="van den Oord et al., arXiv:1807.03748, section 3.2; 48.7 top-1",
        metrics={"top1": PERCENT},
        datasets=(("imagenet", "train"), ("imagenet", "val")),
        frozen=FROZEN,
        selected="paper: nothing. " + CHOSEN_ON_HELD_OUT.format("the rate"),
        departures=(
            "paper: no weight decay; the paper names none",
            "paper: training images are crops and mirror images as in pretraining, their patches not shifted, and test "
            "images central crops; the paper does not say",
            *DEPARTURES,
            "desk: the rate is one of 1, 0.1 and 0.01, since features of another width have another size",
            ON_PHOTOS,
        ),
    )
    return LinearTransfer(card, probe_scales(paper, _rates(sgd), *V1_DROPS))


def _v2() -> LinearTransfer:
    adam = Adam(lr=5e-4)
    paper = Probe(
        taps=None,
        batch_norm="cells",
        augment=partial(square_place_and_flip, part=V2_PART),
        optimizers=(adam,),
        course=Course(Epochs(100), 512, Milestones(())),
        test_view=partial(square_and_centre, part=V2_PART),
    )
    card = ProtocolCard(
        id="linear_imagenet_cpc_v2",
        version=1,
        title="ImageNet, linear on each cell, the scores averaged",
        citation="Henaff et al., ICML 2020, arXiv:1905.09272, appendix; 71.5 top-1",
        metrics={"top1": PERCENT},
        datasets=(("imagenet", "train"), ("imagenet", "val")),
        frozen=FROZEN,
        selected="paper: nothing. " + CHOSEN_ON_HELD_OUT.format("the rate"),
        departures=(
            "paper: Adam at 0.0005 on batches of 512 for 100 epochs; the appendix could not be read, and no code was "
            "released",
            "paper: training images are crops and mirror images, their patches unchanged; not known either",
            *DEPARTURES,
            "desk: the rate is one of 0.005, 0.0005 and 0.00005, since features of another width have another size",
            ON_PHOTOS,
        ),
    )
    return LinearTransfer(card, probe_scales(paper, _rates(adam)))


linear_imagenet_cpc = _v1()
linear_imagenet_cpc_v2 = _v2()
