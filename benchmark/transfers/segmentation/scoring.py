"""What every segmentation protocol does with a network that has been trained: whole test images through it, each at its
own size, and one count of pixels for all of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from benchmark.core import distributed
from benchmark.data.loader import Samples, in_order, one_by_one
from benchmark.data.masks import Masked
from benchmark.data.voc import CLASSES
from benchmark.records.per_image import kept_per_image
from benchmark.transfers import pictures
from benchmark.transfers.contract import Context, Scores
from benchmark.transfers.influence import influences
from benchmark.transfers.segmentation.mean_iou import confusion, iou_per_class, most_likely
from benchmark.transfers.turns import own_turns, turns_of_all

NAMES = ("background", *CLASSES)

Crop = tuple[Tensor, Tensor]  # uint8 image (3, H, W) and mask (H, W)
Scored = Callable[[Tensor, torch.Size], Tensor]  # uint8 images (B, 3, H, W), size of their masks -> (B, 21, *size)


class Whole(Samples):
    """The image enlarged but whole, and its mask as it is."""

    def __init__(self, masked: Masked, times: int, seed: int) -> None:
        super().__init__(masked.images, seed)
        self.masked, self.times = masked, times

    def sample(self, image: Image.Image, index: int) -> Crop:
        mask = mask_of(self.masked, image, index)[0]
        return enlarged(vision.pil_to_tensor(image), self.times), mask


def enlarged(pixels: Tensor, times: int) -> Tensor:
    """(3, H, W) -> (3, times H, times W)"""
    return pixels if times == 1 else vision.resize(pixels, [times * side for side in pixels.shape[1:]], antialias=True)


def mask_of(masked: Masked, image: Image.Image, index: int) -> Tensor:
    """(1, H, W) uint8"""
    mask = masked.mask(index)
    masked.check_size(index, mask, image.size)
    return torch.from_numpy(mask)[None]


def fingerprints(*parts: Masked) -> dict[str, str]:
    return {part.images.name: part.fingerprint() for part in parts}


def classes_nowhere(masked: Masked) -> tuple[str, ...]:
    """Those that no pixel of any mask has."""
    there = {int(value) for index in range(len(masked)) for value in np.unique(masked.mask(index))}
    return tuple(name for value, name in enumerate(NAMES) if value not in there)


def mean_iou_scores(scored: Scored, times: int, train: Masked, test: Masked, context: Context) -> Scores:
    """The mIoU of what `scored` says of the test images, which it sees enlarged so many times, and a sheet of some."""
    counts, picture = _counted(scored, Whole(test, times, context.seed), test, context)
    total = counts.sum(axis=0)
    ious = dict(zip(NAMES, iou_per_class(total).tolist(), strict=True))
    there = {name: iou for name, iou in ious.items() if not np.isnan(iou)}
    detail = {"per_class": there, "classes_nowhere": sorted(ious.keys() - there.keys()), "trained_on": len(train)}
    miou = float(np.mean(list(there.values())))
    without = np.array([np.nanmean(iou_per_class(total - one)) for one in counts])
    kept = kept_per_image({"miou": influences(miou, without)})
    return Scores({"miou": miou}, detail | kept, fingerprints(train, test), picture)


def _counted(scored: Scored, whole: Whole, test: Masked, context: Context) -> tuple[np.ndarray, bytes]:
    """`confusion` of every test image at its own size, (N, C, C + 1); and a sheet of some of them."""
    places = [*own_turns(one_by_one(len(test)))]
    shown, counts, tiles = pictures.shown(len(test)), [], []
    with distributed.together(), torch.inference_mode():
        loaded = in_order(whole, places, context.workers)
        for [(_, index)], ((pixels, mask),) in zip(places, loaded, strict=True):
            found = most_likely(scored(pixels[None], mask.shape)[0]).cpu().numpy()
            counts.append(confusion(mask.numpy(), found, len(NAMES)))
            tiles.append(pictures.with_masks(test.images.open(index), mask.numpy(), found) if index in shown else None)
            context.report(f"masks of {test.images.name}", len(counts), len(places), {})
    return np.stack(turns_of_all(counts)), pictures.sheet([tile for tile in turns_of_all(tiles) if tile])
