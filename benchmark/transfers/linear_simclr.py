"""A linear classifier on a frozen backbone's output, as SimCLR's paper trains it; and one more behind its head.

Chen, Kornblith, Norouzi & Hinton, ICML 2020 (arXiv:2002.05709), appendix B.6, and what the paper leaves open as in
google-research/simclr [SIM].

    linear_imagenet_simclr       h, the network's averaged last stage
    linear_imagenet_simclr_head  h, and z = g(h), what the head makes of it and the loss compares
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from benchmark.core.optimisation import SGD, Cosine, Epochs
from benchmark.recipe.scales import Scale
from benchmark.records.metric import PERCENT
from benchmark.transfers.contract import ProtocolCard
from benchmark.transfers.features import Mean, Tap
from benchmark.transfers.linear import (
    CHOSEN_ON_HELD_OUT,
    FIFTH_CHOOSES,
    VIEWS_IN_TURN,
    LinearTransfer,
    Probe,
    probe_scales,
)
from benchmark.transfers.preprocessing import crop_and_flip
from benchmark.transfers.training import Course

RATES = (2.5, 0.25, 0.025)


def zero_weights(linear: nn.Linear, generator: torch.Generator) -> None:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)


def _scales(paper: Probe) -> dict[Scale, Probe]:
    """As of other linear protocols, but the rate falls with the cosine at every scale."""
    rates = tuple(replace(paper.optimizers[0], lr=lr) for lr in RATES)
    scales = probe_scales(paper, rates)
    return {scale: replace(one, course=replace(one.course, schedule=Cosine())) for scale, one in scales.items()}


PAPER = Probe(
    taps=None,
    batch_norm=False,
    augment=crop_and_flip,
    optimizers=(SGD(lr=1.6, momentum=0.9, nesterov=True),),  # 0.1 x batch / 256
    course=Course(Epochs(90), 4096, Cosine()),  # SIM
    start=zero_weights,  # SIM
)

linear_imagenet_simclr = LinearTransfer(
    ProtocolCard(
        id="linear_imagenet_simclr",
        version=1,
        title="ImageNet, linear on the averaged last stage, large batches",
        citation="Chen et al., ICML 2020, arXiv:2002.05709, section B.6; 69.3 top-1",
        metrics={"top1": PERCENT},
        datasets=(("imagenet", "train"), ("imagenet", "val")),
        frozen="everything, BatchNorm's running statistics too",
        selected="paper: nothing, the last iterate is scored. " + CHOSEN_ON_HELD_OUT.format("the rate"),
        departures=(
            "paper: the rate falls by half a cosine, and classifiers start at zero, as in the released code; the paper "
            "does not say",
            "paper: no weight decay, as the paper says; the released command has 0.000001",
            FIFTH_CHOOSES,
            "desk: 40 epochs in batches of 64",
            VIEWS_IN_TURN,
            "desk: the rate is one of 2.5, 0.25 and 0.025, the last of which is the paper's for such a batch, since "
            "features of another width have another size",
            "photos: as desk, but 10 epochs, and two views of each image, since eight would take 3.9 GiB of memory",
        ),
    ),
    _scales(PAPER),
)

linear_imagenet_simclr_head = LinearTransfer(
    replace(
        linear_imagenet_simclr.card,
        id="linear_imagenet_simclr_head",
        title="ImageNet, linear before and after the head, large batches",
        citation="Chen et al., ICML 2020, arXiv:2002.05709, sections 4.2 and B.6",
        takes=("WithProjectionHead",),
        selected="paper: the headline is the better of h and g(h) on the test images, and the table shows both. "
        + CHOSEN_ON_HELD_OUT.format("stage and rate"),
        departures=(
            "paper: the paper scores h and g(h) and chooses neither: read the scores per stage, not the headline",
            *linear_imagenet_simclr.card.departures,
        ),
    ),
    _scales(replace(PAPER, taps=(Tap("res5", Mean()), Tap("z")))),
)
