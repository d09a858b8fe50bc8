"""Rendered scenes: depth, surface normals and contours, from features that do not tell renderings from photographs.

Ren & Lee, "Cross-Domain Self-supervised Multi-task Feature Learning using Synthetic Imagery", CVPR 2018,
arXiv:1711.09082. The losses, the weights and all that the paper leaves open are as in the authors'
jason718/game-feature-learning.

A renderer knows of every pixel of a scene how far away it is, which way its surface faces, and whether a thing ends
there. B, an AlexNet whose fc6 and fc7 are maps, sees the picture, and three heads H of four transposed convolutions say
that of every pixel. With y of the head and y* of the renderer, d = y - y* in the logarithm of metres, and n of HW
pixels of a scene on a contour:

    L_depth   = (mean d² + (mean d)² / 2) / 2
    L_normal  = mean (1 - cos(y, y*))
    L_contour = mean ((HW - n) / n) BCE(y, y*)

Scenes are renderings, and transfers are of photographs. So D tells from each patch of conv5, before its ReLU, whether
it is of a photograph, and B is to make it say so of renderings too:

    D:        (BCE(D(f(rendering)), 0) + BCE(D(f(photograph)), 1)) / 2
    B and H:  5 L_depth + 10 L_normal + L_contour + 0.05 BCE(D(f(rendering)), 1)

D steps first. Half of what it sees are features of earlier steps, out of 128 kept of either kind.

Colours tell the two kinds apart more than shapes do. So of each batch one channel, red, green or blue by chance, is
seen in place of all three. What transfers is conv1 ... fc7, BatchNorm folded into the weights.

Departures:
- The authors' prototxt for VOC has CaffeNet's local response normalisation, which with pixels from 0 to 1 divides by
  nearly 1. It is left out.
- Pictures and maps are resized by Pillow and torch, whose antialiasing differs from scikit-image's.
- D gives logits, and its loss takes them: the same function, without rounding of probabilities near 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from PIL.Image import Image, Resampling
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import cosine_similarity, interpolate
from torchvision.transforms.v2.functional import pil_to_tensor

from benchmark.backbones.alexnet import CAFFENET, SYNTHETIC_IMAGERY
from benchmark.backbones.alexnet_surgery import carried_over, folded
from benchmark.backbones.contract import Backbone
from benchmark.backbones.norms import BatchNorm2d, Over
from benchmark.core import distributed
from benchmark.core.bounds import Count, NotNegative, Positive
from benchmark.core.draws import mix, uniform_integers
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import (
    DESK,
    RGB,
    SGD,
    Adam,
    Change,
    Epochs,
    Given,
    InputSpec,
    Milestones,
    Part,
    Pool,
    Recipe,
    Settings,
    without,
)
from benchmark.recipe.contract import OpenImage

TARGETS = {"depth": 1, "normal": 3, "edge": 1}  # what the heads say, and in how many channels
SQUARE, CROP = 256, 227  # a picture is resized to the one, and the other is cropped
TRIES = 100  # scenes in a row that may have too few contours


@dataclass(frozen=True)
class RenderedScenes(Settings):
    depth_weight: NotNegative = 5.0
    normal_weight: NotNegative = 10.0
    contour_weight: NotNegative = 1.0
    domain_weight: NotNegative = 0.05
    least_contour: Count = 350  # pixels of a scene; another takes the place of one with fewer
    kept: Count = 128  # features of either kind, for D
    head_channels: Count = 64
    discriminator_channels: Count = 512
    gain: Positive = 0.02  # of Xavier's normal weights, and how far BatchNorm's scales deviate from 1

    def sample(self, open_image: OpenImage, index: int, spec: InputSpec) -> dict[str, Tensor]:
        index, contour = self.with_contours(open_image, index)
        side = round(spec.size * SQUARE / CROP)
        picture = pil_to_tensor(open_image(index).resize((side, side), Resampling.BILINEAR))
        # NOTE: a depth of 0, where a renderer saw nothing, becomes -18 as in the released code, and is learned too
        depth = torch.log(_one_channel(open_image(index, "depth"), "depth") / 1000 + 1e-8)
        normal = pil_to_tensor(open_image(index, "normal").convert("RGB")) / 127.5 - 1
        maps = torch.cat([_resized(one.float(), side) for one in (depth, normal, contour)])
        top, left = torch.randint(side - spec.size, (2,)).tolist()
        seen = (slice(None), slice(top, top + spec.size), slice(left, left + spec.size))
        targets = maps[seen].split([*TARGETS.values()])
        # NOTE: the pixels of a scene on a contour, n, are counted in the whole picture, of whatever size it is stored
        return {"image": picture[seen], "contour_pixels": contour.sum(), **dict(zip(TARGETS, targets, strict=True))}

    def with_contours(self, open_image: OpenImage, index: int) -> tuple[int, Tensor]:
        """(a scene with enough contours, its (1, H, W) map of 0 and 1). Raises UserError where none is found."""
        for _ in range(TRIES):
            contour = (_one_channel(open_image(index, "edge"), "edge") > 0).float()
            if contour.sum() >= self.least_contour:
                return index, contour
            index = int(torch.randint(1 << 31, ()))
        what = f"{TRIES} scenes in a row have fewer than {self.least_contour} pixels on a contour"
        raise UserError(f"{what}; set --recipe.method.least-contour lower if that is as it should be")

    def real(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        """A photograph, whole, whatever its shape."""
        return {"image": pil_to_tensor(image.resize((spec.size, spec.size), Resampling.BILINEAR))}

    def build(self, backbone: Backbone, given: Given) -> Method:
        return CrossDomainTasks(self, backbone)


def _one_channel(image: Image, kind: str) -> Tensor:
    """(1, H, W) float64, of 8 or 16 bits."""
    values = np.asarray(image)
    if values.ndim != 2:
        raise UserError(f"a map of {kind} has one channel, not {len(image.getbands())}")
    return torch.from_numpy(values.astype(np.float64))[None]


def _resized(x: Tensor, side: int) -> Tensor:
    """(C, H, W) -> (C, side, side)"""
    if x.shape[-2:] == (side, side):
        return x
    return interpolate(x[None], size=(side, side), mode="bilinear", antialias=True)[0]


class CrossDomainTasks(Method):
    figures: dict[str, Tensor]

    def __init__(self, settings: RenderedScenes, backbone: Backbone) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        over = backbone.architecture.over  # type: ignore[attr-defined]
        inputs, channels = backbone.out_channels, settings.head_channels
        self.heads = nn.ModuleDict({name: head(inputs, channels, out, over) for name, out in TARGETS.items()})
        blank = torch.zeros(1, backbone.input.channels, backbone.input.size, backbone.input.size)
        with torch.no_grad():
            conv5 = backbone.eval().forward_stages(blank, "conv5")["conv5"]
        self.backbone.train()
        self.discriminator = discriminator(conv5.shape[1], settings.discriminator_channels, over)
        self.rendered, self.photographed = (Earlier(settings.kept, conv5.shape[1:]) for _ in range(2))
        for module in self.modules():
            start(module, settings.gain)

    def losses(self, batch: Batch) -> Iterator[tuple[str | tuple[str, ...], Tensor]]:
        f, fc7 = self.features(self.grey(batch.views["image"], mix(batch.seed, 0)))
        with torch.no_grad():
            g, _ = self.features(self.grey(batch.pools["real"].views["image"], mix(batch.seed, 1)))
        yield "discriminator", self.told_apart(f.detach(), g, batch.seed)
        fooled = self.discriminator(f).float()
        loss = self.of_tasks(fc7, batch.views) + self.settings.domain_weight * bce(fooled, torch.ones_like(fooled))
        yield "main", loss

    def grey(self, images: Tensor, seed: int) -> Tensor:
        """(B, 3, H, W): one channel of all images three times."""
        channel = self.backbone.input.prepare(images)[:, [seed % 3] * 3]
        return channel.contiguous(memory_format=torch.channels_last)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(conv5 before its ReLU, fc7)"""
        layers = cast(nn.ModuleDict, self.backbone.layers)
        f = cast(nn.Sequential, layers["conv5"])[:-1](self.backbone.forward_stages(x, "conv4")["conv4"])
        return f, layers["fc7"](layers["fc6"](f.relu()))

    def told_apart(self, f: Tensor, g: Tensor, seed: int) -> Tensor:
        """D's loss on features of renderings and of photographs, (B, C, h, w) each."""
        of_renderings = self.discriminator(self.rendered(f, mix(seed, 2))).float()
        of_photographs = self.discriminator(self.photographed(g, mix(seed, 3))).float()
        right = ((of_renderings < 0).float().mean() + (of_photographs > 0).float().mean()) / 2
        self.figures = {"told_apart": right.detach()}
        taken_for_photographs = bce(of_renderings, torch.zeros_like(of_renderings))
        taken_for_renderings = bce(of_photographs, torch.ones_like(of_photographs))
        return (taken_for_photographs + taken_for_renderings) / 2

    def of_tasks(self, fc7: Tensor, views: dict[str, Tensor]) -> Tensor:
        size = views["depth"].shape[-1]
        y = {name: fitted(one(fc7).float(), size) for name, one in self.heads.items()}
        with torch.autocast(fc7.device.type, enabled=False):
            losses = {
                "depth": depth_loss(y["depth"], views["depth"]),
                "normal": (1 - cosine_similarity(y["normal"], views["normal"])).mean(),
                "contour": contour_loss(y["edge"], views["edge"], views["contour_pixels"]),
            }
        self.figures |= {name: loss.detach() for name, loss in losses.items()}
        return torch.stack([getattr(self.settings, f"{name}_weight") * loss for name, loss in losses.items()]).sum()

    def players(self) -> dict[str, list[nn.Parameter]]:
        main = [*self.backbone.parameters(), *self.heads.parameters()]
        return {"main": main, "discriminator": list(self.discriminator.parameters())}

    def scalars(self) -> dict[str, float]:
        """The three losses without their weights, and how often D is right."""
        return {name: float(value) for name, value in self.figures.items()}

    def export(self) -> Backbone:
        trunk = folded(self.backbone)
        kept = ("channels", "groups", "width", "units", "fc6_side")
        shape = {name: getattr(trunk.architecture, name) for name in kept}
        return carried_over(trunk, replace(CAFFENET, response_norm=False, **shape))


def depth_loss(y: Tensor, wanted: Tensor) -> Tensor:
    d = y - wanted
    # NOTE: the second mean of d is over all of the batch, as in the released code, and not over each picture
    mean = distributed.mean_with_gradient(d.mean())
    return (d.square().mean() + mean.square() / 2) / 2


def contour_loss(y: Tensor, wanted: Tensor, n: Tensor) -> Tensor:
    """y, wanted: (B, 1, H, W). n: (B,) pixels on a contour."""
    weight = (y[0].numel() - n) / n
    return (weight.view(-1, 1, 1, 1) * bce(y, wanted, reduction="none")).mean()


def fitted(y: Tensor, size: int) -> Tensor:
    """The heads make 227 pixels of 227; of other sizes some more or fewer than those of the image."""
    return y if y.shape[-1] == size else interpolate(y, size=(size, size), mode="bilinear")


def head(inputs: int, channels: int, outputs: int, over: Over) -> nn.Sequential:
    """13 x 13 cells -> 27 -> 55 -> 113 -> 227"""
    layers: list[nn.Module] = []
    for kernel in (3, 3, 5):
        layers += [nn.ConvTranspose2d(inputs, channels, kernel, 2), BatchNorm2d(channels, over=over), nn.ReLU()]
        inputs = channels
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels, outputs, 3, 2))


def discriminator(inputs: int, channels: int, over: Over) -> nn.Sequential:
    """D: 13 x 13 cells of conv5 -> 6 x 6 logits, of a photograph"""
    return nn.Sequential(
        nn.Conv2d(inputs, channels, 3, 2),
        BatchNorm2d(channels, over=over),
        nn.LeakyReLU(0.2),
        nn.Conv2d(channels, channels, 1),
        BatchNorm2d(channels, over=over),
        nn.LeakyReLU(0.2),
        nn.Conv2d(channels, 1, 1),
    )


def start(module: nn.Module, gain: float) -> None:
    """The initial weights of all three networks."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_normal_(module.weight, gain)
    elif isinstance(module, BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, gain)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


class Earlier(nn.Module):
    """Features of earlier steps (Shrivastava et al., "Learning from Simulated and Unsupervised Images through
    Adversarial Training", CVPR 2017): half of the new ones are shown; each of the others takes the place of a kept one,
    which is shown in its stead. count: of kept ones, until there are all."""

    features: Tensor
    count: Tensor

    def __init__(self, size: int, shape: torch.Size) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(size, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, seed: int) -> Tensor:
        """(B, ...) -> (B, ...). The processes keep the same ones: those of the whole batch, in its order."""
        x, size = distributed.gather(x.float()), len(self.features)
        number, places = torch.arange(len(x), device=x.device), torch.arange(size, device=x.device)
        is_room = self.count + number < size
        place = torch.where(is_room, self.count + number, uniform_integers(mix(seed, 0), number, 1, size)[:, 0])
        swaps = ~is_room & (uniform_integers(mix(seed, 1), number, 1, 2)[:, 0] == 1)
        puts = is_room | swaps
        # what lies at a place is what the last one before has put there: kept ones come first in `all_of_them`
        before = _last((place[:, None] == place) & puts & (number[:, None] > number), number)
        shown = torch.where(swaps, torch.where(before < 0, place, size + before), size + number)
        last = _last((places[:, None] == place) & puts, number)
        all_of_them = torch.cat([self.features, x])
        self.features.copy_(all_of_them[torch.where(last < 0, places, size + last)])
        self.count.add_(len(x)).clamp_(max=size)
        return distributed.own_share(all_of_them[shown])


def _last(allowed: Tensor, number: Tensor) -> Tensor:
    """(R, N) bool -> (R,): the largest number allowed in each row; -1 where there is none."""
    return torch.where(allowed, number, -1).amax(dim=1)


ren_lee = Recipe(
    title="Rendered scenes (Ren & Lee)",
    method=RenderedScenes(),
    backbone=replace(SYNTHETIC_IMAGERY, over=28),  # eight GPUs, each with the statistics of its own images
    input=InputSpec(227, RGB(std=(1.0, 1.0, 1.0))),
    data={
        "synthetic": Pool("suncg_scenenet", maps=tuple(TARGETS)),
        "real": Pool("places365", views="real"),
    },
    length=Epochs(30),
    batch_size=224,  # of each pool
    optimizers={
        "main": Adam(lr=1e-3, betas=(0.5, 0.999)),
        "discriminator": SGD(lr=1e-3, momentum=0.9, weight_decay=5e-4),
    },
    # NOTE: the rates fall at epochs 18 and 27, as the released settings say; in the released loop they never do
    schedule=Milestones(at=(Part(0.6), Part(0.9)), gamma=0.1),
    reported="68.0 mAP VOC07 classification and 52.6 detection, fine-tuned (Feng et al. 2019, Table 3)",
    desk=(
        *without(DESK, "length", "optimizers.main"),  # the paper's are short enough
        Change("backbone.over", "process", "a batch is of 32"),
        Change("backbone.fc6_side", 1, "CaffeNet's pool5 leaves one cell of 64 pixels"),
        Change("method.kept", 18, "beside batches of 32, as 128 are beside 224"),
        Change("method.head_channels", 16, "a quarter of the width"),
        Change("method.discriminator_channels", 128, "a quarter of the width"),
        Change("method.least_contour", 100, "drawn scenes are 72 pixels high", drawn=True),
    ),
)
