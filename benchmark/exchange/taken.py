"""What is taken of a file for a backbone, and what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from benchmark.exchange.contents import tensors_of
from benchmark.exchange.contract import ForeignNetwork, State, first_part

FEW = 8  # keys of one part that are told one by one


@dataclass(frozen=True)
class Taken:
    """state: the tensors of the dictionary with the network; some are left out. elsewhere: branch of the file -> how
    many tensors it has that are left out too."""

    format: str
    state: State
    elsewhere: Mapping[str, int]
    network: ForeignNetwork

    @property
    def dropped(self) -> list[str]:
        """The keys that are left out, by the names that they have beside the network. Many of one part are told as one,
        "encoder_k.* (320 tensors)", and so is all that lies elsewhere in the file, such as an optimizer's."""
        used = {id(tensor) for tensor in self.network.weights.values()}
        beside = [key for key, tensor in self.state.items() if id(tensor) not in used]
        count = Counter(first_part(key) for key in beside)
        shown = [key if count[part := first_part(key)] <= FEW else _as_one(part, count[part]) for key in beside]
        return [*dict.fromkeys(shown), *(_as_one(part, found) for part, found in self.elsewhere.items())]

    def unlike(self, other: Taken) -> Iterator[str]:
        """In what the two differ, if in anything."""
        ours, theirs = self.network, other.network
        if ours.colour != theirs.colour:
            yield "the input"
        names = ours.weights.keys() | theirs.weights.keys()
        is_same = all(ours.weights.get(name) is theirs.weights.get(name) for name in names)
        if ours.architecture != theirs.architecture or not is_same:
            yield "the network"
        if self.dropped != other.dropped:
            yield "what is left out"


def elsewhere_in(contents: Mapping[str, Any], way: Sequence[str]) -> dict[str, int]:
    """Branches off the way to the dictionary with the network, and below it -> how many tensors each has."""
    found: dict[str, int] = {}
    here: Mapping[str, Any] = contents
    for number in range(len(way) + 1):
        place, step = "".join(f"{key}." for key in way[:number]), [*way, None][number]
        for key, value in here.items():
            if key != step and (isinstance(value, Mapping) or (isinstance(value, Tensor) and step)):
                found[f"{place}{key}"] = len(list(tensors_of({key: value})))
        here = here[step] if step else {}
    return {branch: count for branch, count in found.items() if count}


def _as_one(part: str, count: int) -> str:
    return f"{part}.* ({count} tensors)"
