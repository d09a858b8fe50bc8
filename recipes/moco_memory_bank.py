"""MoCo's second rival: a dictionary that is a memory bank.

He, Fan, Wu, Xie & Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
arXiv:1911.05722, sections 3.2 and 4.1, Figures 2b and 3. The bank is that of Wu et al., CVPR 2018, arXiv:1805.01978
(recipes/npid.py).

Pretext, network and loss are MoCo's (recipes/moco.py). The keys are features that images had when they were last seen:
that of the query's own image is the positive, those of K others are the negatives. No encoder makes them anew, so there
can be as many as wanted, but they come from encoders all over the past epoch. The momentum is on an image's feature,
not on an encoder.

Departures:
- The paper does not say how large the bank's momentum is. It is 0.5 here, as in the released code of Wu et al.
- Negatives never include the image itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from PIL.Image import Image
from torch import Tensor

from benchmark.backbones.contract import Backbone
from benchmark.blocks.memory_bank import BankSettings
from benchmark.blocks.nce import info_nce
from benchmark.core.bounds import Count
from benchmark.data.batch import Batch
from benchmark.method import EmbedAll, Method
from benchmark.recipe import Change, Given, InputSpec, without
from recipes.moco import FIGURE_3, SMALL, Pretext, encoded, moco


@dataclass(frozen=True)
class FromMemory(Pretext, BankSettings):
    K: Count = 65_536  # negatives

    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        return {"x_q": self.view(image, spec.size)}  # (3, 224, 224)

    def build(self, backbone: Backbone, given: Given) -> Method:
        return MemoryBankContrast(self, backbone, given.num_images)


class MemoryBankContrast(Method):
    def __init__(self, settings: FromMemory, backbone: Backbone, num_images: int) -> None:
        super().__init__()
        self.backbone, self.settings, self.chunk = backbone, settings, settings.chunk
        self.head = settings.head(backbone.out_channels)
        self.bank = settings.bank(num_images, settings.dim)

    def f_q(self, batch: Batch) -> Tensor:
        return encoded(batch.views["x_q"], self.backbone, self.head, self.chunk)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        q = self.f_q(batch)  # (B, 128)
        s = self.bank.own_and_others(q[:, None], batch.index, self.settings.K, batch.seed)[:, 0]  # (B, 1 + K)
        yield "main", info_nce(s[:, 0], s[:, 1:], self.settings.tau)
        self.bank.update(batch.index, q)

    def prepare(self, embed_all: EmbedAll) -> None:
        self.bank.fill(self.settings.first_rows(self, self.f_q, embed_all))


moco_memory_bank = replace(
    moco,
    title="Contrastive, memory bank",
    method=FromMemory(),
    reported=f"58.0 {FIGURE_3}; 54.9 AP, VOC07+12 detection (its Table 3)",
    desk=(
        *SMALL,
        Change("method.bank_init", "features", "40 epochs are too few to forget a random bank"),
        Change("method.K", 4096, "a part of Tiny ImageNet as large as the paper's of ImageNet"),
        Change("method.K", 1024, "half of the 2,000 images", drawn=True),
    ),
)

# Figure 3, as in recipes/moco.py
moco_memory_bank_k64 = replace(
    moco_memory_bank,
    title="Contrastive, memory bank, K = 64",
    method=FromMemory(K=64),
    desk=without(moco_memory_bank.desk, "method.K"),
    reported="the paper's smallest K is 256",
)
moco_memory_bank_k256 = replace(
    moco_memory_bank_k64,
    title="Contrastive, memory bank, K = 256",
    method=FromMemory(K=256),
    reported=f"50.0 {FIGURE_3}",
)
moco_memory_bank_k1024 = replace(
    moco_memory_bank_k64,
    title="Contrastive, memory bank, K = 1,024",
    method=FromMemory(K=1024),
    reported=f"54.1 {FIGURE_3}",
)
