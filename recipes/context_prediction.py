"""Context prediction: where does the second patch lie, seen from the first?

Doersch, Gupta & Efros, "Unsupervised Visual Representation Learning by Context Prediction", ICCV 2015,
arXiv:1505.05192. What the paper leaves open is as in the authors' cdoersch/deepcontext.

Two patches of an image go through the same network up to fc6. Layers on top of both tell which of the first's eight
neighbours the second is:

    1 2 3
    4   5      -log p(y | f(x_1), f(x_2)),    y = 1 ... 8
    6 7 8

To know that an ear is above and to the right of a nose, one must know a face. What can be known without is kept away,
each by a setting that can be opened:

- Lines and textures that continue from patch to patch: a gap of half a patch, and each patch moved at random. gap=0 and
  jitter=0 open it.
- Colours that a lens moves apart towards the border, which tell a patch's place in the image: of each patch one colour
  is kept and the others are noise (colour="drop"), or green and magenta, which lenses part most, are made equal
  (colour="project"). colour="keep" opens it.
- Light that changes slowly over the image: each patch is divided by the root of its mean square. normalised=False opens
  it.
- Some patches are seen as if from few pixels, so that the network does not rely on fine grain.

BatchNorm without scale and shift keeps units from dying, and their outputs from becoming all alike. It is folded into
the weights of what transfers: conv1 ... conv5 of one of the two networks, in CaffeNet's shape but without groups.

Departures:
- Each image gives four blocks of 2 x 2 patches at random places, and all pairs of a block in both orders. The released
  code takes four whole grids of patches, with pairs of neighbours alone too, but more of them in a larger image.
- A batch is of 32 images, which is 512 patches and 1,536 pairs. In the released code it is of 512 patches or fewer.
- The loss is the mean over pairs, at a rate 1,536 times as high. The released code adds them up, at a rate of 1e-5.
- An image too narrow for two patches is enlarged. The released code passes it over.
- Images are resized by Pillow, which averages over the pixels that it leaves out. The released code only interpolates.
- The noise in place of the colours that are dropped has 256 levels.
- The bias before BatchNorm's layers is kept, as in the released code, where it changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from PIL.Image import Image, Resampling
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torchvision.transforms import v2

from benchmark.backbones.alexnet import CONTEXT_PREDICTION
from benchmark.backbones.alexnet_surgery import caffenets_convolutions, check_foldable, folded
from benchmark.backbones.contract import Backbone
from benchmark.backbones.norms import BatchNorm1d
from benchmark.blocks.accuracy import share_right
from benchmark.core.bounds import Bounds, Count, CountOrNone, Probability
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import BGR, DESK, SGD, Change, Constant, Given, InputSpec, Pool, Recipe, Settings, Steps, without

PLACES = ((0, 0), (0, 1), (1, 0), (1, 1))  # of a block's patches, downwards and to the right
PAIRS = [(a, b) for a in range(4) for b in range(4) if a != b]
NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
Y = [NEIGHBOURS.index((PLACES[b][0] - PLACES[a][0], PLACES[b][1] - PLACES[a][1])) for a, b in PAIRS]
RMS = 50.0  # of a patch, in the 0 ... 255 of Caffe's inputs


@dataclass(frozen=True)
class ContextPrediction(Settings):
    """The input's size is a patch's: 96 pixels."""

    pixels: Annotated[tuple[float, float], Bounds(1, rising=True)] = (150e3, 450e3)  # of the image, least and most
    blocks: Count = 4  # of an image
    gap: CountOrNone = 48
    jitter: CountOrNone = 7  # at most, in pixels, of each patch along each axis
    coarse: Probability = 0.33  # of a patch that is made smaller and enlarged again
    least_side: Count = 10  # of a patch made smaller
    # NOTE: the paper tried both guards and found them alike; the released code drops. Noise of -0.5 ... 0.5 is the
    # code's; the paper has a Gaussian of a hundredth of the kept colour's spread.
    colour: Literal["drop", "project", "keep"] = "drop"
    normalised: bool = True
    fc7: Count = 4096
    fc8: Count = 4096
    transfer_size: Count = 227  # of the images that the transferred network sees, in pixels

    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        pixels = v2.functional.pil_to_tensor(self.resized(image, spec.size))
        patches = torch.cat([self.block(pixels, spec.size) for _ in range(self.blocks)])  # (16, 3, 96, 96)
        patches = torch.stack([self.coarsened(x) for x in patches])
        kept = torch.randint(3, (len(patches),))
        if self.colour == "drop":
            noise = torch.randint(256, patches.shape, dtype=torch.uint8)
            patches = torch.where(_is_kept(kept), patches, noise)
        return {"patches": patches, "kept": kept}

    def resized(self, image: Image, patch: int) -> Image:
        """To so many pixels in all, the aspect kept."""
        pixels = float(torch.empty(()).uniform_(*self.pixels))
        factor = math.sqrt(pixels / (image.width * image.height))
        factor = max(factor, (2 * patch + self.gap) / min(image.size))
        return image.resize((math.ceil(factor * image.width), math.ceil(factor * image.height)), Resampling.BILINEAR)

    def block(self, pixels: Tensor, patch: int) -> Tensor:
        """(3, H, W) -> (4, 3, 96, 96): patches with gaps between them, each moved a little but not out of the image."""
        most = [side - patch for side in pixels.shape[1:]]
        step = patch + self.gap
        start = [int(torch.randint(far - step + 1, ())) for far in most]
        moves = torch.randint(-self.jitter, self.jitter + 1, (len(PLACES), 2)).tolist()
        corners = [
            [min(max(s + step * p + m, 0), far) for s, p, m, far in zip(start, place, move, most, strict=True)]
            for place, move in zip(PLACES, moves, strict=True)
        ]
        return torch.stack([pixels[:, y : y + patch, x : x + patch] for y, x in corners])

    def coarsened(self, x: Tensor) -> Tensor:
        """(3, 96, 96), with some probability seen as if from a square of fewer pixels, of uniform area."""
        side = x.shape[-1]
        if torch.rand(()) >= self.coarse or side <= self.least_side:
            return x
        area = float(torch.empty(()).uniform_(self.least_side**2, (side - 1) ** 2))
        small = interpolate(x[None].float(), size=(int(area**0.5),) * 2, mode="bilinear")
        return interpolate(small, size=x.shape[1:], mode="bilinear")[0].round().to(torch.uint8)

    def build(self, backbone: Backbone, given: Given) -> Method:
        check_foldable(backbone)  # or the export would fail, after the training
        return PairOfPatches(self, backbone)


def _is_kept(kept: Tensor) -> Tensor:
    """(K,) -> (K, 3, 1, 1) bool"""
    return (torch.arange(3, device=kept.device) == kept[:, None])[..., None, None]


def without_green_and_magenta(x: Tensor) -> Tensor:
    """(K, 3, H, W), green in the middle: all pixels times I - aᵀa / aaᵀ, where a = (-1, 2, -1)."""
    a = torch.tensor([-1.0, 2.0, -1.0], device=x.device).view(3, 1, 1)
    # sums and products, which autocast leaves at full precision: a product of matrices would be in bf16
    return x - (a * x).sum(dim=1, keepdim=True) / a.square().sum() * a


class PairOfPatches(Method):
    accuracy: Tensor

    def __init__(self, settings: ContextPrediction, backbone: Backbone) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        fc7 = nn.Linear(2 * backbone.out_channels, settings.fc7)
        norm = BatchNorm1d(settings.fc7, over="all", affine=False)  # one GPU held the whole batch
        fc8, fc9 = nn.Linear(settings.fc7, settings.fc8), nn.Linear(settings.fc8, len(NEIGHBOURS))
        for layer in (fc7, fc8, fc9):
            bound = math.sqrt(3 / layer.in_features)  # Caffe's "xavier"
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)
        self.head = nn.Sequential(fc7, norm, nn.ReLU(), fc8, nn.ReLU(), fc9)

    def loss(self, batch: Batch) -> Tensor:
        x = self.prepared(batch.views["patches"].flatten(0, 1), batch.views["kept"].flatten())  # (16 B, 3, 96, 96)
        fc6 = self.backbone(x.contiguous(memory_format=torch.channels_last)).unflatten(0, (-1, len(PLACES)))
        first, second = zip(*PAIRS, strict=True)
        both = torch.cat([fc6[:, first], fc6[:, second]], dim=2).flatten(0, 1)  # (48 B, 8192)
        scores, y = self.head(both), torch.tensor(Y, device=both.device).repeat(len(fc6))  # (48 B, 8), (48 B,)
        self.accuracy = share_right(scores, y)
        return cross_entropy(scores.float(), y)

    def prepared(self, patches: Tensor, kept: Tensor) -> Tensor:
        x = self.backbone.input.prepare(patches)
        if self.settings.colour == "drop":
            is_kept = _is_kept(kept).flip(1)  # blue comes first now
            x = torch.where(is_kept, x - x.mean(dim=(2, 3), keepdim=True), patches.flip(1).float() / 255 - 0.5)
        elif self.settings.colour == "project":
            x = without_green_and_magenta(x)
        if self.settings.normalised:
            x = RMS * x / x.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-3)
        return x

    def scalars(self) -> dict[str, float]:
        return {"accuracy": float(self.accuracy)}

    def export(self) -> Backbone:
        return caffenets_convolutions(folded(self.backbone), self.settings.transfer_size)


context_prediction = Recipe(
    title="Context prediction",
    method=ContextPrediction(),
    backbone=replace(CONTEXT_PREDICTION, over="all"),  # one GPU held the whole batch
    input=InputSpec(96, BGR()),
    data=Pool("imagenet"),
    length=Steps(1_000_000),  # NOTE: about as many as the authors ran; the paper says four weeks
    batch_size=32,  # images; 16 patches and 48 pairs of each
    # NOTE: without momentum or decay, as in the released code
    optimizers={"main": SGD(lr=1e-5 * 32 * 48, momentum=0.0)},
    schedule=Constant(),
    reported="55.3 mAP VOC07 classification and 46.6 detection, fine-tuned (Split-Brain, Table 4)",
    desk=(
        *without(DESK, "batch_size"),  # as many images as the paper's
        Change("input.size", 32, "a patch: conv5 has 2 x 2 cells, of 6 x 6 in the paper"),
        Change("method.transfer_size", 64, "the image size of every desk recipe"),
        Change("method.pixels", (9216.0, 27648.0), "3 to 5 patches wide; 4 to 7 in the paper, of more detail"),
        Change("method.blocks", 1, "four would take four times as long"),
        Change("method.gap", 16, "half a patch"),
        Change("method.jitter", 2, "7 x 32 / 96"),
        Change("method.least_side", 4, "10 x 32 / 96, and not 3"),
        Change("method.fc7", 512, "the network is narrower"),
        Change("method.fc8", 512, "the same"),
    ),
)
