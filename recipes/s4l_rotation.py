"""S⁴L-Rotation: a classifier trained on a few labels, which also tells how labelled and unlabelled images are rotated.

Zhai, Oliver, Kolesnikov & Beyer, "S4L: Self-Supervised Semi-Supervised Learning", ICCV 2019, arXiv:1905.03670; what the
paper leaves open as in google-research/s4l, by its authors.

One network, two heads. Every image comes in all four rotations at once. A labelled one keeps its class whichever way
it is turned; labelled and unlabelled ones alike must show by how much they were. The classifier is the result: it is
scored as it is (own_classifier_imagenet), and nothing is trained on the backbone afterwards.

An epoch is one of the labelled images. With 10 % of the labels it has 500 steps, a tenth of what would show every
unlabelled image once.

Departures:
- The labelled images are those of the list beside the data, e.g. imagenet/10percent.txt, else the same share of each
  class, drawn from the seed: what the semi-supervised protocols here call 1 % and 10 %. The authors released lists of
  their own, of 13,000 and 128,000 images; written to that file, one name a line, they are used.
- BatchNorm takes the statistics of a process's share of the batch. So does the released code, whose share was 64
  pictures of 2,048.
- Initial weights, and BatchNorm's momentum and epsilon, are torch's, not TensorFlow's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.transforms import v2

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet_v2 import ResNetV2
from benchmark.core.bounds import Area, NotNegative
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import (
    DESK_RESNET,
    DRAWN_CROPS,
    RGB,
    SGD,
    Change,
    Epochs,
    Given,
    InputSpec,
    Milestones,
    Part,
    Pool,
    Recipe,
    Settings,
    Warmup,
)
from benchmark.views.crops import cropped, flipped

QUARTERS = 4  # 0, 90, 180 and 270 degrees


@dataclass(frozen=True)
class S4LRotation(Settings):
    w: NotNegative = 1.0  # of the rotation loss
    # NOTE: crops take 10 to 100 % of the picture. TensorFlow's sampler takes 5 to 100 %, but at least 10 % of a box,
    # which here is the whole picture
    crop_area: Area = (0.1, 1.0)
    hsv_noise: bool = False

    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        picture = flipped(cropped(image, spec.size, self.crop_area))
        return {"image": v2.functional.pil_to_tensor(noisy(picture) if self.hsv_noise else picture)}  # (3, 224, 224)

    def build(self, backbone: Backbone, given: Given) -> Method:
        return TwoHeads(self, backbone, given.classes())


class TwoHeads(Method):
    def __init__(self, settings: S4LRotation, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        self.classes = nn.Linear(backbone.out_channels, classes)
        self.rotations = nn.Linear(backbone.out_channels, QUARTERS)

    def features(self, images: Tensor) -> Tensor:
        x = self.backbone.input.prepare(images)  # (N, 3, 224, 224)
        return self.backbone(x.contiguous(memory_format=torch.channels_last))  # (N, 2048)

    def classify(self, images: Tensor) -> Tensor:
        # NOTE: images are classified upright. The released code prints that score, and one from the mean logits of the
        # four rotations; it is open which of them is the paper's
        return self.classes(self.features(images)).float()

    def loss(self, batch: Batch) -> Tensor:
        labelled, unlabelled = batch.pools["labelled"], batch.pools["unlabelled"]
        assert labelled.labels is not None
        pictures = torch.cat([labelled.views["image"], unlabelled.views["image"]])  # one pass for both
        z = self.features(in_all_rotations(pictures)).unflatten(0, (-1, QUARTERS))  # (L + U, 4, 2048)
        L = len(labelled)
        l_class = cross_entropy(self.classes(z[:L]).float().flatten(0, 1), labelled.labels.repeat_interleave(QUARTERS))
        told = self.rotations(z).float()  # (L + U, 4, 4)
        l_rot = (rotation_loss(told[:L]) + rotation_loss(told[L:])) / 2
        return l_class + self.settings.w * l_rot


def in_all_rotations(images: Tensor) -> Tensor:
    """(N, 3, H, H) -> (4 N, 3, H, H), the four of an image together."""
    return torch.stack([images.rot90(turns, dims=(2, 3)) for turns in range(QUARTERS)], dim=1).flatten(0, 1)


def rotation_loss(logits: Tensor) -> Tensor:
    """(N, 4, 4): of each picture in its four rotations, the logits of the four."""
    y = torch.arange(QUARTERS, device=logits.device).repeat(len(logits))
    return cross_entropy(logits.flatten(0, 1), y)


def noisy(picture: Image) -> Image:
    """Hue shifted; saturation and value raised to a power, scaled and shifted, each by amounts of its own."""
    hue, *others = v2.functional.pil_to_tensor(picture.convert("HSV")).float() / 255  # (H, W) each
    hue = (hue + drawn(-0.1, 0.1)) % 1
    others = [(x ** (2 ** drawn(-2, 2)) * 2 ** drawn(-0.5, 0.5) + drawn(-0.1, 0.1)).clamp(0, 1) for x in others]
    pixels = (torch.stack([hue, *others]) * 255 + 0.5).to(torch.uint8)
    return v2.functional.to_pil_image(pixels, mode="HSV").convert("RGB")


def drawn(low: float, high: float) -> float:
    return float(torch.empty(()).uniform_(low, high))


s4l_rotation_10pct = Recipe(
    title="S⁴L-Rotation, 10 % of the labels",
    method=S4LRotation(),
    backbone=ResNetV2(),
    input=InputSpec(colour=RGB((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),  # -1 to 1
    data={"labelled": Pool("imagenet", percent=10, labels=True), "unlabelled": Pool("imagenet")},
    length=Epochs(200),
    batch_size=256,  # of each pool
    optimizers={"main": SGD(lr=0.03, momentum=0.9, weight_decay=1e-3, decays="weights")},
    # epochs 140, 160 and 180, and the first five
    schedule=Milestones(at=(Part(0.7), Part(0.8), Part(0.9)), gamma=0.1, warmup=Warmup(Part(0.025), 0.0)),
    reported="83.82 % ImageNet top-5 (S4L, Table 1); 61.37 % top-1 (README of google-research/s4l)",
    desk=(
        *DESK_RESNET,
        DRAWN_CROPS,
        Change("batch_size", 8, "64 pictures a step: two pools, four rotations"),
        Change("length", Epochs(50), "1,250 steps, as many pictures as 40 epochs of the others"),
    ),
)

# NOTE: no configuration with 1 % of the labels is released. Rate, decay, length and noise are those of the supervised
# baseline with as many labels, the loss is that of 10 %. There, noise is added to the labelled images, since there are
# no others; here, to all.
s4l_rotation_1pct = replace(
    s4l_rotation_10pct,
    title="S⁴L-Rotation, 1 % of the labels",
    method=S4LRotation(hsv_noise=True),
    data={"labelled": Pool("imagenet", percent=1, labels=True), "unlabelled": Pool("imagenet")},
    length=Epochs(1000),
    optimizers={"main": SGD(lr=0.01, momentum=0.9, weight_decay=1e-2, decays="weights")},
    schedule=Milestones(at=(Part(0.7), Part(0.8), Part(0.9)), gamma=0.1, warmup=Warmup(Part(0.005), 0.0)),
    reported="53.37 % ImageNet top-5 (S4L, Table 1)",
    desk=(*s4l_rotation_10pct.desk, Change("length", Epochs(625), "1,250 steps of 8 of the 20 labelled images")),
)
