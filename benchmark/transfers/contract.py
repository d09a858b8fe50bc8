"""What a transfer promises: one protocol, named after the people who defined it, that scores a pretrained backbone.

Transfers are module-level `Transfer` values in this folder's files, which are scanned for them. A transfer's name is
the id on its card.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import torch

from benchmark.backbones.contract import Backbone
from benchmark.core.errors import UserError
from benchmark.core.own_images import OWN_IMAGES
from benchmark.core.plain import misfits
from benchmark.data.datasets import DATASETS, open_dataset
from benchmark.data.image_set import ImageSet
from benchmark.engine.method_file import TrainedMethod
from benchmark.recipe.scales import Scale, stand_in
from benchmark.records.metric import Metric

Values = TypeVar("Values")


@dataclass(frozen=True)
class ProtocolCard:
    """Everything a reader needs in order to know which number this is.

    id:       for example "linear_imagenet_pirl", never just "linear".
    version:  raised by any change that could move a score. Two versions never share a table column.
    metrics:  what each is by name, with the headline first, for example {"top1": PERCENT}.
    datasets: (name, split) pairs that the transfer reads, as open_dataset takes them: the last is scored, those before
              it train.
    shared:   why images of the last stand in those before it, where they do and are not trained on; else the transfer
              is refused.
    takes:    the architectures (benchmark.backbones) whose stages it is made for; it refuses all others. Empty:
              any, since it looks at the backbone's output alone.
    lists:    files below the data root that, if they exist, say which of those images are read. Numbers on different
              lists, or without a list, are different numbers.
    asks:     what it needs of the trained method (benchmark.method.Method.offers), since the backbone alone is not
              enough; it refuses runs of methods without.
    trains:   the backbone itself trains, so that one without weights is refused.
    frozen:   which part of the backbone does not train.
    selected: what is chosen (stage, cost, epoch), on which images, at each scale.
    departures: what differs from the paper or its code, a line each: "<scale>: <what>", where the scale is "paper",
              "desk", "every scale" and the like. docs/departures.md collects them.
    """

    id: str
    version: int
    title: str
    citation: str
    metrics: dict[str, Metric]
    datasets: tuple[tuple[str, str], ...]
    frozen: str
    selected: str
    takes: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    shared: str = ""
    trains: bool = False
    departures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if faults := list(misfits(self)):
            raise UserError(f"the card of {self.id}: {'; '.join(faults)}")
        if not self.metrics:
            raise UserError(f"the card of {self.id}: it has no metrics")

    def at(self, scale: Scale) -> ProtocolCard:
        """The card with the datasets that are read at that scale, and the lists beside them."""
        homes = {
            f"{DATASETS[name].HOME}/": f"{DATASETS[stand_in(name, scale)].HOME}/"
            for name, _ in self.datasets
            if name in DATASETS
        }
        return replace(
            self,
            datasets=tuple((stand_in(name, scale), split) for name, split in self.datasets),
            lists=tuple(_moved(name, homes) for name in self.lists),
        )

    def on_own_images(self, label: str) -> ProtocolCard:
        """The card with the user's own images in ImageNet's place, or Tiny ImageNet's: a protocol of its own, which no
        table has. Raises UserError for one that reads anything else."""
        read = {name for name, _ in self.datasets}
        if len(read) != 1 or not read <= {"imagenet", "tiny_imagenet"}:
            raise UserError(
                f"{self.id} reads {', '.join(sorted(read)) or 'no images'}; --images takes the place of ImageNet, as "
                "in linear_imagenet_pirl, knn_imagenet_wu or semi_supervised_10pct_pirl"
            )
        home = f"{DATASETS[read.pop()].HOME}/"
        return replace(
            self,
            id=f"{self.id}@images={label}",
            title=f"{self.title}, on {label} in its place",
            datasets=tuple((OWN_IMAGES, split) for _, split in self.datasets),
            lists=tuple(name.removeprefix(home) for name in self.lists),
        )

    @property
    def for_whom(self) -> str:
        """What it takes and asks for, in words."""
        able = f" that can {' and '.join(self.asks)}" if self.asks else ""
        return (", ".join(self.takes) or "any") + able

    def refusal(self, architecture: str, offered: Collection[str], weightless: bool = False) -> str:
        """Why it cannot score a run with such a backbone, whose method offers so much; empty where it can."""
        if self.takes and architecture not in self.takes:
            return f"{self.id} is made for the stages of {' or '.join(self.takes)}, not of {architecture}"
        if self.trains and weightless:
            return f"{self.id} trains the backbone, and {architecture} has no weights to train"
        if missing := [name for name in self.asks if name not in offered]:
            has = f"offers {', '.join(offered)}" if offered else "offers nothing to be asked for"
            return f"{self.id} asks the trained method for {' and '.join(missing)}; this run's method {has}"
        return ""


def values_at(scale: Scale, values: Mapping[Scale, Values], card: ProtocolCard) -> Values:
    """The protocol's values there. UserError where it has none, as one that was written before the scale was."""
    if scale not in values:
        raise UserError(f"{card.id} has no values for {scale} scale, only for {', '.join(values)}; give it some")
    return values[scale]


def _moved(name: str, homes: Mapping[str, str]) -> str:
    for old, new in homes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


@dataclass(frozen=True)
class Scores:
    """What one scoring gives.

    metrics: metric -> value, for every metric on the card.
    detail:  more values, ready for JSON, for example {"per_stage": {"res5": 63.6}}. With what each test image
             contributes (benchmark.records.per_image), tables can compare two networks image by image.
    data:    dataset/split -> fingerprint of the images that were read.
    picture: the bytes of a PNG that shows what was found in a few test images; empty if there is nothing to see.
    """

    metrics: dict[str, float]
    detail: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    picture: bytes = b""


@dataclass(frozen=True)
class Context:
    """Where and how a transfer runs.

    workspace: a folder for checkpoints and cached features. A backbone's transfers share it, so each file's name must
               say what the file depends on. Its files may be deleted at any time; those called `<card id>-*` are
               deleted once the record is written. If the folder is missing, benchmark.core.files.write_whole makes it.
    report:    takes (what, done, total, figures) for the progress display.
    engine:    which implementation was asked for; None means the transfer's default.
    trained:   the trained method, for a transfer whose card asks something of it.
    """

    data_root: Path
    scale: Scale
    seed: int
    workspace: Path
    device: torch.device
    workers: int
    report: Callable[[str, int, int, dict[str, float]], None]
    engine: str | None = None
    trained: TrainedMethod | None = None


class Transfer:
    """One protocol with all its settings. The method under test cannot change them.

    engines: implementations of the protocol that agree with each other, the default first; empty if there is only one.
             The record's detail names the one that ran.
    depends_on_processes: whether several processes of torchrun, which share its work, come to other scores than one.
             What only reads a frozen backbone gives the bits of one on a CPU (benchmark.transfers.turns); what trains a
             network together does not (benchmark.transfers.training). `run` runs on all, and gives the same on all.
    """

    card: ProtocolCard
    engines: tuple[str, ...] = ()
    depends_on_processes: bool = True

    def chosen_engine(self, asked: str | None) -> str | None:
        """The engine that was asked for, or the default one. Raises UserError if the transfer has no such engine."""
        if asked is None:
            return self.engines[0] if self.engines else None
        if asked not in self.engines:
            there = f"it has {', '.join(self.engines)}" if self.engines else "it has no engines to choose from"
            raise UserError(f"{self.card.id} has no engine {asked!r}; {there}")
        return asked

    def on_own_images(self, label: str) -> Self:
        """The same protocol on the user's own images, which are called so. Raises UserError as its card does."""
        twin = copy.copy(self)
        twin.card = self.card.on_own_images(label)
        return twin

    def image_sets(self, context: Context) -> list[ImageSet]:
        """The card's datasets, or what stands in for them at the context's scale."""
        return [open_dataset(context.data_root, *dataset) for dataset in self.card.at(context.scale).datasets]

    def annotations(self, data_root: Path) -> dict[str, str]:
        """Name -> fingerprint of what the transfer reads besides the splits and lists on its card, for example boxes or
        masks. Raises UserError if something cannot be read."""
        return {}

    def shortfalls(self, data_root: Path) -> dict[str, str]:
        """Name -> what is missing of a list of images that it reads besides the splits on its card, by the counts of
        the complete one (benchmark.data.completeness.counted)."""
        return {}

    def absent(self, data_root: Path, test: ImageSet) -> tuple[str, ...]:
        """The classes that nothing in the test images could score. test: the last of the card's datasets."""
        return () if test.labels is None else test.labels.absent()

    def run(self, backbone: Backbone, context: Context) -> Scores:
        """Score `backbone`, which is strictly loaded and in evaluation mode. The same call gives the same scores, bit
        for bit, also with another number of workers and after being killed."""
        raise NotImplementedError
