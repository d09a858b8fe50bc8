"""Linear classifiers on each convolution of a frozen AlexNet. Papers differ in how they pool and normalise a layer's
map, and in how they train and test, so each protocol states its own.

*_zhang:   Zhang et al., "Split-Brain Autoencoders", CVPR 2017 (arXiv:1611.09842), section 4.1.1, which most tables of
           conv1 ... conv5 follow. The network with its classifiers is that of richzhang/colorization,
           feature_learning_tests [COL], and so is the solver, which only the repository's history still has (linear/
           solver.prototxt at commit 407a471). Goyal et al.'s rerun of this protocol has the same values.
*_gidaris: Gidaris et al., "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018
           (arXiv:1803.07728), section 3.2, as in gidariss/FeatureLearningRotNet [ROT].
*_caron:   Caron et al., "Deep Clustering for Unsupervised Learning of Visual Features", ECCV 2018 (arXiv:1807.05520),
           section 4.2, as in facebookresearch/deepcluster, eval_linear.py [DC].
"""

from __future__ import annotations

import math

import torch
from torch import nn

from benchmark.core.optimisation import SGD, Epochs, InverseRoot, Milestones, Steps
from benchmark.records.metric import PERCENT
from benchmark.transfers.contract import ProtocolCard
from benchmark.transfers.features import AdaptiveMaxGrid, AverageGrid, BilinearGrid, Tap
from benchmark.transfers.linear import (
    CHOSEN_ON_HELD_OUT,
    CHOSEN_ON_TEST,
    DEPARTURES,
    FIFTH_CHOOSES,
    LAST_ITERATE,
    ON_PHOTOS,
    READER,
    TITLES,
    VIEWS_IN_TURN,
    WEIGHT_DECAYS,
    LinearTransfer,
    Probe,
    probe_scales,
    three_decays,
)
from benchmark.transfers.preprocessing import (
    centre_place_and_flip,
    place_and_flip,
    squash_and_centre,
    squash_place_and_flip,
    ten_crops,
)
from benchmark.transfers.training import Course, gaussian

# The numbers are those of the networks that the papers probe. Sides of maps are those on 224 or 227 px.
ZHANG_TAPS = (  # COL
    Tap("conv1", BilinearGrid(55, 10)),  # 96 x 10 x 10 = 9,600
    Tap("conv2", BilinearGrid(27, 6)),  # 256 x 6 x 6 = 9,216
    Tap("conv3", BilinearGrid(13, 5)),  # 384 x 5 x 5 = 9,600
    Tap("conv4", BilinearGrid(13, 5)),  # 384 x 5 x 5 = 9,600
    Tap("conv5", BilinearGrid(13, 6)),  # 256 x 6 x 6 = 9,216
)
GIDARIS_TAPS = (  # ROT; of RotNet's own AlexNet
    Tap("conv1", AdaptiveMaxGrid(55, 12)),  # 64 x 12 x 12 = 9,216
    Tap("conv2", AdaptiveMaxGrid(27, 7)),  # 192 x 7 x 7 = 9,408
    Tap("conv3", AdaptiveMaxGrid(13, 5)),  # 384 x 5 x 5 = 9,600
    Tap("conv4", AdaptiveMaxGrid(13, 6)),  # 256 x 6 x 6 = 9,216
    Tap("conv5", AdaptiveMaxGrid(13, 6)),  # 256 x 6 x 6 = 9,216
)
CARON_TAPS = (  # DC
    Tap("conv1", AverageGrid(55, 10, kernel=6, stride=6, padding=3)),  # 96 x 10 x 10 = 9,600
    Tap("conv2", AverageGrid(27, 6, kernel=4, stride=4)),  # 256 x 6 x 6 = 9,216
    Tap("conv3", AverageGrid(13, 5, kernel=3, stride=3, padding=1)),  # 384 x 5 x 5 = 9,600
    Tap("conv4", AverageGrid(13, 5, kernel=3, stride=3, padding=1)),  # 384 x 5 x 5 = 9,600
    Tap("conv5", AverageGrid(13, 6, kernel=2, stride=2)),  # 256 x 6 x 6 = 9,216
)


def zeros(linear: nn.Linear, generator: torch.Generator) -> None:
    gaussian(linear, 0.0, generator)


def wide_gaussian(linear: nn.Linear, generator: torch.Generator) -> None:
    gaussian(linear, math.sqrt(2 / linear.out_features), generator)


def torchs_own(linear: nn.Linear, generator: torch.Generator) -> None:
    bound = 1 / math.sqrt(linear.in_features)
    for parameter in (linear.weight, linear.bias):
        nn.init.uniform_(parameter, -bound, bound, generator=generator)


def _card(
    dataset: str,
    who: str,
    how: str,
    citation: str,
    departures: tuple[str, ...],
    chosen: str,
    iterate: str = "",
    version: int = 1,
) -> ProtocolCard:
    return ProtocolCard(
        id=f"linear_{dataset}_{who}",
        version=version,
        title=f"{TITLES[dataset]}, linear on every convolution of an AlexNet, {how}",
        citation=citation,
        metrics={"top1": PERCENT},
        datasets=((READER[dataset], "train"), (READER[dataset], "val")),
        takes=("AlexNet", "SplitAlexNet", "Descriptors"),
        frozen="everything, BatchNorm's running statistics too",
        selected=CHOSEN_ON_TEST.format(iterate) + CHOSEN_ON_HELD_OUT.format(chosen),
        departures=(*departures, *([ON_PHOTOS] if dataset == "imagenet" else [])),
    )


def _zhang(dataset: str, reported: str) -> LinearTransfer:
    card = _card(
        dataset,
        "zhang",
        "maps resized bilinearly",
        f"Zhang et al., CVPR 2017, arXiv:1611.09842, section 4.1.1; net of ECCV 2016, arXiv:1603.08511; {reported}",
        (
            "paper: BatchNorm sees all 256 images of a step at once; in the authors' net it sees 64, and the gradients "
            "of four such batches are added up",
            "paper: no heads on the three max-pooled maps, which are not stages here",
            "paper: maps are resized by Krähenbühl's layer for Caffe, since the net names it; the authors' own Caffe, "
            "released apart from the net, could not be read",
            "paper: BatchNorm's running statistics forget a tenth at each step, as PyTorch's do; Caffe's forget a "
            "thousandth",
            "every scale: the networks see their own channels; the released net sees the lightness alone",
            *DEPARTURES,
            "desk: where a small map gets a single cell, it is the mean of the map",
            WEIGHT_DECAYS,
        ),
        "stage and weight decay",
        version=2,
    )
    sgd = SGD(lr=0.01, momentum=0.9, weight_decay=5e-4, decays="weights", bias_rate=2)  # COL
    paper = Probe(
        taps=ZHANG_TAPS,
        batch_norm=True,  # COL: without scale and shift
        augment=squash_place_and_flip,  # COL
        optimizers=(sgd,),
        course=Course(Steps(140_000), 256, Milestones((Steps(40_000), Steps(80_000), Steps(120_000)))),  # COL
        test_view=squash_and_centre,  # COL
        start=zeros,  # COL: Caffe's, where a net names no other
    )
    return LinearTransfer(card, probe_scales(paper, three_decays(sgd), 2 / 7, 4 / 7, 6 / 7))


def _gidaris(dataset: str, reported: str) -> LinearTransfer:
    card = _card(
        dataset,
        "gidaris",
        "adaptive max-pools",
        f"Gidaris et al., ICLR 2018, arXiv:1803.07728, section 3.2; released code; {reported}",
        (
            "every scale: the same grids on every AlexNet; one with more channels than RotNet's gives more numbers",
            *DEPARTURES,
            WEIGHT_DECAYS,
        ),
        "stage and weight decay",
    )
    sgd = SGD(lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)  # ROT
    paper = Probe(
        taps=GIDARIS_TAPS,
        batch_norm=True,  # ROT: without scale and shift
        augment=place_and_flip,  # ROT; Places205's images are 256 px already
        optimizers=(sgd,),
        course=Course(Epochs(35), 192, Milestones((Epochs(5), Epochs(15), Epochs(25)), gamma=0.2)),  # ROT
        start=wide_gaussian,  # ROT
    )
    return LinearTransfer(card, probe_scales(paper, three_decays(sgd), 1 / 7, 3 / 7, 5 / 7, gamma=0.2))


def _caron(dataset: str, reported: str) -> LinearTransfer:
    card = _card(
        dataset,
        "caron",
        "average pools, ten crops",
        f"Caron et al., ECCV 2018, arXiv:1807.05520, section 4.2; released code; {reported}",
        (
            "paper: every layer has the weight decay of 1e-7 that the released script gives to conv3, the only layer "
            "it runs",
            "paper: the layers are trained in one pass, not in a run of their own; they share nothing that trains",
            "every scale: the same grids on every AlexNet; one with fewer channels gives fewer numbers",
            FIFTH_CHOOSES,
            "desk: 40 epochs in batches of 64, at a constant rate, as the paper's nearly is",
            VIEWS_IN_TURN,
            LAST_ITERATE,
            "desk: the rate is one of 0.01, 0.1 and 1, since no BatchNorm makes the features of all networks and "
            "layers as large",
        ),
        "stage and rate",
        " and the best epoch of each",
    )
    lr, weight_decay = 0.01, 1e-7  # DC
    paper = Probe(
        taps=CARON_TAPS,
        batch_norm=False,  # DC
        augment=centre_place_and_flip,  # DC
        optimizers=(SGD(lr, momentum=0.9, weight_decay=weight_decay),),  # DC
        course=Course(Epochs(90), 256, InverseRoot(lr * weight_decay)),  # DC
        track_every=Epochs(1),  # DC
        test_view=ten_crops,  # DC
        start=torchs_own,  # DC
    )
    rates = tuple(SGD(rate, momentum=0.9, weight_decay=weight_decay) for rate in (0.01, 0.1, 1.0))
    return LinearTransfer(card, probe_scales(paper, rates))


linear_imagenet_zhang = _zhang("imagenet", "35.4 top-1 at conv3")
linear_places205_zhang = _zhang("places205", "34.1 top-1 at conv4")
linear_imagenet_gidaris = _gidaris("imagenet", "38.7 top-1 at conv3")
linear_places205_gidaris = _gidaris("places205", "35.1 top-1 at conv3")
linear_imagenet_caron = _caron("imagenet", "39.8 top-1 at conv4")
linear_places205_caron = _caron("places205", "37.5 top-1 at conv4")
