"""What a network's input means: its side in pixels, its colours and their range. Imports torch when images come.

A colour space is a frozen dataclass with `channels` and `prepare`; a new one is a class here, and nothing else changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from benchmark.core.errors import UserError
from benchmark.core.plain import at_least, is_number, subclasses

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Colour:
    """Base of colour spaces. channels: of what `prepare` returns."""

    channels: ClassVar[int]

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 RGB (..., 3, H, W) -> float32 (..., channels, H, W)."""
        raise NotImplementedError(f"{type(self).__name__}.prepare")


@dataclass(frozen=True)
class RGB(Colour):
    """Scaled to [0, 1], then standardised; by default as torchvision's models expect. RGB((0, 0, 0), (1, 1, 1)) is
    [0, 1] itself. Raises UserError for a std of no spread."""

    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    channels: ClassVar[int] = 3

    def __post_init__(self) -> None:
        _check_spread(self.std)

    def prepare(self, images: Tensor) -> Tensor:
        return _standardised(_as_float(images) / 255, self.mean, self.std)


@dataclass(frozen=True)
class BGR(Colour):
    """Blue first, 0 to 255, less the mean, as Caffe's networks expect. mean, std: of blue, green and red."""

    mean: Triple = (104.0, 117.0, 123.0)
    std: Triple = (1.0, 1.0, 1.0)
    channels: ClassVar[int] = 3

    def __post_init__(self) -> None:
        _check_spread(self.std)

    def prepare(self, images: Tensor) -> Tensor:
        return _standardised(_as_float(images).flip(-3), self.mean, self.std)


@dataclass(frozen=True)
class Grey(Colour):
    """Luma (ITU-R 601-2) scaled to [0, 1], then standardised."""

    mean: float = 0.0
    std: float = 1.0
    channels: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_spread((self.std,))

    def prepare(self, images: Tensor) -> Tensor:
        x = _as_float(images) / 255
        luma = 0.299 * x[..., 0, :, :] + 0.587 * x[..., 1, :, :] + 0.114 * x[..., 2, :, :]
        return (luma[..., None, :, :] - self.mean) / self.std


@dataclass(frozen=True)
class Lab(Colour):
    """CIE L*a*b* of sRGB under D65, each channel less `mean` over `std`. L* is 0 to 100, a* and b* about ±110."""

    mean: Triple = (50.0, 0.0, 0.0)
    std: Triple = (50.0, 110.0, 110.0)
    channels: ClassVar[int] = 3

    def __post_init__(self) -> None:
        _check_spread(self.std)

    def prepare(self, images: Tensor) -> Tensor:
        return _standardised(lab(_as_float(images) / 255), self.mean, self.std)


@dataclass(frozen=True)
class Lightness(Colour):
    """L* alone, less `mean` over `std`: by default -50 to 50, as colorization's networks take it."""

    mean: float = 50.0
    std: float = 1.0
    channels: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_spread((self.std,))

    def prepare(self, images: Tensor) -> Tensor:
        return (lab(_as_float(images) / 255)[..., :1, :, :] - self.mean) / self.std


@dataclass(frozen=True)
class Sobel(Colour):
    """Two edge maps, horizontal and vertical, of the mean of the three standardised channels (Bojanowski & Joulin,
    arXiv:1704.05310): what is left tells nothing of colour."""

    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    channels: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _check_spread(self.std)

    def prepare(self, images: Tensor) -> Tensor:
        import torch
        from torch.nn.functional import conv2d

        grey = _standardised(_as_float(images) / 255, self.mean, self.std).mean(dim=-3, keepdim=True)
        across = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]], device=grey.device)
        kernels = torch.stack([across, across.T])[:, None]  # (2, 1, 3, 3)
        flat = grey.reshape(-1, *grey.shape[-3:])
        return conv2d(flat, kernels, padding=1).reshape(*grey.shape[:-3], 2, *grey.shape[-2:])


@dataclass(frozen=True)
class InputSpec:
    """size: side in pixels that the network was made for. Raises UserError for a size below 1 or no colour space."""

    size: int = 224
    colour: Colour = field(default_factory=RGB)

    def __post_init__(self) -> None:
        at_least(self, size=1)
        if not isinstance(self.colour, Colour):
            known = ", ".join(f"{name}()" for name in sorted(subclasses(Colour)))
            raise UserError(f"InputSpec: colour is a value such as {known}, not {self.colour!r}")

    @property
    def channels(self) -> int:
        return self.colour.channels

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 RGB (..., 3, H, W) -> float32 (..., channels, H, W), as the network takes it."""
        return self.colour.prepare(images)


def lab(x: Tensor) -> Tensor:
    """sRGB in [0, 1] (..., 3, H, W) -> L*, a*, b* (CIE 1976, white point D65)."""
    import torch

    linear = torch.where(x > 0.04045, ((x + 0.055) / 1.055).clamp_min(0) ** 2.4, x / 12.92)
    to_xyz = torch.tensor(
        [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]],
        device=x.device,
        dtype=x.dtype,
    )
    white = torch.tensor([0.95047, 1.0, 1.08883], device=x.device, dtype=x.dtype)
    with torch.autocast(x.device.type, enabled=False):  # the digits of bf16 are too few for colours
        xyz = torch.einsum("kc,...chw->...khw", to_xyz / white[:, None], linear)
    f = torch.where(xyz > 0.008856, xyz.clamp_min(0) ** (1 / 3), 7.787 * xyz + 16 / 116)
    fx, fy, fz = f.unbind(-3)
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], dim=-3)


def _as_float(images: Tensor) -> Tensor:
    import torch

    if images.dtype != torch.uint8 or images.ndim < 3 or images.shape[-3] != 3:
        raise UserError(f"prepare takes uint8 RGB images (..., 3, H, W), not {images.dtype} {tuple(images.shape)}")
    return images.float()


def _standardised(x: Tensor, mean: Triple, std: Triple) -> Tensor:
    import torch

    middle = torch.tensor(mean, device=x.device).view(-1, 1, 1)
    return (x - middle) / torch.tensor(std, device=x.device).view(-1, 1, 1)


def _check_spread(std: tuple[float, ...]) -> None:
    if not isinstance(std, tuple) or not all(is_number(spread) and spread > 0 for spread in std):
        raise UserError(f"std must be more than 0 in each channel, not {std!r}")
