"""Pickles, read without running anything in them.

A pickle is a program: it names classes and functions, and calls them. Here it gets none of them. A tensor becomes a
note of where its numbers lie, so that nothing is allocated on a pickle's word. An object of an unknown class, such as
the hyper-parameters that Lightning keeps beside its weights, becomes a `StandIn` that holds nothing and does nothing. A
pickle that calls a function, or a class of Python's own, wants to run code: it is refused.
"""

from __future__ import annotations

import pickle
import sys
from _compat_pickle import IMPORT_MAPPING as PYTHON_2  # its names of modules, which torch still writes
from _compat_pickle import NAME_MAPPING as PYTHON_2_NAMES  # (module, name) there -> here: xrange is range
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from benchmark.core.errors import UserError
from benchmark.exchange.harmless import VALUES
from benchmark.exchange.printable import printable

DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
}


class Storage(NamedTuple):
    """`count` numbers that the file keeps under `key`."""

    key: str
    dtype: torch.dtype
    count: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.count * self.dtype.itemsize


class InertUnpickler(pickle.Unpickler):
    """most: bytes that all storages together may have; raises ValueError for a pickle that names more.
    storages: key -> storage, of all that it names."""

    def __init__(self, file: BinaryIO, path: Path, most: int) -> None:
        super().__init__(file, encoding="latin1")  # as wide as a byte, so that old pickles' text never fails
        self.path, self.left = path, most
        self.storages: dict[str, Storage] = {}
        self.found: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Never imports anything."""
        module, name = PYTHON_2_NAMES.get((module, name), (PYTHON_2.get(module, module), name))
        whole = printable(f"{module}.{name}")
        if module in ("torch", "torch.storage", "torch.cuda") and name in DTYPES:
            return DTYPES[name]
        if module == "torch" and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        if whole not in self.found:
            self.found[whole] = HARMLESS.get(whole) or inert_class(whole, self.path)
        return self.found[whole]

    def persistent_load(self, saved_id: Any) -> StoredTensor:
        """saved_id: ("storage", dtype, key, device, numbers), and in old files a view of it: (key, offset, numbers)."""
        _, dtype, key, _, count, *view = saved_id
        if not isinstance(dtype, torch.dtype) or not isinstance(count, int) or count < 0:
            raise ValueError("a storage of which neither type nor size is known")
        storage = self._known(Storage(str(key), dtype, count))
        offset, length = view[0][1:] if view and view[0] else (0, count)
        return StoredTensor(storage, offset, (length,), (1,))

    def _known(self, storage: Storage) -> Storage:
        if storage.key not in self.storages:
            self.left -= storage.size
            self.storages[storage.key] = storage
        if self.left < 0:
            raise ValueError("the tensors that it names are larger than the file")
        if self.storages[storage.key] != storage:
            raise ValueError(f"storage {printable(storage.key)} is described in two ways")
        return storage


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


class _Callable(type):
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
    return _Callable("StandIn", (StandIn,), {"stands_for": name, "path": path})


def _is_plain_class(name: str) -> bool:
    """Whether it may be called, which runs nothing here. Classes of other packages are written with a capital; calls
    that attacks are made of are functions, or classes of Python's own library."""
    package, own = name.partition(".")[0], name.rpartition(".")[2]
    return name in VALUES or (own[:1].isupper() and package not in sys.stdlib_module_names)


def _blank(kind: Any, *_: Any) -> Any:
    """As copyreg._reconstructor, of stand-ins alone."""
    return StandIn.__new__(kind) if isinstance(kind, _Callable) else {}  # type: ignore[arg-type]


def _ordered(*given: list[Any]) -> OrderedDict[Any, Any]:
    """Python 2 gives the items as a list of its own. It is emptied: one list given often would multiply."""
    found: OrderedDict[Any, Any] = OrderedDict()
    for items in given:
        found.update(items)
        items.clear()
    return found


def _tensor(whole: StoredTensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> StoredTensor:
    return StoredTensor(whole.storage, whole.offset + offset, size, stride)


def _retyped(
    whole: StoredTensor,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    _grad: Any,
    _hooks: Any,
    dtype: torch.dtype,
    *_: Any,
) -> StoredTensor:
    return StoredTensor(whole.storage, offset, size, stride, dtype)


def _of_type(build: Any, _: Any, arguments: tuple[Any, ...], *__: Any) -> Any:
    return build(*arguments)


def _first(value: Any, *_: Any) -> Any:
    return value


HARMLESS: dict[str, Any] = {
    "collections.OrderedDict": _ordered,
    "torch.Size": _first,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _retyped,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "copyreg._reconstructor": _blank,
}
