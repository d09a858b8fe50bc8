"""Checkpoints of (PyTorch) Lightning: weights in `state_dict`, beside all that the training needs to go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VERSION = "pytorch-lightning_version"


def is_of_lightning(contents: Mapping[str, Any]) -> bool:
    """Whether it may be one: a file that has been stripped to its weights tells no more."""
    return VERSION in contents or contents.keys() == {"state_dict"}
