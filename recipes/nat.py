"""Noise as targets: each image has a random vector of its own, and images exchange vectors that suit others better.

Bojanowski & Joulin, "Unsupervised Learning by Predicting Noise", ICML 2017, arXiv:1704.05310, with the encoder and on
the images of Deep InfoMax's Tiny ImageNet table (Hjelm et al., ICLR 2019, arXiv:1808.06670). What the paper leaves open
is as in the authors' facebookresearch/noise-as-targets.

As many vectors C of unit length as there are images are drawn once, and spread evenly over the sphere. With P, which
image has which, and z = f(X) of unit length, n images of a batch lose

    min over P of 1/(2n) ||f(X) - P C||²

In every third epoch the images of a batch exchange the vectors that they have, such that the loss of the batch is the
least. As no two images ever have the same one, they cannot all end up with the same z.

Departures:
- The code y is what is brought to the vectors, of 64 numbers. The authors' network has a layer for it, of 2,048.
- Images are seen as they are, as all of the table's methods do. The authors' are random crops of Sobel's edges.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from benchmark.backbones.contract import Backbone
from benchmark.core import distributed
from benchmark.core.bounds import Count
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import Given
from recipes.dim import SMALL, SOURCE_OF_LENGTH, WholeImages, dim_local


@dataclass(frozen=True)
class NoiseAsTargets(WholeImages):
    every: Count = 3  # epochs, from the first on, in which vectors are exchanged

    def build(self, backbone: Backbone, given: Given) -> Method:
        return TargetExchange(self, backbone, given.num_images)


class TargetExchange(Method):
    C: Tensor
    P: Tensor
    exchanged: Tensor

    def __init__(self, settings: NoiseAsTargets, backbone: Backbone, num_images: int) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        self.register_buffer("C", normalize(torch.randn(num_images, backbone.out_channels), dim=1))
        self.register_buffer("P", torch.arange(num_images))  # which vector each image has
        # state too: two epochs in three exchange nothing, and a resumed run logs what the last exchange was
        self.register_buffer("exchanged", torch.zeros(()))

    def loss(self, batch: Batch) -> Tensor:
        x = self.backbone.input.prepare(batch.views["image"])  # (B, 3, 64, 64)
        y = self.backbone(x.contiguous(memory_format=torch.channels_last))
        with torch.autocast(y.device.type, enabled=False):
            z = normalize(y.float(), dim=1)  # (B, 64)
            if batch.epoch % self.settings.every == 0:
                self.exchange(distributed.gather(batch.index), distributed.gather(z.detach()))
            return (z - self.C[self.P[batch.index]]).square().sum(dim=1).mean() / 2

    def exchange(self, index: Tensor, z: Tensor) -> None:
        """Among the images of the whole batch: index (n,), z (n, 64). P may only change within it."""
        own = self.P[index]
        similarity = z @ self.C[own].T  # (n, n), image by vector
        best = torch.from_numpy(linear_sum_assignment(similarity.cpu().numpy(), maximize=True)[1])
        best = distributed.broadcast(best).to(index.device)
        self.exchanged.copy_((best != torch.arange(len(best), device=best.device)).float().mean())
        self.P[index] = own[best]

    def scalars(self) -> dict[str, float]:
        """exchanged: the share of images that took another vector, the last time that they could."""
        return {"exchanged": float(self.exchanged)}


nat = replace(
    dim_local,
    title="Noise as targets, on 64 px",
    # NOTE: optimizer, batch and length are those of the table's other rows, since the paper of the table names none.
    # NAT's own are SGD at a rate of 2.56 for such a mean, batches of 256, and 100 epochs.
    method=NoiseAsTargets(),
    optimizers={"main": dim_local.optimizers["main"]},
    reported=f"13.70 / 11.62 / 1.20 % Tiny ImageNet top-1 at conv, fc and Y (DIM, Table 2); {SOURCE_OF_LENGTH}",
    desk=SMALL,
)
