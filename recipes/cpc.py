"""CPC: what lies further down in an image is predicted from what lies above, and must be told from other patches.

van den Oord, Li & Vinyals, "Representation Learning with Contrastive Predictive Coding", arXiv 2018, arXiv:1807.03748,
section 3.2. No code was released.

An image is cut into 7 x 7 patches that overlap by half. The encoder g_enc gives a vector z for each. The context c of a
cell sums up its row and the rows above. From c, a matrix W_k for each k predicts the vector k rows below, which must
score highest among all patches of the batch:

    L_k = -log exp(z_{t+k}^T W_k c_t) / sum over j of exp(z_j^T W_k c_t)            (4)

The network has no BatchNorm: the statistics of a batch would tell each patch something of the others. Patches are grey
and each is shifted by itself, or a line that goes on, or the coloured edges of a lens, would be enough.

What transfers is the encoder, patch by patch, averaged over the grid.

With `chunk`, each process encodes so many patches at a time. The gradient stays the same, for no patch influences
another's vector.

Departures:
- The context network is that of the authors' next paper, which prints one. This one says "PixelCNN-style".
- The loss is the mean over predictions and over k.
- Negatives are all other patches of the whole batch, whichever process has them. The paper does not say how many.
- Residual branches start at zero. The paper does not say how it starts 101 layers without norms.
- Patches are rounded to 8 bits before they become grey, and their borders are black.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.transforms import v2

from benchmark.backbones.contract import Backbone
from benchmark.backbones.patch_grid import cut, patches_along, seen_in_patches
from benchmark.backbones.resnet_v2 import ResNetV2
from benchmark.blocks.chunks import ChunkSettings, features_in_chunks
from benchmark.blocks.patch_rows import RowContext, row_info_nce, rows_below
from benchmark.core.bounds import Count, CountOrNone
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import (
    DESK,
    Adam,
    Change,
    Constant,
    Epochs,
    Given,
    Grey,
    InputSpec,
    Pool,
    Recipe,
)
from benchmark.views.crops import flipped, placed_in_square


@dataclass(frozen=True)
class CPC(ChunkSettings):
    whole: Count = 300  # side of the square that a crop is taken from, in pixels
    patch: Count = 64  # side, in pixels
    stride: Count = 32  # from one patch to the next
    shift: CountOrNone = 4  # a patch is cropped to so many pixels less, anywhere, and padded again
    # NOTE: the paper predicts "up to five rows" of the seven. There are five where the first lies two below; the row
    # next to a cell's own shows half of the same pixels. Re-implementations skip it too (rschwarz15/CPCV2-PyTorch)
    k_first: Count = 2
    k_last: Count = 6
    hidden: Count = 256  # channels of the context network
    layers: Count = 5

    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        crop = flipped(placed_in_square(image, spec.size, self.whole))
        patches = cut(v2.functional.pil_to_tensor(crop), self.patch, self.stride).flatten(0, 1)  # (49, 3, 64, 64)
        return {"patches": shifted(patches, self.shift)}

    def build(self, backbone: Backbone, given: Given) -> Method:
        return RowPrediction(self, backbone)


def shifted(patches: Tensor, most: int) -> Tensor:
    """(K, 3, S, S), of each a window of S - most pixels at a random place, its border filled with black."""
    size = patches.shape[-1] - most
    if size < 1:
        raise UserError(f"patches of {size + most} pixels, shifted by up to {most}, show nothing; set a smaller shift")
    places = torch.randint(most + 1, (len(patches), 2)).tolist()
    windows = [one[:, y : y + size, x : x + size] for one, (y, x) in zip(patches, places, strict=True)]
    return pad(torch.stack(windows), (most // 2, most - most // 2) * 2)


class PatchMethod(Method):
    """What this paper and the next share: a grid of vectors that no patch but its own has a part in."""

    accuracy: Tensor

    def __init__(self, backbone: Backbone, patch: int, stride: int, k: tuple[int, int], chunk: int | None) -> None:
        super().__init__()
        self.backbone, self.patch, self.stride, self.chunk = backbone, patch, stride, chunk  # g_enc
        self.rows = patches_along(backbone.input.size, patch, stride)
        self.ks = rows_below(*k, self.rows)

    def encoded(self, batch: Batch) -> Tensor:
        patches = batch.views["patches"].flatten(0, 1)  # (49 B, 3, 64, 64)
        z = features_in_chunks(self.backbone, patches, self.chunk)  # (49 B, 1024)
        return z.unflatten(0, (-1, self.rows, self.rows)).permute(0, 3, 1, 2)  # (B, 1024, 7, 7)

    def scalars(self) -> dict[str, float]:
        return {"accuracy": float(self.accuracy)}

    def export(self) -> Backbone:
        return seen_in_patches(self.backbone, self.backbone.input, self.patch, self.stride)


class RowPrediction(PatchMethod):
    def __init__(self, settings: CPC, backbone: Backbone) -> None:
        k = settings.k_first, settings.k_last
        super().__init__(backbone, settings.patch, settings.stride, k, settings.chunk)
        dim = backbone.out_channels
        self.context = RowContext(dim, settings.hidden, settings.layers)  # g_ar
        self.W = nn.ModuleList(nn.Conv2d(dim, dim, 1, bias=False) for _ in self.ks)

    def loss(self, batch: Batch) -> Tensor:
        z = self.encoded(batch)  # (B, 1024, 7, 7)
        c = self.context(z)  # the same
        losses, right = zip(*(row_info_nce(W(c), z, k) for W, k in zip(self.W, self.ks, strict=True)), strict=True)
        self.accuracy = torch.stack(right).mean()
        return torch.stack(losses).mean()  # equation 4


cpc = Recipe(
    title="CPC",
    method=CPC(),
    backbone=ResNetV2(101, norm="none", stages=3, zero_init_residual=True),
    input=InputSpec(256, Grey(mean=0.5, std=0.5)),  # NOTE: greys are -1 to 1; the paper does not say
    data=Pool("imagenet"),
    length=Epochs(200),  # NOTE: training lasts 200 epochs; the paper does not say how long
    batch_size=512,  # 32 GPUs with 16 images each
    optimizers={"main": Adam(lr=2e-4)},
    schedule=Constant(),
    reported="48.7 % ImageNet top-1 linear (CPC, Table 3)",
    desk=(
        *DESK,
        Change("backbone.depth", 50, "a quarter of the blocks of its last stage"),
        Change("method.whole", 75, "300 x 64 / 256"),
        Change("method.patch", 16, "64 x 64 / 256"),
        Change("method.stride", 12, "5 x 5 patches; 7 x 7 would take twice as long"),
        Change("method.k_last", 4, "the last of five rows"),
        Change("method.shift", 1, "4 x 16 / 64"),
        Change("method.layers", 3, "enough to see all rows above, of 5"),
        Change("method.hidden", 64, "a quarter, as the network's width"),
    ),
)
