"""Pickles, read without running anything in them.

A pickle is a program: it names classes and functions, and calls them. Here it gets none of them. A tensor becomes a
note of where its numbers lie, so that nothing is allocated on a pickle's word. An object of an unknown class, such as
the hyper-parameters that Lightning keeps beside its weights, becomes a `StandIn` that holds nothing and does nothing. A
pickle that calls a function, or a class of Python's own, wants to run code: it is refused.
"""

from __future__ import annotations

import pickle
from _compat_pickle import IMPORT_MAPPING as PYTHON_2  # its names of modules, which torch still writes
from _compat_pickle import NAME_MAPPING as PYTHON_2_NAMES  # (module, name) there -> here: xrange is range
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import torch

from benchmark.exchange.keys import require_short
from benchmark.exchange.spelling import spelled_out
from benchmark.exchange.stand_ins import CallableStandIn, StandIn, Storage, StoredTensor, inert_class

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


INSTRUCTIONS = pickle._Unpickler.dispatch
HASHES = {  # instruction -> where on the stack lie the keys that it looks up
    pickle.SETITEM: slice(-2, -1),
    pickle.SETITEMS: slice(None, None, 2),
    pickle.DICT: slice(None, None, 2),
    pickle.ADDITEMS: slice(None),
    pickle.FROZENSET: slice(None),
}


def _looking_at(keys: slice, instruction: Callable[[Any], None]) -> Callable[[Any], None]:
    def looked_at(unpickler: Any) -> None:
        require_short(unpickler.stack[keys])
        instruction(unpickler)

    return looked_at


class InertUnpickler(pickle._Unpickler):
    """The one that is written in Python, since no other lets its keys be looked at before they are hashed.

    most: bytes that all storages together may have; raises ValueError for a pickle that names more.
    storages: key -> storage, of all that it names."""

    dispatch: ClassVar = {
        **INSTRUCTIONS,
        **{code[0]: _looking_at(keys, INSTRUCTIONS[code[0]]) for code, keys in HASHES.items()},
    }

    def __init__(self, file: BinaryIO, path: Path, most: int) -> None:
        super().__init__(file, encoding="latin1")  # as wide as a byte, so that old pickles' text never fails
        self.path, self.left = path, most
        self.storages: dict[str, Storage] = {}
        self.found: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Never imports anything."""
        module, name = PYTHON_2_NAMES.get((module, name), (PYTHON_2.get(module, module), name))
        whole = spelled_out(f"{module}.{name}")
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
        if not (
            isinstance(dtype, torch.dtype) and isinstance(key, str | int) and isinstance(count, int) and count >= 0
        ):
            raise ValueError("a storage whose name, type or size is none")
        storage = self._known(Storage(str(key), dtype, count))
        offset, length = view[0][1:] if view and view[0] else (0, count)
        return StoredTensor(storage, offset, (length,), (1,))

    def _known(self, storage: Storage) -> Storage:
        if storage.key not in self.storages:
            self.left -= storage.nbytes
            self.storages[storage.key] = storage
        if self.left < 0:
            raise ValueError("the tensors that it names are larger than the file")
        if self.storages[storage.key] != storage:
            raise ValueError(f"storage {spelled_out(storage.key)} is described in two ways")
        return storage


def _blank(kind: Any, *_: Any) -> Any:
    """As copyreg._reconstructor, of stand-ins alone."""
    return StandIn.__new__(kind) if isinstance(kind, CallableStandIn) else {}  # type: ignore[arg-type]


def _ordered(*given: list[tuple[Any, Any]]) -> OrderedDict[Any, Any]:
    """Python 2 gives the items as a list of its own. It is emptied: one list given often would multiply."""
    found: OrderedDict[Any, Any] = OrderedDict()
    for items in given:
        require_short(key for key, _ in items)
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
