"""What a format promises: the layout of one project's files, where the encoder lies in them, and what it looks at; and
what a library reads.

Formats are module-level `WeightsFormat` values in benchmark/exchange/formats, libraries `ExportFormat` values in
benchmark/exchange/libraries. Both folders are scanned for them: one file each, whose name is the format's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmark.exchange.resnets import resnet_of
from benchmark.recipe.contract import Architecture
from benchmark.recipe.inputs import RGB, Colour

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class ForeignNetwork:
    """architecture: what builds it. weights: by the names that it has here. colour: what it looks at."""

    architecture: Architecture
    weights: State
    colour: Colour


@dataclass(frozen=True)
class Place:
    """Where an encoder may lie: in the dictionary below `keys`, under names that begin with `prefix`."""

    keys: tuple[str, ...] = ()
    prefix: str = ""

    def state(self, contents: Mapping[str, Any]) -> dict[str, Tensor]:
        """The tensors of that dictionary, the encoder's and those beside it; none where there is no such dictionary."""
        found: Any = contents
        for key in self.keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping):
            return {}
        return {str(key): value for key, value in found.items() if isinstance(value, Tensor)}

    def __str__(self) -> str:
        return ".".join((*self.keys, self.prefix))


def plain_resnet(state: State, path: Path) -> ForeignNetwork:
    """A ResNet by torchvision's names, of standardised RGB."""
    architecture, weights = resnet_of(state, path)
    return ForeignNetwork(architecture, weights, RGB())


@dataclass(frozen=True)
class WeightsFormat:
    """title:   whose files these are.
    places:  where the encoder may lie; the first at which there is one counts.
    first:   a key that tells it: the encoder's first weights, after the prefix. Several, where it has several forms.
    beside:  the first parts of the names of what is left out, beside the encoder. A file with anything else beside it
             is not taken for this format unless the user says so.
    network: from the encoder's tensors without the prefix to a network of ours. Raises UserError, naming the file, for
             one that there is none for.
    holds:   whether the rest of the file is as this project's files are.
    refuses: why a file of this project is none that can be taken, or "".
    """

    title: str
    places: tuple[Place, ...]
    first: tuple[str, ...] = ("conv1.weight",)
    beside: tuple[str, ...] = ("fc",)
    network: Callable[[State, Path], ForeignNetwork] = plain_resnet
    holds: Callable[[Mapping[str, Any]], bool] = lambda contents: True
    refuses: Callable[[Mapping[str, Any]], str] = lambda contents: ""

    def place_in(self, contents: Mapping[str, Any]) -> Place | None:
        """Where in the file the encoder lies; None if the file is none of this project's."""
        return next(
            (one for one in self.places if any(f"{one.prefix}{key}" in one.state(contents) for key in self.first)), None
        )

    def fits(self, contents: Mapping[str, Any]) -> bool:
        """Whether the file is one of this project's, as far as its keys tell."""
        place = self.place_in(contents)
        if place is None or not self.holds(contents):
            return False
        strange = [key for key in place.state(contents) if not key.startswith(place.prefix)]
        return all(first_part(key) in self.beside for key in strange)


def first_part(key: str) -> str:
    """ "module.queue_ptr" -> "queue_ptr": torch's data-parallel wrapper says nothing."""
    return key.removeprefix("module.").partition(".")[0]


@dataclass(frozen=True)
class Loading:
    """What a library must be told to load a file of ours: the network's depth, and its input's mean and standard
    deviation for each colour, in the library's own range."""

    path: Path
    depth: int
    mean: Sequence[float]
    std: Sequence[float]


@dataclass(frozen=True)
class ExportFormat:
    """suffix: of the file. write: from our weights to its bytes. hint: how the library is told to load it.
    white: the largest number of an image there."""

    suffix: str
    write: Callable[[State], bytes]
    hint: Callable[[Loading], str]
    white: int = 1
