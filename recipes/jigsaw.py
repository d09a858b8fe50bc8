"""Jigsaw puzzles, with ResNet-50.

Noroozi & Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV 2016,
arXiv:1603.09246. Pipeline and schedule for ResNet-50 are those of Goyal et al., "Scaling and Benchmarking
Self-Supervised Visual Representation Learning", ICCV 2019, arXiv:1905.01235, as released in facebookresearch/vissl.

Nine tiles of an image are shuffled by one of |P| known permutations. Each tile goes through the same trunk on its own,
and a classifier that sees the nine codes side by side names the permutation. The gaps between tiles stop the network
from following lines from one tile to the next. The frequent greyscale stops it from using chromatic aberration.

Departures:
- ResNet-50 with the pipeline and schedule of Goyal et al., not the AlexNet of Noroozi & Favaro.
- The permutations are drawn by the paper's Algorithm 1 from our own seed. VISSL downloads a fixed file of them.
- A tile's offset in its cell of 85 pixels is 0 to 21. In VISSL it is 0 to 20.
- The warm-up raises the rate at every step. VISSL's configuration raises it once an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.transforms import v2

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.blocks.permutations import TILES, permutation_set
from benchmark.core.bounds import Count, Probability
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import (
    DESK_RESNET,
    DRAWN_YFCC,
    SGD,
    Adam,
    Change,
    Epochs,
    Given,
    InputSpec,
    Milestones,
    Pool,
    Recipe,
    Settings,
    Warmup,
)
from benchmark.views.patches import grid_patches


@dataclass(frozen=True)
class Jigsaw(Settings):
    P: Count = 2000  # size of the permutation set; Goyal et al. try 100 to 10,000
    short_side: Count = 256
    crop_size: Count = 255  # 3 x 3 cells of 85
    tile_size: Count = 64  # so the gap between neighbours is 0 to 42 pixels, 21 on average
    grey: Probability = 0.66  # probability of a puzzle without colour
    tile_features: Count = 1000

    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        pixels = _changes(self)(image)  # (3, 255, 255)
        S = int(torch.randint(self.P, ()))
        order = torch.from_numpy(permutation_set(self.P)[S]).long()
        return {"tiles": grid_patches(pixels, 3, self.tile_size)[order], "S": torch.tensor(S)}  # (9, 3, 64, 64), ()

    def build(self, backbone: Backbone, given: Given) -> Method:
        permutation_set(self.P)  # computed here, before the loader processes start, so that they inherit it
        return ContextFreeNetwork(self, backbone)


@cache  # building them for every image takes longer than some of them do
def _changes(settings: Jigsaw) -> v2.Compose:
    crop = [v2.Resize(settings.short_side), v2.RandomCrop(settings.crop_size), v2.PILToTensor()]
    return v2.Compose([*crop, v2.RandomHorizontalFlip(), v2.RandomGrayscale(settings.grey)])


class ContextFreeNetwork(Method):
    def __init__(self, settings: Jigsaw, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        channels, features = backbone.out_channels, settings.tile_features
        self.tile_head = nn.Sequential(nn.Linear(channels, features), nn.BatchNorm1d(features), nn.ReLU(inplace=True))
        self.fc = nn.Linear(TILES * features, settings.P)

    def loss(self, batch: Batch) -> Tensor:
        A = self.backbone.input.prepare(batch.views["tiles"].flatten(0, 1))  # (9 B, 3, 64, 64)
        codes = self.tile_head(self.backbone(A.contiguous(memory_format=torch.channels_last)))  # (9 B, 1000)
        logits = self.fc(codes.unflatten(0, (-1, TILES)).flatten(1))  # p(S | A_1 … A_9): (B, |P|)
        return cross_entropy(logits.float(), batch.views["S"])


jigsaw = Recipe(
    title="Jigsaw puzzles",
    method=Jigsaw(),
    backbone=ResNet(),
    data=Pool("imagenet"),
    length=Epochs(105),
    batch_size=256,
    optimizers={"main": SGD(lr=0.1, momentum=0.9, weight_decay=1e-4, decays="not_norms")},
    schedule=Milestones(
        at=(Epochs(30), Epochs(60), Epochs(90), Epochs(100)), gamma=0.1, warmup=Warmup(Epochs(5), 0.25)
    ),  # from 0.025
    reported="45.7 % ImageNet top-1 linear, best at res4 (PIRL, Tables 2 and 7)",
    desk=(
        *DESK_RESNET,
        Change("method.short_side", 73, "256 x 64 / 224: the same proportion"),
        Change("method.crop_size", 72, "3 x 3 cells of 24"),
        Change("method.tile_size", 18, "64/85 of a cell, as in the paper"),
        Change("method.P", 100, "a short run shows each of 2,000 permutations too rarely to learn them"),
        Change("method.tile_features", 128, "the network is narrower, and there are fewer permutations"),
        Change("optimizers.main", Adam(lr=5e-4, weight_decay=1e-4, decoupled=True), "needs far fewer steps"),
        Change(
            "schedule",
            Milestones(at=(Epochs(24), Epochs(34)), warmup=Warmup(Epochs(2), 0.25)),
            "two drops, late in a short training",
        ),
    ),
)

# PIRL, section 3.4: a million photos of YFCC100M, no list of which is named; 1 % are 992,066, drawn by seed.
jigsaw_yfcc = replace(
    jigsaw,
    title="Jigsaw puzzles, YFCC1M",
    data=Pool("yfcc100m", percent=1),
    reported="64.0 mAP VOC07, 42.1 % Places205 (PIRL, Table 4)",
    desk=(
        *jigsaw.desk,
        *DRAWN_YFCC,
        Change(
            "schedule",
            Milestones(at=(Epochs(48), Epochs(68)), warmup=Warmup(Epochs(4), 0.25)),
            "the same drops of twice as many epochs",
            drawn=True,
        ),
    ),
)
