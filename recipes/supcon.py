"""SupCon: supervised contrastive learning, which is SimCLR with all images of a class as positives.

Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu & Krishnan, "Supervised Contrastive Learning", NeurIPS 2020,
arXiv:2004.11362. Settings are those of the released ResNet-50 run (google-research/supcon,
scripts/supcon_imagenet_resnet50.sh).

What recipes/simclr.py does without labels is done with them. P(i) are the views of the batch that have the class of
view i, and A(i) all views but i itself. With q(i, p) = exp(z_i z_p / tau) / sum over a in A(i) of exp(z_i z_a / tau),
the sum over the positives stands outside the logarithm, or inside of it:

    L_out = sum over i of -1/|P(i)| sum over p in P(i) of log q(i, p)                (2)
    L_in  = sum over i of -log (1/|P(i)| sum over p in P(i) of q(i, p))              (3)

Where every image has a class of its own, both are SimCLR's loss. `chunk` does what it does there.

Departures:
- The loss is the mean over all views. The equations print the sum.
- AutoAugment's policy for ImageNet is the one that its paper prints, as torchvision has it. The library that the
  released code calls has another list of 25 pairs under the same name.
- Views are rounded to 8 bits after each change, and crops are resized with antialiasing.
- Weights start with He's variance over outputs, and the head's as PyTorch's do. The released code takes inputs, and
  N(0, 0.01) for the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision.transforms import v2

from benchmark.backbones.contract import Backbone
from benchmark.backbones.norms import BatchNorm1d
from benchmark.backbones.resnet import ResNet
from benchmark.core import distributed
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import (
    DESK,
    DRAWN_CROPS,
    LARS,
    RGB,
    Change,
    Epochs,
    Given,
    InputSpec,
    Part,
    Pool,
    Recipe,
    Warmup,
    WarmupCosine,
)
from benchmark.views.crops import cropped, flipped, flipped_crop
from recipes.simclr import ContrastiveViews, TwoViews, similarities

Where = Literal["out", "in"]


@dataclass(frozen=True)
class SupCon(TwoViews):
    loss: Where = "out"  # where the sum over the positives stands
    autoaugment: bool = True  # after crop and flip
    head_norm: bool = False  # an affine-free BatchNorm after the head

    def view(self, image: Image, spec: InputSpec) -> Tensor:
        if not self.autoaugment:
            return flipped_crop(image, spec.size, self.crop_area)
        return v2.functional.pil_to_tensor(_autoaugment()(flipped(cropped(image, spec.size, self.crop_area))))

    def build(self, backbone: Backbone, given: Given) -> Method:
        given.classes()  # or it says what is wrong with the labels
        # NOTE: the head is a single layer, as in the released commands; the paper leaves open whether one or two
        head: nn.Module = _UnitLinear(backbone.out_channels, self.dim, bias=False)
        if self.head_norm:
            head = nn.Sequential(head, BatchNorm1d(self.dim, over="all", affine=False))
        return SupervisedContrast(self, backbone, head)


@cache
def _autoaugment() -> v2.AutoAugment:
    return v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET, fill=128)  # grey where a shear or turn shows no image


class _UnitLinear(nn.Linear):
    """Of h at unit length, as released."""

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(normalize(h, dim=1))


class SupervisedContrast(ContrastiveViews):
    settings: SupCon

    def loss(self, batch: Batch) -> Tensor:
        assert batch.labels is not None
        z = self.embed(batch)
        with torch.autocast(z.device.type, enabled=False):
            # times tau as released: gradients are then no larger for a smaller one
            return self.settings.tau * sup_con(z, batch.labels.repeat(2), self.settings.tau, self.settings.loss)


def sup_con(z: Tensor, labels: Tensor, tau: float, where: Where = "out") -> Tensor:
    """Equation 2 or 3, the mean over this process's 2B views, each against the 2N of all processes, a scalar.
    z (2B, dim); labels (2B,). A view without a positive adds nothing to the loss, as released."""
    s, row = similarities(z, tau)
    positive = (labels[:, None] == distributed.gather(labels)).scatter(1, row[:, None], False)  # (2B, 2N)
    log_q, count = s.log_softmax(dim=1), positive.sum(dim=1, dtype=z.dtype).clamp_min(1)  # |P(i)|
    if where == "out":
        return -(log_q.masked_fill(~positive, 0).sum(dim=1) / count).mean()
    alone = ~positive.any(dim=1, keepdim=True)  # q sums to 1 over all others, whose logarithm is 0
    return -(log_q.masked_fill(~(positive | alone), -torch.inf).logsumexp(dim=1) - count.log()).mean()


supcon = Recipe(
    title="Supervised contrastive learning (SupCon)",
    method=SupCon(),
    backbone=ResNet(over="all", zero_init_residual=True),  # the latter as released
    input=InputSpec(colour=RGB((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),  # [-1, 1], as released
    data=Pool("imagenet", labels=True),
    length=Epochs(350),
    batch_size=6144,
    # 0.4 x batch / 256
    optimizers={"main": LARS(lr=9.6, momentum=0.9, trust=1e-3, weight_decay=1e-3, decays="weights")},
    schedule=WarmupCosine(Warmup(Epochs(12), start_factor=0.0)),
    # NOTE: that the ResNet-50 reaches 78.7, and that this is in Table 3, was not checked against the paper
    reported="78.7 % ImageNet top-1, linear classifier on frozen features (SupCon, Table 3)",
    desk=(
        *DESK,
        DRAWN_CROPS,
        Change(
            "optimizers.main.lr", 8e-3, "the best of 1e-3, 3e-3 and 8e-3 on images held out of pretraining", drawn=True
        ),
        Change("schedule.warmup.span", Part(12 / 350), "in proportion"),
        Change(
            "method.head_norm", True, "the backbone's features are all positive, so without it all cosines are near 1"
        ),
        Change(
            "method.autoaugment", False, "with it, half as much is learned of drawn pictures in 40 epochs", drawn=True
        ),
    ),
)
