"""What a backbone promises: named stages in a fixed order, and a statement of what its input means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from benchmark.core.errors import UserError
from benchmark.core.plain import at_least

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Stage:
    """channels: of the stage's map. stride: how many pixels of the input one cell of the map spans."""

    channels: int
    stride: int


@dataclass(frozen=True)
class InputSpec:
    """What a backbone's input means.

    size:      side in pixels of the images that it was pretrained on.
    colour:    colour space.
    mean, std: per channel, of images scaled to [0, 1].

    Raises UserError for a size below 1, or a std that is not above 0.
    """

    size: int
    colour: Literal["rgb"] = "rgb"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        at_least(self, size=1)
        if not all(spread > 0 for spread in self.std):
            raise UserError(f"InputSpec: std must be more than 0, not {self.std!r}")

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 (..., 3, H, W) -> float32 of the same shape, standardised."""
        if images.dtype != torch.uint8:
            raise TypeError(f"views are uint8 images, got {images.dtype}")
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return (images.float() / 255 - mean) / std


class Backbone(nn.Module):
    """stages: name -> Stage, from input to output. input: what images must look like."""

    stages: dict[str, Stage]
    input: InputSpec

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        """x (B, 3, H, W), as `input` says -> name -> (B, channels, H / stride, W / stride). Stops after `upto`."""
        raise NotImplementedError

    def parts(self, stage: str) -> tuple[nn.Module, ...]:
        """The modules that, one after the other, make the stage's map from the map before it. Protocols need them that
        take a network apart, to freeze some stages, dilate the last one or run it on regions."""
        raise UserError(f"{type(self).__name__} cannot be taken apart by stages; this protocol needs a ResNet")

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, H, W) -> (B, channels of the last stage): the last stage, averaged over space."""
        last = next(reversed(self.stages))
        return self.forward_stages(x)[last].mean(dim=(2, 3))
