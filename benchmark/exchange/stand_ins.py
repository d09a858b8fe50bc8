"""What a pickle's objects become when nothing in it may run: stand-ins that hold nothing, and notes of tensors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmark.core.errors import UserError
from benchmark.exchange.harmless import VALUES


class Storage(NamedTuple):
    """So many numbers that the file keeps under `key`."""

    key: str
    dtype: torch.dtype
    numbers: int

    @property
    def nbytes(self) -> int:
        """Of all of them."""
        return self.numbers * self.dtype.itemsize


class StandIn:
    """In place of an object whose class is not known. It takes all that a pickle may give it, and keeps nothing."""

    stands_for = ""

    def __new__(cls, *_: Any, **__: Any) -> StandIn:
        return object.__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        pass

    extend = add = append


class StoredTensor(StandIn):
    """A tensor, as a note of where its numbers lie: from `offset` in the storage, both counted in numbers."""

    stands_for = "torch.Tensor"

    def __init__(
        self, storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], dtype: Any = None
    ) -> None:
        if not all(isinstance(number, int) for number in (offset, *size, *stride)):
            raise ValueError("a tensor whose place and shape are no numbers")
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride
        self.dtype: torch.dtype = dtype or storage.dtype


class CallableStandIn(type):
    """A pickle makes an object of a class without calling the class; only what it must run, it calls."""

    stands_for: str
    path: Path

    def __call__(cls, *_: Any, **__: Any) -> Any:
        if not _is_plain_class(cls.stands_for):
            raise UserError(
                f"{cls.path}: refused: this pickle calls {cls.stands_for}, so reading it the usual way would run code. "
                "Nothing of it was run. Weights need no calls: get the file from a source you trust, or have its "
                "owner save the state_dict alone, best as safetensors"
            )
        return StandIn.__new__(cls)  # type: ignore[arg-type]


def inert_class(name: str, path: Path) -> Any:
    """A class that stands for the one of that name, module.Class, in the file at `path`."""
    return CallableStandIn("StandIn", (StandIn,), {"stands_for": name, "path": path})


def _is_plain_class(name: str) -> bool:
    """Whether it may be called, which runs nothing here. Classes of other packages are written with a capital; calls
    that attacks are made of are functions, or classes of Python's own library."""
    package, own = name.partition(".")[0], name.rpartition(".")[2]
    return name in VALUES or (own[:1].isupper() and package not in sys.stdlib_module_names)
