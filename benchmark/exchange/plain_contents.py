"""From what a pickle built to plain dictionaries with tensors in them, that end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmark.core.errors import UserError
from benchmark.exchange.harmless import UNLIKE
from benchmark.exchange.spelling import spelled_out
from benchmark.exchange.stand_ins import StandIn, Storage, StoredTensor

DEEPEST = 50  # dictionaries in dictionaries


class PlainContents:
    """numbers: from a storage to its numbers, a flat tensor; it is asked once for each storage."""

    def __init__(self, numbers: Callable[[Storage], Tensor], path: Path) -> None:
        self.numbers, self.path = numbers, path
        self.storages: dict[str, Tensor] = {}
        self.known: dict[int, dict[str, Any] | None] = {}  # id of a dictionary -> what became of it; None: not yet

    def of(self, found: Any, place: str = "", depth: int = 0) -> Any:
        """Dictionaries and tensors are made; all else stays as it is. One dictionary in several places becomes one.
        Raises UserError for tensors that are no rows of numbers, ValueError for dictionaries without an end."""
        if isinstance(found, dict):
            return self._dictionary(found, place, depth)
        if isinstance(found, StoredTensor):
            return self._tensor(found)
        if isinstance(found, StandIn) and (kind := UNLIKE.get(found.stands_for)):
            raise UserError(f"{self.path}: {place or 'what it holds'} is {kind}; save ordinary tensors alone")
        return found

    def _dictionary(self, found: dict[Any, Any], place: str, depth: int) -> dict[str, Any]:
        if id(found) not in self.known:
            if depth > DEEPEST:
                raise ValueError(f"dictionaries lie in each other more than {DEEPEST} deep")
            self.known[id(found)] = None
            # of the class, since a pickle may give its own `items` to an OrderedDict
            plain = {
                (name := _name(key, number)): self.of(one, f"{place}.{name}".lstrip("."), depth + 1)
                for number, (key, one) in enumerate(dict.items(found))
            }
            if len(plain) < len(found):
                raise ValueError(f"two keys of one name in {place or 'its dictionary'}")
            self.known[id(found)] = plain
        known = self.known[id(found)]
        if known is None:
            raise ValueError(f"the dictionary at {place} holds itself")
        return known

    def _tensor(self, found: StoredTensor) -> Tensor:
        key = found.storage.key
        if key not in self.storages:
            self.storages[key] = self.numbers(found.storage)
        flat = self.storages[key]
        flat = flat if flat.dtype == found.dtype else flat.view(found.dtype)
        return flat.as_strided(found.size, found.stride, found.offset)


def _name(key: Any, number: int) -> str:
    """Of a key, as it is shown. Keys that are no text or number are called by their place."""
    return spelled_out(key) if isinstance(key, str) else f"{key}" if isinstance(key, int) else f"#{number}"
