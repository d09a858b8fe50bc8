"""SimCLR v2: SimCLR with larger networks, a deeper head that is transferred in part, and a memory.

Chen, Kornblith, Swersky, Norouzi & Hinton, "Big Self-Supervised Models are Strong Semi-Supervised Learners", NeurIPS
2020, arXiv:2006.10029, sections 2 and 3.1, and where the paper leaves it open, the released code
(google-research/simclr).

Views, loss and batch are SimCLR's (recipes/simclr.py). What changes:

- The head g has three layers. Its first one stays with the network, and fine-tuning on few labels starts there. Linear
  classifiers still see h, which comes before it.
- The rate is 0.1 times the root of the batch, and weights decay a hundred times as much.
- Networks with selective kernels, deeper and wider, have a use for many images without labels.
- With the memory, z is told from more than the batch: from what a slow copy of f and g, as MoCo's, said of the last K
  images. With M for these,

    l(i, j) = -log exp(sim(z_i, z_j) / tau) / (sum over k != i of exp(sim(z_i, z_k) / tau) + sum over m in M of
              exp(sim(z_i, m) / tau))

The released code has no memory; the paper's Table 1 was measured with it, which brings about 1 %. Fine-tuned networks
and what they teach others follow in recipes/simclr_v2_fine_tuned.py and recipes/simclr_v2_distilled.py.

Departures:
- Those of recipes/simclr.py, but for the weight decay, which paper and code have alike.
- The memory takes in the second view of each image. The paper does not say which views it takes.
- The slow copy follows after each step, and what it said goes into the memory after that, as in MoCo. The paper does
  not say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from benchmark.backbones.contract import Backbone
from benchmark.backbones.selective_resnet import SelectiveResNet
from benchmark.backbones.with_head import WithProjection, assembled, projection_head
from benchmark.blocks.chunks import features_in_chunks
from benchmark.blocks.momentum import follow, momentum_copy
from benchmark.blocks.queue import KeyQueue
from benchmark.core.bounds import Probability, Queue
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import LARS, Epochs, Given, Part, Warmup, WarmupCosine, without
from recipes.moco import YOUNG_KEYS
from recipes.simclr import ContrastiveViews, SimCLR, simclr, similarities

KEPT = 3  # modules of g: its first layer


@dataclass(frozen=True)
class SimCLRv2(SimCLR):
    def build(self, backbone: Backbone, given: Given) -> Method:
        return WithDeepHead(self, backbone, self.head(backbone))

    def head(self, backbone: Backbone) -> nn.Module:
        return projection_head(backbone.out_channels, self.dim, layers=3)


@dataclass(frozen=True)
class SimCLRv2Memory(SimCLRv2):
    K: Queue = 65_536  # what the memory holds
    m: Probability = 0.999

    def build(self, backbone: Backbone, given: Given) -> Method:
        return WithMemory(self, backbone, self.head(backbone))


class WithDeepHead(ContrastiveViews):
    def export(self) -> Backbone:
        assert isinstance(self.g, nn.Sequential)
        return assembled(WithProjection(self.backbone.architecture), self.backbone, self.g[:KEPT])


class WithMemory(WithDeepHead):
    settings: SimCLRv2Memory

    def __init__(self, settings: SimCLRv2Memory, backbone: Backbone, g: nn.Module) -> None:
        super().__init__(settings, backbone, g)
        self.backbone_m, self.g_m = momentum_copy(backbone), momentum_copy(g)
        self.memory = KeyQueue(settings.K, settings.dim)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        z, z_m = self.embed(batch), self.embed_slowly(batch.views["x_j"])  # (2B, 128), (B, 128)
        with torch.autocast(z.device.type, enabled=False):
            loss = nt_xent_with_memory(z, self.memory, self.settings.tau)
        yield "main", loss
        follow(self.backbone_m, self.backbone, self.settings.m)
        follow(self.g_m, self.g, self.settings.m)
        self.memory.put(normalize(z_m, dim=1))

    @torch.no_grad()
    def embed_slowly(self, pixels: Tensor) -> Tensor:
        return self.g_m(features_in_chunks(self.backbone_m, pixels, self.chunk)).float()


def nt_xent_with_memory(z: Tensor, memory: KeyQueue, tau: float) -> Tensor:
    """The mean over this process's 2B views of the loss above, each against the 2N of all processes and all of the
    memory, a scalar. z (2B, dim): the first views of this process's B images, then their second views."""
    s, row = similarities(z, tau)  # (2B, 2N)
    s_m = memory.scores(normalize(z, dim=1)) / tau  # (2B, K)
    return cross_entropy(torch.cat([s, s_m], dim=1), row.roll(-len(z) // 2))


simclr_v2 = replace(
    simclr,
    title="SimCLR v2",
    method=SimCLRv2(),
    length=Epochs(800),
    optimizers={"main": LARS(lr=6.4, momentum=0.9, trust=1e-3, weight_decay=1e-4, decays="weights")},
    schedule=WarmupCosine(Warmup(Part(0.05), start_factor=0.0)),
    reported="71.1 % ImageNet top-1 linear, says its author (issue 77 of google-research/simclr)",
    # the rate of `simclr` was chosen for it alone. On held-out images linear classifiers were better at 3e-3 here too
    # (docs/results.md), but no row has been measured at it
    desk=without(simclr.desk, "schedule.warmup.span", "optimizers.main.lr"),
)

simclr_v2_memory = replace(
    simclr_v2,
    title="SimCLR v2 with memory",
    method=SimCLRv2Memory(),
    reported="71.7 % ImageNet top-1 linear; 57.9 % and 68.4 % fine-tuned on 1 % and 10 % (its Table 1)",
    desk=(*simclr_v2.desk, *YOUNG_KEYS),
)

# Table 2's teacher. At desk scale it is as wide as its student, which would otherwise take a quarter of the time.
simclr_v2_2x_sk = replace(
    simclr_v2_memory,
    title="SimCLR v2, ResNet-50 (2x) with selective kernels",
    backbone=SelectiveResNet(width=2, over="all", zero_init_residual=True),
    reported="77.7 % ImageNet top-1 linear; 70.6 % and 77.0 % fine-tuned on 1 % and 10 % (its Table 1)",
)
