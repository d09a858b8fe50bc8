"""Random crops and mirror images: torchvision.transforms.v2's, with its random numbers and its pixels. Building such a
transform for each image and calling it takes as long as cropping and resizing a small one."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from PIL.Image import Image, Resampling, Transpose
from torch import Tensor
from torchvision.transforms import v2

from benchmark.core.errors import UserError


@cache
def random_crop(size: int, area: tuple[float, float]) -> v2.RandomResizedCrop:
    """Of so much of an image, at an aspect ratio of 3/4 to 4/3, resized to a square. Built once."""
    return v2.RandomResizedCrop(size, scale=area)


def cropped(image: Image, size: int, area: tuple[float, float], resample: Resampling = Resampling.BILINEAR) -> Image:
    """What `random_crop` makes of a PIL image."""
    place = random_crop(size, area).make_params([image])
    left, top = place["left"], place["top"]
    return image.crop((left, top, left + place["width"], top + place["height"])).resize((size, size), resample)


def flipped(image: Image) -> Image:
    """The image or, just as often, its mirror image: v2.RandomHorizontalFlip."""
    return image.transpose(Transpose.FLIP_LEFT_RIGHT) if torch.rand(1) < 0.5 else image


def flipped_crop(image: Image, size: int, area: tuple[float, float]) -> Tensor:
    """uint8 (3, size, size): a random resized crop of so much of the image, or its mirror image. Since Inception, what
    supervised networks are trained on."""
    pixels = np.asarray(flipped(cropped(image, size, area)))  # (size, size, 3)
    # v2.functional.pil_to_tensor leaves the channels together, and a batch takes them apart at twice the cost
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def squashed_crop(image: Image, size: int) -> Tensor:
    """uint8 (3, size, size): a random crop, or its mirror image, of all of the image squashed to a square of 256 / 227
    of that side. What Caffe's networks are trained on."""
    return v2.functional.pil_to_tensor(flipped(placed_in_square(image, size, caffe_square(size)[0])))


def placed_in_square(image: Image, size: int, whole: int) -> Image:
    """A crop of that side, anywhere in the image squashed to a square of `whole`. UserError if it does not fit."""
    if size > whole:
        raise UserError(f"crops of {size} pixels do not fit a square of {whole}; make it larger, or input.size smaller")
    return v2.RandomCrop(size)(v2.functional.resize(image, [whole, whole]))


def central_square(image: Image, size: int) -> Tensor:
    """uint8 (3, size, size): the middle of the image, its shorter side resized to that. An image of that size is left
    as it is."""
    whole = v2.functional.resize(image, [size])
    return v2.functional.pil_to_tensor(v2.functional.center_crop(whole, [size, size]))


def caffe_square(size: int) -> list[int]:
    """Height and width of the square that Caffe's networks take crops of that size from."""
    return [round(size * 256 / 227)] * 2
