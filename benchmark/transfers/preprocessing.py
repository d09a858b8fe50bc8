"""From a decoded image to what a frozen backbone sees: the test-time views and the training augmentations of the
protocols. `side` is the backbone's input side; 256 / 224 of it is what the shorter side is first resized to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from benchmark.views.crops import caffe_square, central_square, flipped, flipped_crop, placed_in_square, squashed_crop

# Principal components of ImageNet's RGB values in [0, 1]: AlexNet's lighting noise, with fb.resnet.torch's numbers.
LIGHTING_VALUES = torch.tensor([0.2175, 0.0188, 0.0045])
LIGHTING_VECTORS = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


@dataclass(frozen=True)
class Preprocessing:
    """PIL RGB -> {"image": uint8 (3, side, side)}, or (crops, 3, side, side) where several views are tested. `name`
    says all that decides the pixels: caches rely on it."""

    name: str
    transform: Callable[[Image.Image], Tensor]

    def __call__(self, image: Image.Image) -> dict[str, Tensor]:
        return {"image": self.transform(image)}


def centre_crop(side: int) -> Preprocessing:
    """Shorter side to 256/224 of `side`, centre crop: the test view of most protocols."""
    steps = [v2.Resize(_short(side)), v2.CenterCrop(side), v2.PILToTensor()]
    return Preprocessing(f"centre-{side}", v2.Compose(steps))


def whole_image(side: int) -> Preprocessing:
    """Shorter side to `side`, centre crop: of an image that is a square of that side, all of it."""
    return Preprocessing(f"whole-{side}", partial(central_square, size=side))


def squash(side: int) -> Preprocessing:
    """Shorter side to 256/224 of `side`, then squashed to a square: nothing is cropped, the aspect ratio is lost."""
    steps = [v2.Resize(_short(side)), v2.Resize((side, side)), v2.PILToTensor()]
    return Preprocessing(f"squash-{side}", v2.Compose(steps))


def crop_and_flip(side: int) -> Preprocessing:
    """Random area of 8 to 100 % at an aspect ratio of 3/4 to 4/3, resized; mirrored half the time."""
    return Preprocessing(f"crop-flip-{side}", partial(flipped_crop, size=side, area=(0.08, 1.0)))


def place_and_flip(side: int) -> Preprocessing:
    """Shorter side to 256/224 of `side`, a crop anywhere in it, mirrored half the time: no change of scale."""
    steps = [v2.Resize(_short(side)), v2.RandomCrop(side), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    return Preprocessing(f"place-flip-{side}", v2.Compose(steps))


def centre_place_and_flip(side: int) -> Preprocessing:
    """`place_and_flip` within the central square: what lies at the ends of the longer side is never seen."""
    square = [v2.Resize(_short(side)), v2.CenterCrop(_short(side))]
    steps = [*square, v2.RandomCrop(side), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    return Preprocessing(f"centre-place-flip-{side}", v2.Compose(steps))


def ten_crops(side: int) -> Preprocessing:
    """Shorter side to 256/224 of `side`; the four corners and the centre of all the image, and the five mirrored."""
    steps = [v2.Resize(_short(side)), v2.TenCrop(side), _stacked]
    return Preprocessing(f"ten-crops-{side}", v2.Compose(steps))


def squash_place_and_flip(side: int) -> Preprocessing:
    """Squashed to a square of 256/227 of `side`, as Caffe's networks are fed; a crop anywhere in it, mirrored half the
    time."""
    return Preprocessing(f"squash-place-flip-{side}", partial(squashed_crop, size=side))


def squash_and_centre(side: int) -> Preprocessing:
    """The centre of that square."""
    steps = [v2.Resize(caffe_square(side)), v2.CenterCrop(side), v2.PILToTensor()]
    return Preprocessing(f"squash-centre-{side}", v2.Compose(steps))


def squash_and_place_ten(side: int) -> Preprocessing:
    """Ten crops anywhere in that square, none mirrored."""
    steps = [v2.Resize(caffe_square(side)), partial(_placed_ten_times, crop=v2.RandomCrop(side)), _stacked]
    return Preprocessing(f"squash-place-ten-{side}", v2.Compose(steps))


def scale_place_and_flip(side: int) -> Preprocessing:
    """A square window anywhere in the image, of half to twice `side` but not more than fits, brought to `side` pixels
    without smoothing; mirrored half the time. An image that is narrower than half of `side` gives its shorter side."""
    return Preprocessing(f"scale-place-flip-{side}", partial(_scaled_and_placed, side=side))


def square_place_and_flip(side: int, part: float) -> Preprocessing:
    """Squashed to a square of which `side` is that part; a crop anywhere in it, mirrored half the time."""
    return Preprocessing(f"square-{part:.6g}-place-flip-{side}", partial(_placed, side=side, whole=round(side / part)))


def square_and_centre(side: int, part: float) -> Preprocessing:
    """The centre of that square."""
    whole = round(side / part)
    steps = [v2.Resize((whole, whole)), v2.CenterCrop(side), v2.PILToTensor()]
    return Preprocessing(f"square-{part:.6g}-centre-{side}", v2.Compose(steps))


def drawn_ten_times(view: Preprocessing) -> Preprocessing:
    """Ten draws of a random view."""
    return Preprocessing(f"ten-{view.name}", partial(_ten_draws, view=view))


def crop_flip_and_colour(side: int) -> Preprocessing:
    """`crop_and_flip`, then brightness, contrast and saturation by up to 40 %, then lighting noise of 0.1."""
    crop = [v2.RandomResizedCrop(side, scale=(0.08, 1.0)), v2.RandomHorizontalFlip()]
    colour = [v2.ColorJitter(0.4, 0.4, 0.4), v2.PILToTensor(), lighting]
    return Preprocessing(f"crop-flip-colour-{side}", v2.Compose(crop + colour))


def lighting(image: Tensor) -> Tensor:
    """uint8 (3, H, W) -> the same, each pixel shifted along the principal components by N(0, 0.1)."""
    shift = LIGHTING_VECTORS @ (LIGHTING_VALUES * torch.randn(3) * 0.1)
    return (image + 255 * shift.view(3, 1, 1)).round_().clamp_(0, 255).to(torch.uint8)


def _short(side: int) -> int:
    return round(side * 256 / 224)


def _placed(image: Image.Image, side: int, whole: int) -> Tensor:
    return v2.functional.pil_to_tensor(flipped(placed_in_square(image, side, whole)))


def _placed_ten_times(image: Image.Image, crop: v2.RandomCrop) -> list[Image.Image]:
    return [crop(image) for _ in range(10)]


def _scaled_and_placed(image: Image.Image, side: int) -> Tensor:
    """uint8 (3, side, side)"""
    fits = min(image.size) / side
    least, most = min(0.5, fits), min(2.0, fits)
    scale, across, down = torch.rand(3).tolist()
    window = side * (least + (most - least) * scale)
    left, top = across * (image.width - window), down * (image.height - window)
    box = (left, top, left + window, top + window)
    placed = image.transform((side, side), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
    return v2.functional.pil_to_tensor(flipped(placed))


def _ten_draws(image: Image.Image, view: Preprocessing) -> Tensor:
    return torch.stack([view.transform(image) for _ in range(10)])


def _stacked(images: Sequence[Image.Image]) -> Tensor:
    return torch.stack([v2.functional.pil_to_tensor(image) for image in images])
