"""Linear classifiers on each convolution of a frozen AlexNet. Papers differ in how they pool and normalise a layer's
map and in how they train, so each protocol states its own taps.

*_gidaris: Gidaris et al., "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018
           (arXiv:1803.07728), section 3.2, as in gidariss/FeatureLearningRotNet [ROT].
"""

from __future__ import annotations

import math

from benchmark.core.optimisation import SGD, Epochs, Milestones
from benchmark.records.metric import PERCENT
from benchmark.transfers.contract import ProtocolCard
from benchmark.transfers.features import AdaptiveMaxGrid, Tap
from benchmark.transfers.linear import (
    CHOSEN_ON_HELD_OUT,
    CHOSEN_ON_TEST,
    DEPARTURES,
    ON_PHOTOS,
    WEIGHT_DECAYS,
    LinearTransfer,
    Probe,
    probe_scales,
    three_decays,
)
from benchmark.transfers.preprocessing import place_and_flip
from benchmark.transfers.training import Course

GIDARIS_TAPS = (  # ROT; of RotNet's own AlexNet
    Tap("conv1", AdaptiveMaxGrid(55, 12)),  # 64 x 12 x 12 = 9,216
    Tap("conv2", AdaptiveMaxGrid(27, 7)),  # 192 x 7 x 7 = 9,408
    Tap("conv3", AdaptiveMaxGrid(13, 5)),  # 384 x 5 x 5 = 9,600
    Tap("conv4", AdaptiveMaxGrid(13, 6)),  # 256 x 6 x 6 = 9,216
    Tap("conv5", AdaptiveMaxGrid(13, 6)),  # 256 x 6 x 6 = 9,216
)

linear_imagenet_gidaris = LinearTransfer(
    ProtocolCard(
        id="linear_imagenet_gidaris",
        version=1,
        title="ImageNet, linear on every convolution of an AlexNet, adaptive max-pools",
        citation="Gidaris et al., ICLR 2018, arXiv:1803.07728, section 3.2; released code; 38.7 top-1 at conv3",
        metrics={"top1": PERCENT},
        datasets=(("imagenet", "train"), ("imagenet", "val")),
        takes=("AlexNet", "Descriptors"),
        frozen="everything, BatchNorm's running statistics too",
        selected=CHOSEN_ON_TEST.format("") + CHOSEN_ON_HELD_OUT.format("stage and weight decay"),
        departures=(
            "every scale: the same grids on every AlexNet; one with more channels than RotNet's gives more numbers",
            *DEPARTURES,
            WEIGHT_DECAYS,
            ON_PHOTOS,
        ),
    ),
    probe_scales(
        Probe(
            taps=GIDARIS_TAPS,
            batch_norm=True,  # ROT: without scale and shift
            augment=place_and_flip,  # ROT
            optimizers=(SGD(lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True),),  # ROT
            course=Course(Epochs(35), 192, Milestones((Epochs(5), Epochs(15), Epochs(25)), gamma=0.2)),  # ROT
            head_std=lambda classes: math.sqrt(2 / classes),  # ROT
        ),
        three_decays(0.01, 5e-4),
        *(1 / 7, 3 / 7, 5 / 7),
        gamma=0.2,
    ),
)
