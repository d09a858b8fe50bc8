"""Semantic segmentation of VOC2012 by a fully convolutional network.

He et al., CVPR 2020 (arXiv:1911.05722), appendix A.5 [MoCo]: the last stage dilated, two 3x3 convolutions with a large
field of view, a linear classifier of every pixel at stride 16 (Long et al., CVPR 2015). There a supervised ResNet-50
reaches 74.4 mIoU and MoCo 72.5 (ImageNet) to 73.6 (Instagram).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as vision

from benchmark.backbones.contract import Backbone
from benchmark.backbones.dilation import dilate_last_stage
from benchmark.backbones.norms import BatchNorm2d
from benchmark.core.draws import mix
from benchmark.core.optimisation import SGD, Adam, Cosine, Milestones, Optimizer, Steps, Warmup
from benchmark.core.plain import as_plain
from benchmark.core.streams import Stream
from benchmark.data.completeness import counted
from benchmark.data.image_set import ImageSet
from benchmark.data.loader import Samples, TrainOrder, in_order
from benchmark.data.masks import Masked, train_aug, voc_masks
from benchmark.data.voc import IGNORED
from benchmark.recipe.inputs import RGB, InputSpec
from benchmark.recipe.scales import Scale
from benchmark.records.metric import PERCENT
from benchmark.transfers.contract import Context, ProtocolCard, Scores, Transfer, values_at
from benchmark.transfers.features import as_input, backbone_key, frozen, working_copy
from benchmark.transfers.segmentation.scoring import (
    NAMES,
    Crop,
    classes_nowhere,
    enlarged,
    fingerprints,
    mask_of,
    mean_iou_scores,
)
from benchmark.transfers.training import Course, build_optimizer, checkpoint_path, fit_together, freeze, gaussian


@dataclass(frozen=True)
class SegmentationValues:
    """head_rate: of the layers that the backbone lacks, as a multiple of the optimizer's.
    frozen_stages: so many of the backbone's first stages do not train.
    norm:      of the backbone, BatchNorm: "trained", or "frozen" with its statistics.
    crop_side: of the square, in pixels, that is cut from an image scaled by a ratio between those of `ratios`.
    enlarged:  the network sees every crop and every test image so many times larger than its mask.
    channels:  of the two convolutions, and their dilation.
    """

    course: Course
    optimizer: Optimizer
    head_rate: float = 1.0
    frozen_stages: int = 0
    norm: Literal["trained", "frozen"] = "trained"
    crop_side: int = 513
    ratios: tuple[float, float] = (0.5, 2.0)
    channels: int = 256
    dilation: int = 6
    enlarged: int = 1


class Fcn(nn.Module):
    """The dilated backbone, two dilated 3x3 convolutions with BatchNorm and ReLU, a classifier of every cell."""

    def __init__(self, backbone: Backbone, values: SegmentationValues, seed: int) -> None:
        super().__init__()
        dilate_last_stage(backbone)
        self.backbone = backbone
        norms = [one for one in backbone.modules() if isinstance(one, nn.BatchNorm2d)]
        self.kept_norms = norms if values.norm == "frozen" else []
        self.last = next(reversed(backbone.stages))
        generator = torch.Generator().manual_seed(mix(seed, Stream.SEGMENTATION_HEAD))
        sides = (backbone.stages[self.last].channels, values.channels, values.channels)
        blocks = [_block(*between, values.dilation, generator) for between in pairwise(sides)]
        self.convolutions = nn.Sequential(*(layer for block in blocks for layer in block))
        self.classifier = gaussian(nn.Conv2d(values.channels, len(NAMES), 1), 0.01, generator)
        freeze(backbone, values.frozen_stages, self.kept_norms)

    def train(self, mode: bool = True) -> Fcn:
        super().train(mode)
        for norm in self.kept_norms:
            norm.eval()
        return self

    def forward(self, images: Tensor, size: torch.Size) -> Tensor:
        """(B, 3, H, W) -> (B, 21, *size)"""
        x = self.convolutions(self.backbone.forward_stages(images)[self.last])
        return F.interpolate(self.classifier(x), size, mode="bilinear", align_corners=False)


def _block(inputs: int, outputs: int, dilation: int, generator: torch.Generator) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    return convolution, BatchNorm2d(outputs), nn.ReLU(inplace=True)


def pixel_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels that are not void; 0, not NaN, where all are."""
    total = F.cross_entropy(logits, masks.long(), ignore_index=IGNORED, reduction="sum")
    return total / (masks != IGNORED).sum().clamp(min=1)


class Crops(Samples):
    """Training samples: image and mask scaled at random, cut to a square, mirrored half the time."""

    def __init__(self, masked: Masked, values: SegmentationValues, spec: InputSpec, seed: int) -> None:
        super().__init__(masked.images, seed)
        self.masked, self.values = masked, values
        mean = spec.colour.mean if isinstance(spec.colour, RGB) else (0.5, 0.5, 0.5)
        self.grey = [round(255 * value) for value in mean]

    def sample(self, image: Image.Image, index: int) -> Crop:
        mask = mask_of(self.masked, image, index)
        low, high = self.values.ratios
        ratio = low + (high - low) * torch.rand(()).item()
        size = [max(round(side * ratio), 1) for side in (image.height, image.width)]
        pixels = vision.resize(vision.pil_to_tensor(image), size, antialias=True)
        mask = vision.resize(mask, size, interpolation=vision.InterpolationMode.NEAREST)
        pixels, mask = self._flipped(*self._cut(pixels, mask))
        return enlarged(pixels, self.values.enlarged), mask

    def _cut(self, pixels: Tensor, mask: Tensor) -> Crop:
        """A random square; what lies beyond the image is grey, and void in the mask."""
        side = self.values.crop_side
        missing = [max(side - length, 0) for length in pixels.shape[1:]]
        padding = [0, 0, missing[1], missing[0]]  # left, top, right, bottom
        pixels, mask = vision.pad(pixels, padding, fill=self.grey), vision.pad(mask, padding, fill=[IGNORED])
        top, left = (int(torch.randint(length - side + 1, ())) for length in pixels.shape[1:])
        return vision.crop(pixels, top, left, side, side), vision.crop(mask, top, left, side, side)[0]

    def _flipped(self, pixels: Tensor, mask: Tensor) -> Crop:
        return (pixels.flip(-1), mask.flip(-1)) if torch.rand(()) < 0.5 else (pixels, mask)


class Segmentation(Transfer):
    def __init__(self, card: ProtocolCard, values: dict[Scale, SegmentationValues]) -> None:
        self.card, self.values = card, values

    def annotations(self, data_root: Path) -> dict[str, str]:
        return fingerprints(train_aug(data_root), voc_masks(data_root, "2012", "val"))

    def shortfalls(self, data_root: Path) -> dict[str, str]:
        sets = (train_aug(data_root), 10_582), (voc_masks(data_root, "2012", "val"), 1_449)
        return {one.images.name: what for one, complete in sets if (what := counted(len(one), complete, "masks"))}

    def absent(self, data_root: Path, test: ImageSet) -> tuple[str, ...]:
        return classes_nowhere(voc_masks(data_root, "2012", "val"))

    def run(self, backbone: Backbone, context: Context) -> Scores:
        with frozen(backbone):  # a copy trains; the backbone that was handed over stays
            return self._run(backbone, context)

    def _run(self, backbone: Backbone, context: Context) -> Scores:
        values = values_at(context.scale, self.values, self.card)
        train, test = train_aug(context.data_root), voc_masks(context.data_root, "2012", "val")
        data = fingerprints(train, test)
        model = Fcn(working_copy(backbone, context.device), values, context.seed).to(context.device)
        facts = (context.seed, data, backbone_key(backbone), as_plain(values))
        checkpoint = checkpoint_path(self.card, context, *facts)
        _train(model, values, train, checkpoint, context)
        model.eval()

        def scored(images: Tensor, size: torch.Size) -> Tensor:
            return model(as_input(model.backbone, images, context.device), size)

        return mean_iou_scores(scored, values.enlarged, train, test, context)


def _train(model: Fcn, values: SegmentationValues, train: Masked, checkpoint: Path, context: Context) -> None:
    crops = Crops(train, values, model.backbone.input, context.seed)

    def source(order: TrainOrder) -> Iterator[Crop]:
        for samples in in_order(crops, order, context.workers):
            images, masks = (torch.stack(parts) for parts in zip(*samples, strict=True))
            yield as_input(model.backbone, images, context.device), masks.to(context.device)

    heads = replace(values.optimizer, lr=values.head_rate * values.optimizer.lr)
    new = (*model.convolutions.parameters(), *model.classifier.parameters())
    trained = [parameter for parameter in model.train().backbone.parameters() if parameter.requires_grad]
    optimizer = build_optimizer([(trained, values.optimizer), (new, heads)])
    fit_together(
        model,
        optimizer,
        lambda images, masks: pixel_loss(model(images, masks.shape[1:]), masks),
        values.course,
        train.images,
        source,
        checkpoint,
        context,
    )


CARD = ProtocolCard(
    id="voc12_seg_fcn_moco",
    version=2,
    title="VOC2012, segmentation by a dilated FCN",
    citation="He et al., CVPR 2020, arXiv:1911.05722, appendix A.5; 72.5 mIoU",
    metrics={"miou": PERCENT},
    datasets=(("voc2012", "trainval"), ("voc2012", "val")),
    takes=("ResNet",),
    shared="trainval holds val, and training leaves its images out",
    trains=True,
    frozen="paper: nothing: all weights train, BatchNorm in training mode",
    selected="nothing: the last iterate is scored at every scale",
    departures=(
        "paper: new layers start as in He et al., ICCV 2015, the classifier from N(0, 0.01); the paper does not say",
        "paper: the loss is taken at the crop's resolution; the paper does not say",
        "desk: stages conv1 to res4 and the backbone's BatchNorm stay frozen; too few crops to teach them anew",
        "desk: 1,300 steps on 4 crops of 96 px, which the network sees at twice the size, under bf16 autocast",
        "desk: AdamW at a rate of 0.0002, new layers at 25 times that, falling by half a cosine",
        "desk: new convolutions have 128 channels and dilation 2, since maps have 12 cells a side and not 33",
    ),
    lists=tuple(
        f"{folder}/{split}.txt"
        for folder in ("VOCdevkit/VOC2012/ImageSets/Segmentation", "benchmark_RELEASE/dataset")
        for split in ("train", "val")
    ),
)
DESK = SegmentationValues(
    course=Course(Steps(1_300), 4, Cosine(warmup=Warmup(Steps(20), 0.01)), "bf16"),
    optimizer=Adam(lr=2e-4, weight_decay=1e-4, decoupled=True),
    head_rate=25.0,
    frozen_stages=4,
    norm="frozen",
    crop_side=96,
    ratios=(0.9, 1.1),
    channels=128,
    dilation=2,
    enlarged=2,
)
voc12_seg_fcn_moco = Segmentation(
    CARD,
    {
        "paper": SegmentationValues(
            course=Course(Steps(30_000), 16, Milestones((Steps(21_000), Steps(27_000)))),  # 70 and 90 % of the training
            optimizer=SGD(lr=0.003, momentum=0.9, weight_decay=1e-4),
        ),
        "desk": DESK,
        "smoke": replace(DESK, course=Course(Steps(4), 4, Cosine(), "bf16"), crop_side=64, enlarged=1),
    },
)
