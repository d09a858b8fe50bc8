"""Semantic segmentation of VOC by an AlexNet made fully convolutional: the last column of the AlexNet tables.

Long et al., "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015 (arXiv:1411.4038), as in
shelhamer/fcn.berkeleyvision.org, voc-fcn-alexnet [FCN]; how long and at what rates as in Zhang et al.'s test of
self-supervised networks, richzhang/colorization, feature_learning_tests/segmentation [COL]. A network trained with
ImageNet's labels reaches 48.0 mIoU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmark.backbones.alexnet import AlexNetwork
from benchmark.backbones.contract import Backbone
from benchmark.core.optimisation import SGD, Adam, Cosine, Milestones, Optimizer, Steps, Warmup
from benchmark.core.plain import as_plain
from benchmark.data.completeness import counted
from benchmark.data.image_set import ImageSet
from benchmark.data.loader import TrainOrder, in_order
from benchmark.data.masks import SEG11VALID, Masked, sbd_train, seg11valid
from benchmark.recipe.scales import Scale
from benchmark.records.metric import PERCENT
from benchmark.transfers.contract import Context, ProtocolCard, Scores, Transfer, values_at
from benchmark.transfers.features import backbone_key, frozen
from benchmark.transfers.segmentation.fcn import pixel_loss
from benchmark.transfers.segmentation.scoring import (
    NAMES,
    Crop,
    Whole,
    classes_nowhere,
    fingerprints,
    mean_iou_scores,
)
from benchmark.transfers.training import Course, build_optimizer, checkpoint_path, fit_together
from benchmark.transfers.whole_alexnet import begun_anew, whole_alexnet

FIRST = 13  # pixels from the image's corner to the centre of what the first score sees; FCN: conv1 padded by 100


class Fcn32s(nn.Module):
    """The AlexNet with fc6 and fc7 as convolutions, a linear classifier of every cell that starts at zero, and a fixed
    bilinear enlargement back to the image. It takes the network apart, which is of no use afterwards."""

    def __init__(self, network: AlexNetwork) -> None:
        super().__init__()
        self.input = network.input
        self.convolutions = nn.Sequential(*convolutional(network))
        self.stride = pad_first(self.convolutions)
        self.classifier = nn.Conv2d(network.out_channels, len(NAMES), 1)
        for parameter in self.classifier.parameters():
            nn.init.zeros_(parameter)

    def forward(self, images: Tensor, size: torch.Size) -> Tensor:
        """(B, channels, H, W) -> (B, 21, *size), of pixels as large as the images' or larger"""
        scores = self.classifier(self.convolutions(images))  # (B, 21, rows, columns)
        axes = zip(size, images.shape[2:], scores.shape[2:], strict=True)
        rows, columns = (nearness(*axis, self.stride).to(scores) for axis in axes)
        return rows @ scores @ columns.T


def convolutional(network: AlexNetwork) -> Iterator[nn.Module]:
    """The modules of all stages, with a kernel over all cells in place of a row over all numbers. Pools keep a last
    window that is not full, as Caffe's do."""
    channels = network.stages["conv5"].channels
    for module in (module for layer in network.layers.values() for module in layer.children()):
        if isinstance(module, nn.Linear):
            yield _as_convolution(module, channels)
            channels = module.out_features
        elif not isinstance(module, nn.Flatten):
            if isinstance(module, nn.MaxPool2d):
                module.ceil_mode = True
            yield module


def _as_convolution(linear: nn.Linear, channels: int) -> nn.Conv2d:
    side = math.isqrt(linear.in_features // channels)
    convolution = nn.Conv2d(channels, linear.out_features, side)
    convolution.weight = nn.Parameter(linear.weight.detach().unflatten(1, (channels, side, side)))
    convolution.bias = linear.bias
    return convolution


def pad_first(modules: nn.Sequential) -> int:
    """Pads the first convolution so that the first cell of what comes out sees the pixels around FIRST; that is by 100
    where fc6 has 6 x 6 cells, as in FCN. Returns how many pixels the next cell lies further."""
    first, stride = 0.0, 1
    weighted = [one for one in modules if isinstance(one, nn.Conv2d | nn.MaxPool2d)]
    weighted[0].padding = (0, 0)
    for module in weighted:
        kernel, step, padding = (_one(value) for value in (module.kernel_size, module.stride, module.padding))
        first += stride * ((kernel - 1) / 2 - padding)
        stride *= step
    weighted[0].padding = (int(first) - FIRST,) * 2
    return stride


def _one(value: int | str | tuple[int, ...]) -> int:
    """Of a square kernel's two numbers."""
    if isinstance(value, tuple):
        (value,) = set(value)
    assert isinstance(value, int)
    return value


def nearness(count: int, side: int, cells: int, stride: int) -> Tensor:
    """Along one axis of an image of `side` pixels, of which the network makes `cells` scores, and the mask `count`
    pixels: (count, cells), by which a score counts at a pixel. It falls from 1, at the score's own centre, to 0 at its
    neighbours'. Both axes together are FCN's transposed convolution with a bilinear kernel, cropped."""
    places = (torch.arange(count) + 0.5) * side / count - 0.5
    centres = FIRST + stride * torch.arange(cells)
    return (1 - (places[:, None] - centres).abs() / stride).clamp(min=0)


@dataclass(frozen=True)
class Fcn32sValues:
    """course: its batches are of whole images of any size, one after the other; FCN and COL call their number
    iter_size.
    enlarged: the network sees every image so many times larger than its mask.
    cells: fc6 and fc7 begin anew on every network, and fc6 takes cells x cells of pool5; None: they are its own."""

    course: Course
    optimizer: Optimizer
    enlarged: int = 1
    cells: int | None = None


class Fcn32sSegmentation(Transfer):
    def __init__(self, card: ProtocolCard, values: dict[Scale, Fcn32sValues]) -> None:
        self.card, self.values = card, values

    def annotations(self, data_root: Path) -> dict[str, str]:
        return fingerprints(sbd_train(data_root), seg11valid(data_root))

    def shortfalls(self, data_root: Path) -> dict[str, str]:
        sets = (sbd_train(data_root), 8_498), (seg11valid(data_root), 736)
        return {one.images.name: what for one, complete in sets if (what := counted(len(one), complete, "masks"))}

    def absent(self, data_root: Path, test: ImageSet) -> tuple[str, ...]:
        return classes_nowhere(seg11valid(data_root))

    def run(self, backbone: Backbone, context: Context) -> Scores:
        values = values_at(context.scale, self.values, self.card)
        train, test = sbd_train(context.data_root), seg11valid(context.data_root)
        with frozen(backbone):  # what trains is another network, with its weights
            model = Fcn32s(whole_alexnet(backbone, context.seed, values.cells))
            model = model.to(context.device).to(memory_format=torch.channels_last)
            facts = (context.seed, fingerprints(train, test), backbone_key(backbone), as_plain(values))
            _train(model.train(), values, train, checkpoint_path(self.card, context, *facts), context)
        model.eval()

        def scored(images: Tensor, size: torch.Size) -> Tensor:
            return model(_prepared(model, images, context), size)

        found = mean_iou_scores(scored, values.enlarged, train, test, context)
        return replace(found, detail=found.detail | {"begun_anew": [*begun_anew(backbone, values.cells)]})


def _prepared(model: Fcn32s, images: Tensor, context: Context) -> Tensor:
    return model.input.prepare(images.to(context.device, memory_format=torch.channels_last, non_blocking=True))


def _train(model: Fcn32s, values: Fcn32sValues, train: Masked, checkpoint: Path, context: Context) -> None:
    whole = Whole(train, values.enlarged, context.seed)

    def source(order: TrainOrder) -> Iterator[tuple[list[Crop], None]]:
        for samples in in_order(whole, order, context.workers):
            yield samples, None

    def loss(samples: list[Crop], _: None) -> Tensor:
        each = [_loss_of_one(model, pixels[None], mask[None], context) for pixels, mask in samples]
        return torch.stack(each).mean()

    optimizer = build_optimizer([(model.parameters(), values.optimizer)])
    fit_together(model, optimizer, loss, values.course, train.images, source, checkpoint, context)


def _loss_of_one(model: Fcn32s, images: Tensor, masks: Tensor, context: Context) -> Tensor:
    return pixel_loss(model(_prepared(model, images, context), masks.shape[1:]), masks.to(context.device))


CARD = ProtocolCard(
    id="voc12_seg_fcn32s",
    version=2,
    title="VOC segmentation by an AlexNet made fully convolutional",
    citation="Long et al., CVPR 2015, arXiv:1411.4038; schedule of Zhang et al., ECCV 2016, arXiv:1603.08511; "
    "released code; 48.0 mIoU with ImageNet's labels, 19.8 from scratch",
    metrics={"miou": PERCENT},
    datasets=(("voc2012", "trainval"), ("voc2012", "val")),
    takes=("AlexNet",),
    shared="trainval holds val; SBD's train, which trains, holds some of it too, and the test leaves these out",
    trains=True,
    frozen="nothing",
    selected="nothing: the last iterate is scored at every scale",
    departures=(
        "paper: images come in a random order; the released code reads them in a list's",
        "every scale: without the list seg11valid.txt the test is on all of VOC2012's val that SBD's train leaves",
        "every scale: BatchNorm is folded into the weights wherever there is some, as colorization's authors do",
        "every scale: response normalisation stays where a network has it; colorization's authors test without",
        "every scale: a network without fc6 and fc7 begins them with Caffe's weights; a row that is rescaled says so",
        "every scale: pools keep a last window that is not full, as Caffe's do, on every network",
        "desk: every network is given new fc6 and fc7: those of a network for 64 px see one cell, and these 3x3",
        "desk: 2,500 steps on 2 images, which the network sees at twice the size of their masks",
        "desk: AdamW at a rate of 0.001, falling by half a cosine",
    ),
    lists=(
        "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt",
        SEG11VALID.as_posix(),
        "benchmark_RELEASE/dataset/train.txt",
    ),
)


PAPER = Fcn32sValues(
    Course(Steps(150_000), 20, Milestones((Steps(50_000), Steps(100_000)))),  # COL
    SGD(lr=1e-4, momentum=0.9, weight_decay=5e-4, decays="weights", bias_rate=2),  # FCN, COL
)
# Chosen on a third of SBD's train, held out. 600 steps on 4 images, at a rate divided by ten after each third, are less
# than two epochs at the full rate: nothing but background is ever the likeliest, 4.1 mIoU for the supervised network.
# 2,500 steps on 2, at a cosine, make it 8.9. What then holds it back is fc6: of a network for 64 px it takes one cell,
# 64 numbers, in which no class shows. With 3 x 3 cells it comes to 17.4.
DESK = Fcn32sValues(
    Course(Steps(2_500), 2, Cosine(warmup=Warmup(Steps(20), 0.01))),
    Adam(lr=1e-3, weight_decay=1e-4, decoupled=True),
    enlarged=2,
    cells=3,
)
SMOKE = replace(DESK, course=Course(Steps(4), 2, Cosine(warmup=Warmup(Steps(2), 0.01))), enlarged=1)
voc12_seg_fcn32s = Fcn32sSegmentation(CARD, {"paper": PAPER, "desk": DESK, "smoke": SMOKE})
