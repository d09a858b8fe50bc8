"""Crops that several papers share."""

from __future__ import annotations

from PIL.Image import Image
from torch import Tensor
from torchvision.transforms import v2


def flipped_crop(image: Image, size: int, area: tuple[float, float]) -> Tensor:
    """uint8 (3, size, size): a random resized crop of so much of the image, or its mirror image. Since Inception, what
    supervised networks are trained on."""
    crop = v2.RandomResizedCrop(size, scale=area)
    return v2.functional.pil_to_tensor(v2.RandomHorizontalFlip()(crop(image)))
