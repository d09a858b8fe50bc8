"""PCL: prototypical contrastive learning. MoCo, in which a query also matches the cluster that its image lies in.

Li, Zhou, Xiong & Hoi, "Prototypical Contrastive Learning of Unsupervised Representations", ICLR 2021, arXiv:2005.04966.
What the paper leaves open is as in its authors' released code (salesforce/PCL). pcl is a diff of MoCo, and pcl_v2 the
same diff of MoCo v2 (recipes/moco.py, recipes/moco_v2.py): all that is not here is theirs.

MoCo pushes all other images away, those of the same kind too. Here each epoch begins with k-means on the keys of all
images, which the momentum encoder makes of their centre crops, M times with different numbers of clusters k_m. The
centres, at length 1, are prototypes. To MoCo's InfoNCE comes a contrast of each query v with them:

    L = L_InfoNCE + 1/M sum_m -log exp(v . c_s / phi_s) / sum_j exp(v . c_j / phi_j)
    phi = sum over the Z images of a cluster of ||v'_z - c||_2 / (Z log(Z + alpha))

c_s is the prototype of the query's own image; j goes over the prototypes of the batch's images and over r others, drawn
anew at each step. phi is each cluster's own temperature: loose clusters have a high one, so that they are not pulled
together further. It is held between its 10th and 90th percentile, and its mean is tau. The first epochs have no
clusters.

Departures:
- The prototypes of the batch are those of all processes, and each counts once. In the released code they are those of
  one GPU's images, and one counts as often as it has images there, so that a query may find its own among the others.
- k-means starts from images that our own seed draws, and a cluster that is empty after the last assignment takes half
  of the largest one. In the released code faiss draws, and an empty cluster stays.
- A prototype is the mean of the keys that its cluster ends with. The released code keeps faiss's centres, which are the
  means before the last assignment.
- Where there are no r others, all prototypes count. The released code stops.
- The paper has 16,000 negatives. They are 16,384 here, both keys and prototypes, as released.
- Both have a tau of 0.2, as in the released commands.
- Blur and rate of pcl_v2 depart as MoCo v2's do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from benchmark.backbones.contract import Backbone
from benchmark.blocks.clustering import Work, best_kmeans, kmeans_work, rows_of_all
from benchmark.core import distributed
from benchmark.core.bounds import Clusters, ClustersOfEach, Count, CountOrNone, Jitter, Positive, Queue
from benchmark.core.draws import mix, permutation
from benchmark.core.streams import Stream
from benchmark.data.batch import Batch
from benchmark.method import EmbedAll, Method
from benchmark.recipe import Change, Given
from recipes.moco import MoCo, MomentumContrast, moco
from recipes.moco_v2 import MoCoV2, moco_v2

EXTREMES = (0.1, 0.9)  # quantiles between which phi is held
LEAST_PHI = 1e-6  # a cluster of copies of one image has no width, and is divided by it


@dataclass(frozen=True)
class PCL(MoCo):
    tau: Positive = 0.2
    K: Queue = 16_384
    r: Clusters = 16_384  # prototypes drawn besides the batch's
    k_m: ClustersOfEach = (25_000, 50_000, 100_000)  # clusters of each of the M clusterings
    alpha: Positive = 10.0
    iterations: Count = 20  # of k-means
    starts: Count = 5  # of k-means, the best of which counts
    warmup_epochs: CountOrNone = 20

    def build(self, backbone: Backbone, given: Given) -> Method:
        return PrototypicalContrast(self, backbone, given.num_images)


@dataclass(frozen=True)
class PCLV2(PCL, MoCoV2):
    """Head and augmentation of MoCo v2, of which `jitter` is also a setting of MoCo's."""

    jitter: Jitter = MoCoV2.jitter


class PrototypicalContrast(MomentumContrast):
    settings: PCL
    clusterings: Sequence[Prototypes]

    def __init__(self, settings: PCL, backbone: Backbone, num_images: int) -> None:
        super().__init__(settings, backbone)
        self.num_images = num_images
        each = (Prototypes(k, settings.dim, num_images) for k in settings.k_m)
        self.clusterings = nn.ModuleList(each)  # type: ignore[assignment]  # a module, so that its state is kept

    def on_epoch_start(self, epoch: int, embed_all: EmbedAll) -> None:
        M = len(self.clusterings)
        if not M or epoch < self.settings.warmup_epochs:
            return
        # drawn before process 0 alone goes on, so that all draw the same
        seeds = torch.randint(1 << 31, (M, self.settings.starts)).tolist()
        keys = rows_of_all(embed_all(lambda batch: self.f_k(batch.views["image"]), still=True), self.num_images)
        for clustering, own in zip(self.clusterings, seeds, strict=True):
            clustering.become(keys, self.settings, own)

    def contrast(self, q: Tensor, k: Tensor, batch: Batch) -> Tensor:
        loss = super().contrast(q, k, batch)
        if not self.clusterings or batch.epoch < self.settings.warmup_epochs:
            return loss
        seeds = (mix(batch.seed, Stream.PROTOTYPES, m) for m in range(len(self.clusterings)))
        terms = [
            one.proto_nce(q, batch.index, self.settings.r, seed)
            for one, seed in zip(self.clusterings, seeds, strict=True)
        ]
        return loss + torch.stack(terms).mean()

    def work_between(self) -> list[Work]:
        settings = self.settings
        of_each = (settings.iterations, settings.starts)
        return [kmeans_work(len(one.s), settings.dim, len(one.phi), *of_each) for one in self.clusterings]


class Prototypes(nn.Module):
    """One clustering. s: (num_images,), the cluster of each; c: (k, dim), the prototypes; phi: (k,)."""

    s: Tensor
    c: Tensor
    phi: Tensor

    def __init__(self, k: int, dim: int, num_images: int) -> None:
        super().__init__()
        self.register_buffer("s", torch.zeros(num_images, dtype=torch.int64))
        self.register_buffer("c", torch.zeros(k, dim))
        self.register_buffer("phi", torch.ones(k))

    def become(self, keys: Tensor, settings: PCL, seeds: list[int]) -> None:
        """keys: (num_images, dim) on process 0, which clusters them and tells the others."""
        found = [self.s.cpu(), self.c.cpu(), self.phi.cpu()]
        with distributed.together():
            if distributed.rank() == 0:
                s, _ = best_kmeans(keys, len(self.phi), settings.iterations, seeds)
                centres = means_of(keys, s, len(self.phi))  # faiss's are of float32, and of the assignment before
                phi = concentration(keys, s, centres, settings.alpha, settings.tau)
                found = [s, normalize(centres, dim=1), phi]
        for buffer, value in zip((self.s, self.c, self.phi), found, strict=True):
            buffer.copy_(distributed.broadcast(value.to(buffer.dtype)))

    def proto_nce(self, v: Tensor, index: Tensor, r: int, seed: int) -> Tensor:
        """v (B, dim), queries of the images `index` (B,) -> their mean loss, a scalar."""
        s = self.s[index]
        scores = v @ self.c.T / self.phi  # (B, k)
        counts = candidates(distributed.gather(s), len(self.phi), r, seed)
        return cross_entropy(scores.masked_fill(~counts, -torch.inf), s)


def candidates(positives: Tensor, k: int, r: int, seed: int) -> Tensor:
    """(k,) bool: the prototypes that count, those of the whole batch and r others, drawn without replacement."""
    is_positive = torch.zeros(k, dtype=torch.bool, device=positives.device).index_fill(0, positives, True)
    order = permutation(k, seed).to(positives.device)
    others = (~is_positive[order]).cumsum(0)  # how many of them have come, in this order
    return is_positive.index_put((order,), is_positive[order] | (others <= r))


def means_of(x: Tensor, s: Tensor, k: int) -> Tensor:
    """The mean (k, dim) of each cluster's rows: x (N, dim), s (N,), no cluster empty."""
    sums = x.new_zeros(k, x.shape[1]).index_add(0, s, x)
    return sums / torch.bincount(s, minlength=k)[:, None]


def concentration(x: Tensor, s: Tensor, centres: Tensor, alpha: float, tau: float) -> Tensor:
    """phi (k,) of clusters s (N,) of rows x (N, dim). One image alone has no width: its cluster has the largest phi."""
    k = len(centres)
    Z, distance = torch.bincount(s, minlength=k), (x - centres[s]).norm(dim=1)
    phi = torch.zeros(k, dtype=distance.dtype).index_add(0, s, distance) / (Z * (Z + alpha).log())
    phi[Z < 2] = phi.max()
    low, high = phi.quantile(phi.new_tensor(EXTREMES))
    phi = phi.clamp(low, high).clamp_min(LEAST_PHI)
    return tau * phi / phi.mean()


# What both change at desk scale besides MoCo's changes, of which their queue is one.
_SMALL = (
    Change("method.k_m", (2000, 4000, 8000), "50, 25 and 12 images a cluster of Tiny ImageNet, as of ImageNet"),
    Change("method.k_m", (10, 20, 40), "200, 100 and 50 images a cluster; a smoke world has 48 images", drawn=True),
    Change("method.r", 1300, "two thirds of the fewest clusters, as in the paper"),
    Change("method.r", 6, "two thirds of the fewest clusters, as in the paper", drawn=True),
    Change("method.starts", 1, "five would take one thread of a CPU ten minutes an epoch of Tiny ImageNet"),
    Change("method.warmup_epochs", 1, "the least there can be: a tenth of photos' 5 epochs is less"),
)

pcl = replace(
    moco,
    title="PCL",
    method=PCL(),
    reported="61.5 % ImageNet top-1 linear, 82.3 mAP VOC07 (its released code)",
    desk=(*moco.desk, *_SMALL),
)

pcl_v2 = replace(
    moco_v2,
    title="PCL v2",
    method=PCLV2(),
    reported="67.6 % ImageNet top-1 linear, 85.4 mAP VOC07 (its released code)",
    desk=(*moco_v2.desk, *_SMALL),
)
