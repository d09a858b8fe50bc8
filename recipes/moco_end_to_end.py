"""MoCo's first rival: a dictionary that is the batch, whose keys are trained end to end.

He, Fan, Wu, Xie & Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
arXiv:1911.05722, sections 3.2 and 4.1, Figures 2a and 3.

Pretext, network and loss are MoCo's (recipes/moco.py). The keys are those of the batch's own images, and their gradient
trains the encoder as that of the queries does. So the dictionary cannot be larger than a batch: of its K keys one is
the positive, and K - 1 are negatives. The rate grows with the batch; without that the paper loses 2 % at 1,024, the
largest batch that eight GPUs of 32 GB could hold.

Departures:
- One network encodes queries and keys. The paper says that there may be two, and not which it measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.blocks.shuffle import encoded_in_other_order
from benchmark.core import distributed
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import SGD, Change, Given, without
from recipes.moco import FIGURE_3, SMALL, Pretext, encoded, moco


@dataclass(frozen=True)
class EndToEnd(Pretext):
    """K is the recipe's batch."""

    def build(self, backbone: Backbone, given: Given) -> Method:
        return EndToEndContrast(self, backbone)


class EndToEndContrast(Method):
    def __init__(self, settings: EndToEnd, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.settings, self.chunk = backbone, settings, settings.chunk
        self.head = settings.head(backbone.out_channels)

    def f(self, pixels: Tensor) -> Tensor:
        return encoded(pixels, self.backbone, self.head, self.chunk)

    def loss(self, batch: Batch) -> Tensor:
        q = self.f(batch.views["x_q"])  # (B, 128)
        k = encoded_in_other_order(self.f, batch.views["x_k"], batch.seed)  # (B, 128)
        keys = distributed.gather(k, gradient=True)  # (K, 128)
        if len(keys) < 2:
            raise UserError("the negatives are keys of other images: set --recipe.batch-size to two or more")
        positive = len(q) * distributed.rank() + torch.arange(len(q), device=q.device)  # each query's place in the keys
        with torch.autocast(q.device.type, enabled=False):
            return cross_entropy(q @ keys.T / self.settings.tau, positive)


# At desk scale the batch remains as large as K; at photos scale, where batches are twice as large, so is K.
_SMALL = without(SMALL, "batch_size")


def _rate(K: int) -> Change:
    return Change("optimizers.main.lr", 1e-3 * K / 32, "in proportion to the batch, as in the paper")


moco_end_to_end = replace(
    moco,
    title="Contrastive, end to end",
    method=EndToEnd(),
    backbone=ResNet(over=128),  # images on each of 8 GPUs
    batch_size=1024,  # K
    optimizers={"main": SGD(lr=0.12, momentum=0.9, weight_decay=1e-4)},  # 0.03 x K / 256
    reported=f"57.3 {FIGURE_3}; 54.6 AP, VOC07+12 detection (its Table 3)",
    desk=(*_SMALL, Change("batch_size", 256, "an eighth of the 2,000 images"), _rate(256)),
)

moco_end_to_end_k256 = replace(
    moco_end_to_end,
    title="Contrastive, end to end, K = 256",
    backbone=ResNet(over=32),
    batch_size=256,
    optimizers=moco.optimizers,
    reported=f"54.9 {FIGURE_3}",
    desk=(*_SMALL, _rate(256)),
)

moco_end_to_end_k64 = replace(
    moco_end_to_end,
    title="Contrastive, end to end, K = 64",
    backbone=ResNet(over=8),
    batch_size=64,
    optimizers={"main": SGD(lr=0.0075, momentum=0.9, weight_decay=1e-4)},
    reported="the paper's smallest K is 256",
    desk=(*_SMALL, _rate(64)),
)
