"""NPID: non-parametric instance discrimination.

Wu, Xiong, Yu & Lin, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018,
arXiv:1805.01978. Settings are those of the released ResNet-50 run, zhirongw/lemniscate.pytorch.

Every image is a class of its own. Its classifier weight is its own feature from the epoch before, kept in a memory
bank. The softmax over all images is estimated from m noise samples; its partition function Z is fixed after the first
batch.

Departures:
- The bank's momentum of 0.5 stands in for the proximal term of the paper's equation 8, as in the released code.
- Z is estimated from the first batch and then kept, as in the released code.
- The noise samples never include the image itself. The released sampler may draw it.
- The bank starts with vectors of unit length. In the released code they are not normalised at first.
- BatchNorm's scale and shift decay like all other weights, as in the released code. VISSL's configuration of NPID
  spares them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from benchmark.backbones.alexnet import DEEPCLUSTER
from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet import ResNet
from benchmark.blocks.chunks import features_in_chunks
from benchmark.blocks.memory_bank import BankSettings
from benchmark.blocks.nce import fix_partition, nce_constant_partition
from benchmark.core.bounds import Area, Count, Jitter, Positive, Probability
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
    Milestones,
    Pool,
    Recipe,
    without,
)
from benchmark.views.crops import flipped_crop
from benchmark.views.photometric import GreyEach, JitterEach, apply_all


@dataclass(frozen=True)
class NPID(BankSettings):
    m: Count = 4096  # noise samples
    tau: Positive = 0.07
    dim: Count = 128
    crop_area: Area = (0.2, 1.0)
    grey: Probability = 0.2
    jitter: Jitter = (0.4, 0.4, 0.4, 0.4)
    head_norm: bool = False  # an affine-free BatchNorm after fc

    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        pixels = flipped_crop(image, spec.size, self.crop_area)
        return {"image": apply_all(pixels[None], GreyEach(self.grey), JitterEach(*self.jitter))[0]}  # (3, 224, 224)

    def build(self, backbone: Backbone, given: Given) -> Method:
        return InstanceDiscrimination(self, backbone, given.num_images)


class InstanceDiscrimination(Method):
    Z: Tensor

    def __init__(self, settings: NPID, backbone: Backbone, num_images: int) -> None:
        super().__init__()
        self.backbone, self.settings, self.chunk = backbone, settings, settings.chunk
        self.fc = nn.Linear(backbone.out_channels, settings.dim)
        self.norm = nn.BatchNorm1d(settings.dim, affine=False) if settings.head_norm else nn.Identity()
        self.bank = settings.bank(num_images, settings.dim)
        self.register_buffer("Z", torch.zeros(()))  # 0: not estimated yet

    def embed(self, batch: Batch) -> Tensor:
        h = features_in_chunks(self.backbone, batch.views["image"], self.chunk)  # (B, 2048)
        return normalize(self.norm(self.fc(h).float()), dim=1)  # (B, 128)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        v = self.embed(batch)
        s = self.bank.own_and_others(v[:, None], batch.index, self.settings.m, batch.seed)[:, 0]  # (B, 1 + m)
        fix_partition(self.Z, s, self.settings.tau, self.bank.num_images)
        yield "main", nce_constant_partition(s[:, 0], s[:, 1:], self.settings.tau, self.Z, self.bank.num_images)
        self.bank.update(batch.index, v)

    def prepare(self, embed_all: EmbedAll) -> None:
        self.bank.fill(self.settings.first_rows(self, self.embed, embed_all))


npid = Recipe(
    title="Instance discrimination (NPID)",
    method=NPID(),
    backbone=ResNet(),
    data=Pool("imagenet"),
    length=Epochs(200),
    batch_size=256,
    optimizers={"main": SGD(lr=0.03, momentum=0.9, weight_decay=1e-4)},
    schedule=Milestones(at=(Epochs(120), Epochs(160)), gamma=0.1),
    reported="54.0 % ImageNet top-1 linear at res5 (PIRL, Table 7)",
    desk=(
        *DESK_RESNET,
        DRAWN_CROPS,
        Change("method.m", 1024, "half of the 2,000 images", drawn=True),
        Change("schedule", Milestones(at=(Epochs(24), Epochs(32))), "two drops, late in a short training"),
        Change(
            "method.head_norm", True, "the backbone's features are all positive, so without it all cosines are near 1"
        ),
        Change("method.bank_init", "features", "40 epochs are too few to forget a random bank, and Z is fixed by it"),
    ),
)

npid_alexnet = replace(
    npid,
    title="Instance discrimination (NPID), AlexNet",
    # NOTE: neither the paper nor its code says which AlexNet; this one has BatchNorm, as those of its year do, and is
    # trained as the ResNet-50 is
    backbone=DEEPCLUSTER,
    reported="35.6 % ImageNet top-1 linear at conv5 (as others copy its table); 48.1 VOC07 detection, fine-tuned",
    desk=without(npid.desk, "backbone.zero_init_residual"),  # an AlexNet has no such branches
)
