"""Fast R-CNN (Girshick, ICCV 2015, arXiv:1504.08083) on an AlexNet: its convolutions see the whole image, and fc6 and
fc7 see what is in each proposal, max-pooled to a grid. As in rbgirshick/fast-rcnn, models/CaffeNet [FRCN]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, roi_pool

from benchmark.backbones.alexnet import FULLY_CONNECTED, UNITS, AlexNetwork
from benchmark.backbones.alexnet_surgery import check_foldable, folded
from benchmark.backbones.contract import Backbone
from benchmark.core.draws import mix
from benchmark.core.streams import Stream
from benchmark.data.annotation import Annotated
from benchmark.recipe.inputs import InputSpec
from benchmark.transfers.detection.c4 import mirrored
from benchmark.transfers.detection.faster_rcnn import Size, maps_of
from benchmark.transfers.detection.settings import Detector, Found, RegionSettings, Target
from benchmark.transfers.training import gaussian
from benchmark.transfers.whole_alexnet import carried_over_by_seed

LAST = "conv5"
TO_LAST_PIXEL = (0.0, 0.0, 1.0, 1.0)  # it is in the region, and says which cell is the last
CODER = BoxCoder((1.0, 1.0, 1.0, 1.0))


def for_regions(backbone: Backbone, cells: int, seed: int) -> AlexNetwork:
    """The AlexNet as a detector has it: without BatchNorm, which is folded into the weights, and padded so that the
    middles of conv5's cells lie 16 px apart, the first on the image's corner [FRCN]. fc6 takes cells x cells. It and
    fc7 are the network's own if they fit, else they are CaffeNet's, begun by the seed."""
    plain = folded(backbone)
    into = replace(
        plain.architecture, padding=5, pool_padding=1, stride=4, units=(UNITS, UNITS), dropout="after", start="caffe",
        fc6_side=6, fully_convolutional=False,
    )  # fmt: skip
    spec = InputSpec(32 * cells + 1, plain.input.colour)  # of an image of this size fc6 sees so many cells
    return carried_over_by_seed(seed, plain, into, spec, LAST if anew_for_regions(plain, cells) else "fc7")


def anew_for_regions(backbone: Backbone, cells: int) -> tuple[str, ...]:
    """The stages of `for_regions` that do not come from the backbone: both or none, as in `whole_alexnet`."""
    network = check_foldable(backbone)
    if network.architecture.units != (UNITS, UNITS):
        return FULLY_CONNECTED
    (fc6,) = (one for one in network.layers["fc6"].modules() if isinstance(one, nn.Linear | nn.Conv2d))
    return () if fc6.weight[0].numel() == network.stages[LAST].channels * cells**2 else FULLY_CONNECTED


@dataclass(frozen=True)
class Normalisation:
    """What is subtracted from the offsets from a region to its object, and what they are divided by: (classes, 4)."""

    mean: Tensor
    spread: Tensor


def measured_offsets(train: Annotated, settings: RegionSettings) -> Normalisation:
    """Mean and deviation of each class's offsets over all positive regions of the images and of their mirror images."""
    rows, labels = [], []
    for one in train.annotations:
        boxes, proposals = torch.from_numpy(one.boxes), one.proposals
        assert proposals is not None
        for flip in (False, True):
            objects, regions = (mirrored(x, one.size[0]) if flip else x for x in (boxes, torch.from_numpy(proposals)))
            matched = matches_of(Target(objects, torch.from_numpy(one.labels), proposals=regions), settings)
            rows.append(CODER.encode_single(matched.objects, matched.regions)[matched.is_positive].double())
            labels.append(matched.labels[matched.is_positive])
    offsets, label = torch.cat(rows), torch.cat(labels)
    mean, spread = torch.zeros(len(train.classes), 4), torch.ones(len(train.classes), 4)
    for number in label.unique().tolist():
        own = offsets[label == number]
        deviation = own.std(dim=0, correction=0)
        mean[number], spread[number] = own.mean(dim=0), torch.where(deviation > 1e-6, deviation, 1.0)
    return Normalisation(mean, spread)


@dataclass(frozen=True)
class Matches:
    """regions (R, 4); of each the object that it overlaps most, objects (R, 4) and labels (R,); whether it is positive
    and whether negative (R,)."""

    regions: Tensor
    objects: Tensor
    labels: Tensor
    is_positive: Tensor
    is_negative: Tensor


def matches_of(target: Target, settings: RegionSettings) -> Matches:
    """Of the proposals, and of the objects' own boxes, which are regions in training [FRCN]."""
    assert target.proposals is not None
    regions = torch.cat([target.proposals, target.boxes])
    match = Matcher(settings.positive, settings.background)(box_iou(target.boxes, regions))
    place = match.clamp(min=0)
    is_negative = match == Matcher.BETWEEN_THRESHOLDS
    return Matches(regions, target.boxes[place], target.labels[place], match >= 0, is_negative)


class FastRcnn(Detector):
    mean: Tensor
    spread: Tensor

    def __init__(
        self, network: AlexNetwork, num_classes: int, settings: RegionSettings, offsets: Normalisation, seed: int
    ) -> None:
        super().__init__()
        self.network, self.settings, self.num_classes = network, settings, num_classes
        self.network.layers["conv1"].requires_grad_(False)  # FRCN
        units = network.stages["fc7"].channels
        generator = torch.Generator().manual_seed(mix(seed, Stream.DETECTION_HEADS))
        self.classes = gaussian(nn.Linear(units, num_classes + 1), 0.01, generator)  # the last is background
        self.boxes = gaussian(nn.Linear(units, 4 * num_classes), 0.001, generator)
        self.register_buffer("mean", offsets.mean)
        self.register_buffer("spread", offsets.spread)

    def head_parameters(self) -> Iterator[nn.Parameter]:
        return (p for name, p in self.named_parameters() if not name.startswith("network."))

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        maps, _ = maps_of(self.network, LAST, images, self.mean.device)
        sampled = [self._sampled(matches_of(target, self.settings)) for target in targets]
        regions, objects, labels = (
            torch.cat(each) for each in zip(*((m.regions, m.objects, m.labels) for m in sampled), strict=True)
        )
        logits, deltas = self._read(maps, [m.regions for m in sampled])
        found = (labels < self.num_classes).nonzero().squeeze(1)
        label = labels[found]
        wanted = (CODER.encode_single(objects[found], regions[found]) - self.mean[label]) / self.spread[label]
        return {
            "classes": F.cross_entropy(logits, labels),
            "region_boxes": F.smooth_l1_loss(deltas[found, label], wanted, reduction="sum") / len(labels),
        }

    def detect(self, images: list[Tensor], proposals: Sequence[Tensor] = ()) -> list[Found]:
        maps, sizes = maps_of(self.network, LAST, images, self.mean.device)
        proposals = [self._apart(boxes) for boxes in proposals]
        logits, deltas = self._read(maps, proposals)
        counts = [len(boxes) for boxes in proposals]
        parts = zip(logits.softmax(dim=1).split(counts), deltas.split(counts), proposals, sizes, strict=True)
        return [self._found(*part) for part in parts]

    @torch.no_grad()
    def _sampled(self, matches: Matches) -> Matches:
        """Some positive and negative regions; a negative one's label is `num_classes`."""
        sampler = BalancedPositiveNegativeSampler(self.settings.regions, self.settings.regions_positive)
        kinds = matches.is_positive.long() - (~matches.is_positive & ~matches.is_negative).long()
        (positive,), (negative,) = sampler([kinds])
        chosen = (positive | negative).bool()
        labels = matches.labels.masked_fill(matches.is_negative, self.num_classes)
        every = (matches.regions, matches.objects, labels, matches.is_positive, matches.is_negative)
        return Matches(*(one[chosen] for one in every))

    def _read(self, maps: Tensor, regions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(R, classes + 1) logits and (R, classes, 4) normalised offsets."""
        corners = [one - one.new_tensor(TO_LAST_PIXEL) for one in regions]
        x = roi_pool(maps.float(), corners, self.settings.cells, 1 / self._stride)
        x = self.network.layers["fc6"][1:](x)  # type: ignore[index]  # without pool5, whose place this is
        x = self.network.layers["fc7"](x)
        return self.classes(x).float(), self.boxes(x).float().unflatten(1, (self.num_classes, 4))

    def _apart(self, regions: Tensor) -> Tensor:
        """Without those that begin and end in the same cells as one before: the head sees the same in them [FRCN]."""
        cells = ((regions - regions.new_tensor(TO_LAST_PIXEL)) / self._stride).round()
        first = np.unique(cells.cpu().numpy(), axis=0, return_index=True)[1]
        return regions[torch.from_numpy(np.sort(first)).to(regions.device)]

    @property
    def _stride(self) -> int:
        return self.network.stages[LAST].stride or 0

    def _found(self, scores: Tensor, deltas: Tensor, regions: Tensor, size: Size) -> Found:
        """Every class of every region, without those that others of the class are surer of."""
        offsets = (deltas * self.spread + self.mean).flatten(1)
        boxes = clip_boxes_to_image(CODER.decode_single(offsets, regions).view(-1, self.num_classes, 4), size)
        scores, region = scores[:, :-1].topk(min(self.settings.detections, len(regions)), dim=0)
        label = torch.arange(self.num_classes, device=regions.device).expand_as(region)
        boxes, scores, label = boxes[region, label].flatten(0, 1), scores.flatten(), label.flatten()
        kept = batched_nms(boxes, scores, label, self.settings.overlap)
        return Found(boxes[kept], scores[kept], label[kept])
