"""What a transfer promises: a protocol, named after who fixed it, that scores a pretrained backbone.

A file in this folder with module-level `Transfer` values is found by scanning; the card's id is the transfer's name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmark.backbones.contract import Backbone
from benchmark.core.errors import UserError
from benchmark.recipe.scales import Scale


@dataclass(frozen=True)
class ProtocolCard:
    """Everything a reader needs to know which number this is.

    id:       e.g. "linear_imagenet_pirl"; never just "linear".
    version:  raised whenever a change could move a score; two versions never share a table column.
    metrics:  metric -> unit, the headline first, e.g. {"top1": "%"}.
    higher_is_better: direction of the headline metric.
    datasets: (name, split) pairs the transfer reads, as open_dataset takes them.
    takes:    the architectures (benchmark.backbones) whose stages it is made for; all others are refused. Empty: any,
              as it looks at the backbone's output alone.
    lists:    files below the data root that say which of those images are read, where they are there; a number on one
              list is another number than one on another list, or without.
    frozen:   what of the backbone does not train.
    selected: what is chosen (stage, cost, epoch), on which images, at each scale.
    departures: what the desk scale does otherwise than the paper, one line each.
    """

    id: str
    version: int
    title: str
    citation: str
    metrics: dict[str, str]
    datasets: tuple[tuple[str, str], ...]
    frozen: str
    selected: str
    takes: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    higher_is_better: bool = True
    departures: tuple[str, ...] = ()

    def refusal(self, architecture: str) -> str:
        """Why it cannot score such a backbone; empty where it can."""
        if not self.takes or architecture in self.takes:
            return ""
        return f"{self.id} is made for the stages of {' or '.join(self.takes)}, not of {architecture}"


@dataclass(frozen=True)
class Scores:
    """metrics: metric -> value, for every metric on the card. detail: JSON-ready, e.g. {"per_stage": {"res5": 63.6}}.
    data: dataset/split -> fingerprint of the images that were read. picture: what was found in a few test images, the
    bytes of a PNG, where there is something to see."""

    metrics: dict[str, float]
    detail: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    picture: bytes = b""


@dataclass(frozen=True)
class Context:
    """Where and how a transfer runs.

    workspace: a folder for checkpoints and cached features, shared with the other transfers of a backbone: each file's
               name must say what it depends on. What lies there may always be deleted; files `<card id>-*` are, once
               the record is written. It may not exist yet: benchmark.core.files.write_whole makes it.
    report:    takes (what, done, total, figures) for the progress display.
    engine:    which implementation was asked for; None for the transfer's default.
    """

    data_root: Path
    scale: Scale
    seed: int
    workspace: Path
    device: torch.device
    workers: int
    report: Callable[[str, int, int, dict[str, float]], None]
    engine: str | None = None


class Transfer:
    """Owns all its settings: the method under test cannot change them.

    engines: implementations of one protocol that agree, the default first; empty where there is just the one. The
             record's detail names the one that was used.
    """

    card: ProtocolCard
    engines: tuple[str, ...] = ()

    def chosen_engine(self, asked: str | None) -> str | None:
        """The engine that was asked for, or the default. Raises UserError if the transfer has no such engine."""
        if asked is None:
            return self.engines[0] if self.engines else None
        if asked not in self.engines:
            there = f"it has {', '.join(self.engines)}" if self.engines else "it has no engines to choose from"
            raise UserError(f"{self.card.id} has no engine {asked!r}; {there}")
        return asked

    def annotations(self, data_root: Path) -> dict[str, str]:
        """Name -> fingerprint of what the transfer reads beside the splits and lists on its card, e.g. boxes or masks.
        Raises UserError for what cannot be read."""
        return {}

    def run(self, backbone: Backbone, context: Context) -> Scores:
        """Score `backbone` (evaluation mode, strictly loaded). The same call again gives bitwise the same scores, also
        with another number of workers and after a kill."""
        raise NotImplementedError
