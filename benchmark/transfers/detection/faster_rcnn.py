"""Faster R-CNN (Ren et al., NeurIPS 2015) with the head of He et al., CVPR 2016: all stages but the last see the image,
the last one sees each region ("C4"). Where masks are learned it is Mask R-CNN (He et al., ICCV 2017): boxes and masks
share the last stage. Built from torchvision's parts with detectron2's rules, so that the same weights give the same
proposals, losses, boxes and masks in either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, nms, roi_align

from benchmark.backbones.contract import Backbone
from benchmark.backbones.norms import BatchNorm2d
from benchmark.core.draws import mix
from benchmark.core.streams import Stream
from benchmark.transfers.detection.masks import within_boxes
from benchmark.transfers.detection.settings import Detector, DetectorSettings, Found, Target
from benchmark.transfers.training import freeze, gaussian

ANCHOR_OVERLAPS = (0.7, 0.3)  # at least: positive; less than: negative
REGION_OVERLAP = 0.5
ANCHOR_CODER, REGION_CODER = BoxCoder((1.0, 1.0, 1.0, 1.0)), BoxCoder((10.0, 10.0, 5.0, 5.0))

Size = tuple[int, int]  # height, width


class FasterRcnn(Detector):
    cell_anchors: Tensor

    def __init__(self, backbone: Backbone, num_classes: int, settings: DetectorSettings, seed: int) -> None:
        super().__init__()
        self.backbone, self.settings, self.num_classes = backbone, settings, num_classes
        self.map, self.last = self.map_and_last(backbone)
        channels, outputs = self.widths(backbone)
        generator = torch.Generator().manual_seed(mix(seed, Stream.DETECTION_HEADS))
        anchors = len(settings.anchor_sides) * len(settings.anchor_ratios)
        self.rpn_hidden = gaussian(nn.Conv2d(channels, channels, 3, padding=1), 0.01, generator)
        self.rpn_objectness = gaussian(nn.Conv2d(channels, anchors, 1), 0.01, generator)
        self.rpn_boxes = gaussian(nn.Conv2d(channels, 4 * anchors, 1), 0.01, generator)
        self.extra_norm = BatchNorm2d(outputs) if settings.extra_norm else nn.Identity()
        self.classes = gaussian(nn.Linear(outputs, num_classes + 1), 0.01, generator)  # the last is background
        self.boxes = gaussian(nn.Linear(outputs, 4 * num_classes), 0.001, generator)
        if settings.mask_channels:
            self.mask_hidden = nn.ConvTranspose2d(outputs, settings.mask_channels, 2, stride=2)
            nn.init.kaiming_normal_(self.mask_hidden.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            nn.init.zeros_(self.mask_hidden.bias)  # type: ignore[arg-type]
            self.masks = gaussian(nn.Conv2d(settings.mask_channels, num_classes, 1), 0.001, generator)
        self.register_buffer("cell_anchors", _cell_anchors(settings), persistent=False)
        norms = [one for one in backbone.modules() if isinstance(one, nn.BatchNorm2d | nn.GroupNorm)]
        self.kept_norms = norms if settings.norm == "frozen" else []
        freeze(backbone, settings.frozen_stages, self.kept_norms)

    def map_and_last(self, backbone: Backbone) -> tuple[str, str]:
        """The stage whose map the regions are read from, and the last."""
        *_, before, last = backbone.stages
        return before, last

    def widths(self, backbone: Backbone) -> tuple[int, int]:
        """Channels of the map, and of what is read from a region."""
        return backbone.stages[self.map].channels, backbone.stages[self.last].channels

    def train(self, mode: bool = True) -> FasterRcnn:
        super().train(mode)
        for norm in self.kept_norms:
            norm.eval()
        return self

    def head_parameters(self) -> Iterator[nn.Parameter]:
        return (p for name, p in self.named_parameters() if not name.startswith("backbone."))

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        maps, sizes = self._maps(images)
        anchors, objectness, deltas = self._read_anchors(maps)
        rpn = self._anchor_losses(anchors, objectness, deltas, targets)
        proposals = self._proposals(anchors, objectness, deltas, sizes, self.settings.proposals_train)
        regions, matches = self._sample_regions(proposals, targets)
        features = self._read_regions(maps, regions)
        losses = rpn | self._region_losses(features, regions, matches)
        return losses | (self._mask_losses(features, regions, matches) if self.settings.mask_channels else {})

    def detect(self, images: list[Tensor], proposals: Sequence[Tensor] = ()) -> list[Found]:
        maps, sizes = self._maps(images)
        proposals = self._proposals(*self._read_anchors(maps), sizes, self.settings.proposals_test)
        logits, deltas = self._read_boxes(self._read_regions(maps, proposals))
        counts = [len(boxes) for boxes in proposals]
        parts = zip(logits.softmax(dim=1).split(counts), deltas.split(counts), proposals, sizes, strict=True)
        found = [self._found(*part) for part in parts]
        return self._with_masks(maps, found) if self.settings.mask_channels else found

    def propose(self, images: list[Tensor]) -> list[Tensor]:
        maps, sizes = self._maps(images)
        return self._proposals(*self._read_anchors(maps), sizes, self.settings.proposals_test)

    def _maps(self, images: list[Tensor]) -> tuple[Tensor, list[Size]]:
        """(B, C, h, w) of the stage before the last."""
        return maps_of(self.backbone, self.map, images, self.cell_anchors.device)

    def _read_anchors(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(A, 4) anchors, (B, A) objectness, (B, A, 4) deltas, where A counts cells first and then their anchors."""
        hidden = F.relu(self.rpn_hidden(maps))
        objectness = self.rpn_objectness(hidden).float().permute(0, 2, 3, 1).flatten(1)
        deltas = self.rpn_boxes(hidden).float().permute(0, 2, 3, 1)  # under autocast: bf16 boxes would be a pixel off
        stride = self.backbone.stages[self.map].stride or 0
        return self._anchors(maps.shape[2], maps.shape[3], stride), objectness, deltas.reshape(len(maps), -1, 4)

    def _anchors(self, height: int, width: int, stride: int) -> Tensor:
        device = self.cell_anchors.device
        y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
        shifts = stride * torch.stack([x, y, x, y], dim=2).float()
        return (shifts[:, :, None] + self.cell_anchors).reshape(-1, 4)

    def _anchor_losses(
        self, anchors: Tensor, objectness: Tensor, deltas: Tensor, targets: list[Target]
    ) -> dict[str, Tensor]:
        matcher = Matcher(*ANCHOR_OVERLAPS, allow_low_quality_matches=True)
        matches = [matcher(box_iou(target.boxes, anchors)) for target in targets]  # object, -1 negative, -2 neither
        kinds = [(match + 1).clamp(max=1) for match in matches]  # 1 positive, 0 negative, -1 neither
        sampler = BalancedPositiveNegativeSampler(self.settings.anchors, self.settings.anchors_positive)
        positive, negative = (torch.stack(masks).bool() for masks in sampler(kinds))  # (B, A)
        boxes = torch.stack([target.boxes[match.clamp(min=0)] for target, match in zip(targets, matches, strict=True)])
        wanted = ANCHOR_CODER.encode_single(boxes[positive], anchors.expand_as(boxes)[positive])
        sampled = positive | negative
        normalizer = self.settings.anchors * len(targets)
        logits, truth = objectness[sampled], positive[sampled].float()
        return {
            "objectness": F.binary_cross_entropy_with_logits(logits, truth, reduction="sum") / normalizer,
            "anchor_boxes": F.l1_loss(deltas[positive], wanted, reduction="sum") / normalizer,
        }

    @torch.no_grad()
    def _proposals(
        self, anchors: Tensor, objectness: Tensor, deltas: Tensor, sizes: Sequence[Size], counts: tuple[int, int]
    ) -> list[Tensor]:
        before, after = counts
        scores, best = objectness.topk(min(before, len(anchors)), dim=1)
        proposals = []
        for image, size in enumerate(sizes):
            boxes = ANCHOR_CODER.decode_single(deltas[image, best[image]], anchors[best[image]])
            boxes = clip_boxes_to_image(boxes, size)
            wide = _holds_something(boxes)
            boxes, rest = boxes[wide], scores[image, wide]
            proposals.append(boxes[nms(boxes, rest, self.settings.proposals_overlap)[:after]])
        return proposals

    @torch.no_grad()
    def _sample_regions(self, proposals: list[Tensor], targets: list[Target]) -> tuple[list[Tensor], list[Target]]:
        """Regions of each image, and the object of each region; its label is `num_classes` where there is none."""
        sampler = BalancedPositiveNegativeSampler(self.settings.regions, self.settings.regions_positive)
        matcher = Matcher(REGION_OVERLAP, REGION_OVERLAP)
        regions, matches = [], []
        for proposed, target in zip(proposals, targets, strict=True):
            candidates = torch.cat([proposed, target.boxes])
            match = matcher(box_iou(target.boxes, candidates))
            (positive,), (negative,) = sampler([(match >= 0).long()])
            chosen = (positive | negative).bool()
            match = match[chosen]
            place = match.clamp(min=0)
            labels = target.labels[place].masked_fill(match < 0, self.num_classes)
            masks = tuple(target.masks[index] for index in place.tolist()) if target.masks else ()
            regions.append(candidates[chosen])
            matches.append(Target(target.boxes[place], labels, masks))
        return regions, matches

    def _read_regions(self, maps: Tensor, regions: list[Tensor]) -> Tensor:
        """(R, C, h, w) of the last stage."""
        x = self._pooled(maps, regions)
        for part in self.backbone.parts(self.last):
            x = part(x)
        return self.extra_norm(x)

    def _pooled(self, maps: Tensor, regions: list[Tensor]) -> Tensor:
        """(R, C, side, side) of the map."""
        side, scale = self.settings.pooled_side, 1 / (self.backbone.stages[self.map].stride or 0)
        return roi_align(maps, regions, side, scale, sampling_ratio=0, aligned=True)

    def _read_boxes(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(R, classes + 1) logits and (R, 4 * classes) deltas."""
        x = features.mean(dim=(2, 3))
        return self.classes(x).float(), self.boxes(x).float()

    def _read_masks(self, features: Tensor, labels: Tensor) -> Tensor:
        """(R, side, side) logits, each those of its label (R,)."""
        x = F.relu(self.mask_hidden(features))
        return self.masks(x).float()[torch.arange(len(labels)), labels]

    def _region_losses(self, features: Tensor, regions: list[Tensor], matches: list[Target]) -> dict[str, Tensor]:
        logits, deltas = self._read_boxes(features)
        labels, boxes = torch.cat([one.labels for one in matches]), torch.cat([one.boxes for one in matches])
        found = (labels < self.num_classes).nonzero().squeeze(1)
        wanted = REGION_CODER.encode_single(boxes[found], torch.cat(regions)[found])
        given = deltas.view(len(deltas), self.num_classes, 4)[found, labels[found]]
        return {
            "classes": F.cross_entropy(logits, labels),
            "region_boxes": F.l1_loss(given, wanted, reduction="sum") / len(labels),
        }

    def _mask_losses(self, features: Tensor, regions: list[Tensor], matches: list[Target]) -> dict[str, Tensor]:
        """Of the regions that found an object, which every image has: its objects' own boxes are among its regions."""
        labels = torch.cat([one.labels for one in matches])
        found = (labels < self.num_classes).nonzero().squeeze(1)
        logits = self._read_masks(features[found], labels[found])
        outlines = [mask for one in matches for mask in one.masks]
        truth = within_boxes([outlines[i] for i in found.tolist()], torch.cat(regions)[found], logits.shape[-1])
        return {"masks": F.binary_cross_entropy_with_logits(logits, truth.float())}

    def _found(self, scores: Tensor, deltas: Tensor, regions: Tensor, size: Size) -> Found:
        boxes = REGION_CODER.decode_single(deltas, regions).view(len(regions), self.num_classes, 4)
        region, label = (scores[:, :-1] > self.settings.least_score).nonzero(as_tuple=True)
        boxes, scores = clip_boxes_to_image(boxes[region, label], size), scores[region, label]
        kept = batched_nms(boxes, scores, label, self.settings.overlap)[: self.settings.detections]
        return Found(boxes[kept], scores[kept], label[kept])

    def _with_masks(self, maps: Tensor, found: list[Found]) -> list[Found]:
        """The boxes that were found are looked at once more, as regions."""
        features = self._read_regions(maps, [one.boxes for one in found])
        masks = self._read_masks(features, torch.cat([one.labels for one in found])).sigmoid()
        counts = [len(one.boxes) for one in found]
        return [replace(one, masks=own) for one, own in zip(found, masks.split(counts), strict=True)]


def maps_of(backbone: Backbone, stage: str, images: list[Tensor], device: torch.device) -> tuple[Tensor, list[Size]]:
    """(B, C, h, w) of a stage, and each image's size; the images are padded with zeros to the largest one's sides."""
    normalized = [backbone.input.prepare(image.to(device)) for image in images]
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    height, width = (max(side) for side in zip(*sizes, strict=True))
    padded = [F.pad(x, (0, width - x.shape[2], 0, height - x.shape[1])) for x in normalized]
    return backbone.forward_stages(torch.stack(padded), upto=stage)[stage], sizes


def _cell_anchors(settings: DetectorSettings) -> Tensor:
    """(anchors of a cell, 4) around its corner (0, 0): sizes first, then ratios of height to width. Not torchvision's,
    which rounds them to whole pixels."""
    rows = []
    for side in settings.anchor_sides:
        for ratio in settings.anchor_ratios:
            width, height = side / math.sqrt(ratio), side * math.sqrt(ratio)
            rows.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(rows)


def _holds_something(boxes: Tensor) -> Tensor:
    return ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)
