"""CMC: contrastive multiview coding of an image's lightness and its colours.

Tian, Krishnan & Isola, "Contrastive Multiview Coding", ECCV 2020, arXiv:1906.05849. What the paper leaves open is as in
the released code, HobbitLong/CMC.

The lightness L and the colours ab of an image are two views of it. Two networks that share nothing encode one each. The
code of one view must be told from noise by the other view's memory bank: it must match its own image's entry there, and
none of m other images'. With V_1 the lightness and V_2 the colours,

    L = L_NCE(V_1, V_2) + L_NCE(V_2, V_1),   P(i|v_1) = exp(v_1 m_2i / tau) / Z_1,   h = P / (P + m / n)

Transfers see what both networks say of an image, side by side.

Departures:
- The noise samples never include the image itself. The released sampler may draw it.
- The banks start with vectors of unit length. In the released code they are not normalised at first.
- The released code adds 1e-7 to each denominator of h.
- The convolutions of AlexNet's halves have a bias before BatchNorm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from benchmark.backbones.contract import Backbone
from benchmark.backbones.split_alexnet import SplitAlexNet
from benchmark.backbones.split_resnet import SplitResNet
from benchmark.backbones.two_networks import TwoHalves
from benchmark.blocks.chunks import features_in_chunks
from benchmark.blocks.memory_bank import BankSettings, MemoryBank
from benchmark.blocks.nce import fix_partition, nce_constant_partition
from benchmark.core.bounds import Area, Count, Positive
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.method import EmbedAll, Method
from benchmark.recipe import (
    DESK_RESNET,
    DRAWN_CROPS,
    SGD,
    Change,
    Epochs,
    Given,
    InputSpec,
    Lab,
    Milestones,
    Part,
    Pool,
    Recipe,
    without,
)
from benchmark.views.crops import flipped_crop


@dataclass(frozen=True)
class CMC(BankSettings):
    m: Count = 4096  # noise samples
    tau: Positive = 0.07
    dim: Count = 128
    crop_area: Area = (0.08, 1.0)
    head_norm: bool = False  # an affine-free BatchNorm after fc

    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        return {"image": flipped_crop(image, spec.size, self.crop_area)}  # (3, 224, 224)

    def build(self, backbone: Backbone, given: Given) -> Method:
        if not isinstance(backbone, TwoHalves):
            raise UserError(
                f"CMC needs two networks that see different channels, such as SplitResNet, not "
                f"{type(backbone.architecture).__name__}: set --recipe.backbone"
            )
        return MultiviewCoding(self, backbone, given.num_images)


class MultiviewCoding(Method):
    Z: Tensor

    def __init__(self, settings: CMC, backbone: Backbone, num_images: int) -> None:
        super().__init__()
        self.backbone, self.settings, self.chunk = backbone, settings, settings.chunk
        channels, dim = backbone.out_channels // 2, settings.dim
        self.fc = nn.ModuleList(nn.Linear(channels, dim) for _ in range(2))
        self.norm = nn.ModuleList(
            nn.BatchNorm1d(dim, affine=False) if settings.head_norm else nn.Identity() for _ in range(2)
        )
        self.bank_1, self.bank_2 = (settings.bank(num_images, dim, number) for number in (0, 1))
        self.register_buffer("Z", torch.zeros(2))  # 0: not estimated yet

    def embed(self, batch: Batch) -> Tensor:
        """v_1 and v_2, unit length each: (B, 2, 128)."""
        h = features_in_chunks(self.backbone, batch.views["image"], self.chunk).chunk(2, dim=1)  # (B, 2048) each
        v = [norm(fc(half).float()) for fc, norm, half in zip(self.fc, self.norm, h, strict=True)]
        return normalize(torch.stack(v, dim=1), dim=2)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        v = self.embed(batch)
        noise = self.bank_1.negatives(batch.index, self.settings.m, batch.seed)  # (B, m), the same of both banks
        index = torch.cat([batch.index[:, None], noise], dim=1)
        with torch.autocast(v.device.type, enabled=False):
            L_12 = self._term(v[:, 0], self.bank_2, self.Z[0], index)
            L_21 = self._term(v[:, 1], self.bank_1, self.Z[1], index)
        yield "main", L_12 + L_21
        self.bank_1.update(batch.index, v[:, 0])
        self.bank_2.update(batch.index, v[:, 1])

    def _term(self, v: Tensor, bank: MemoryBank, Z: Tensor, index: Tensor) -> Tensor:
        """L_NCE of the codes v (B, 128) of a view among the other's entries of index (B, 1 + m), its own first."""
        s = bank.scores(v[:, None], index)[:, 0]  # (B, 1 + m)
        fix_partition(Z, s, self.settings.tau, bank.num_images)
        return nce_constant_partition(s[:, 0], s[:, 1:], self.settings.tau, Z, bank.num_images)

    def prepare(self, embed_all: EmbedAll) -> None:
        for index, v in self.settings.first_rows(self, self.embed, embed_all):
            self.bank_1.fill([(index, v[:, 0])])
            self.bank_2.fill([(index, v[:, 1])])


# Each channel's middle, and how far it goes from there: what the released code subtracts and divides by.
_LAB = Lab((50.0, 6.025, -6.6895), (50.0, 92.208, 101.1675))

cmc = Recipe(
    title="Contrastive multiview coding (CMC)",
    method=CMC(),
    backbone=SplitResNet(),  # of width 1 each, which PIRL and MoCo compare themselves with
    input=InputSpec(colour=_LAB),
    data=Pool("imagenet"),
    length=Epochs(240),
    batch_size=128,
    optimizers={"main": SGD(lr=0.03, momentum=0.9, weight_decay=1e-4)},
    schedule=Milestones(at=(Epochs(120), Epochs(160), Epochs(200)), gamma=0.1),
    reported="64.1 % ImageNet top-1 linear (PIRL, Table 2); 64.0 (CMC, Table 1)",
    desk=(
        *DESK_RESNET,
        DRAWN_CROPS,
        Change("method.m", 1024, "half of the 2,000 images", drawn=True),
        Change(
            "schedule",
            Milestones(at=(Part(1 / 2), Part(2 / 3), Part(5 / 6))),
            "falls at the paper's parts of the length",
        ),
        Change(
            "method.head_norm", True, "the backbone's features are all positive, so without it all cosines are near 1"
        ),
        Change("method.bank_init", "features", "40 epochs are too few to forget a random bank, and Z is fixed by it"),
    ),
)

# At desk and photos scale each half is twice as wide as `cmc`'s.
cmc_2x = replace(
    cmc,
    title="Contrastive multiview coding (CMC), 2x",
    backbone=SplitResNet(width=2.0),
    reported="68.3 % ImageNet top-1 linear (CMC, Table 1); 68.4 (MoCo, Table 1)",
    desk=(*cmc.desk, Change("backbone.width", 0.5, "twice `cmc`'s")),
)

cmc_alexnet = replace(
    cmc,
    title="Contrastive multiview coding (CMC), AlexNet",
    method=replace(CMC(), crop_area=(0.2, 1.0)),
    # NOTE: its halves see L and ab; the number reported for it is of Y and DbDr, which no input here offers. A luma
    # with two colour differences brings half a point to a point, by notes on the paper; not checked
    backbone=SplitAlexNet((96, 256, 384, 384, 256), groups=2, normed="all"),
    batch_size=256,
    reported="42.8 % ImageNet top-1 linear at conv5, with Y and DbDr for L and ab (CMC, Table 7)",
    desk=without(cmc.desk, "backbone.zero_init_residual"),  # an AlexNet has no such branches
)
