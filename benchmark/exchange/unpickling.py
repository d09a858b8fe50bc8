"""Pickles, read without running anything in them.

A pickle is a program: it names classes and functions, and calls them. Here it gets none of them. Tensors are put
together by functions of this file. An object of an unknown class, such as the hyper-parameters that Lightning keeps
beside its weights, becomes a `StandIn` that holds nothing and does nothing. A pickle that calls a function, or a class
of Python's own, wants to run code: it is refused.
"""

from __future__ import annotations

import pickle
import sys
from _compat_pickle import IMPORT_MAPPING as PYTHON_2  # its names of modules, which torch still writes
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from benchmark.core.errors import UserError

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
}
# Values that libraries pickle as calls. They say nothing of weights, so they become stand-ins like all else.
VALUES = {
    *("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib.PureWindowsPath"),
    *("pathlib._local.PosixPath", "pathlib._local.WindowsPath"),
    *("datetime.datetime", "datetime.date", "datetime.timedelta", "datetime.timezone", "collections.defaultdict"),
    *("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "torch.device"),
}
Storages = Callable[[tuple[Any, ...]], Tensor]


class InertUnpickler(pickle.Unpickler):
    """storages: what the pickle says of a storage, ("storage", dtype, key, device, numbers …) -> a flat tensor."""

    def __init__(self, file: BinaryIO, path: Path, storages: Storages) -> None:
        super().__init__(file, encoding="latin1")  # as wide as a byte, so that old pickles' text never fails
        self.path, self.storages = path, storages
        self.found: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Never imports anything."""
        whole = f"{PYTHON_2.get(module, module)}.{name}"
        if module in ("torch", "torch.storage") and name in DTYPES:
            return DTYPES[name]
        if module == "torch" and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        if whole not in self.found:
            self.found[whole] = HARMLESS.get(whole) or inert_class(whole, self.path)
        return self.found[whole]

    def persistent_load(self, saved_id: Any) -> Tensor:
        return self.storages(saved_id)


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


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _first(value: Any, *_: Any) -> Any:
    return value


def _encoded(text: str, *_: Any) -> bytes:
    return text.encode("latin1")


HARMLESS: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    **{f"builtins.{kind.__name__}": kind for kind in (set, frozenset, dict, list, tuple, complex, bytearray)},
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "copyreg._reconstructor": _blank,
    "_codecs.encode": _encoded,
}
