"""Weights that come from elsewhere and go elsewhere: reading other projects' files, and writing backbones for them."""

from __future__ import annotations

from typing import Literal

Library = Literal["torchvision", "timm", "detectron2"]  # that a backbone can be written for
