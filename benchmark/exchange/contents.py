"""What a file of weights holds: the nested dictionary that it was saved as. No code in it is run.

Read are safetensors, and what torch.save writes: the zip of today and the stream of before torch 1.6. torch's own
reader for weights alone goes first; files that hold more than weights, such as Lightning's, are read by
benchmark.exchange.unpickling.
"""

from __future__ import annotations

import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from benchmark.core.errors import UserError, remedy
from benchmark.exchange.unpickling import InertUnpickler, StandIn

ZIP = b"PK\x03\x04"
MAGIC = 0x1950A86A20F9469CFC6C  # with which torch.save's older files begin
SAVE_AGAIN = "save the network's state_dict() and import that"


def read_contents(path: Path) -> dict[str, Any]:
    """The file's dictionary, tensors on the CPU. Raises UserError, naming the file, for one that is not there, is
    damaged or cut off, wants to run code, or holds no dictionary."""
    head = _head(path)
    whole = _safetensors(path) if _is_safetensors(head, path) else _trusted(path)
    if whole is None:
        whole = _inert(path, head.startswith(ZIP))
    if isinstance(whole, StandIn):
        raise UserError(f"{path}: holds an object of {whole.stands_for}, whose code is not run; {SAVE_AGAIN}")
    if not isinstance(whole, Mapping):
        raise UserError(f"{path}: holds a {type(whole).__name__}, not a dictionary of weights; {SAVE_AGAIN}")
    return dict(whole)


def tensors_of(contents: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Tensor]]:
    """(dotted key, tensor) of every tensor, dictionaries in dictionaries too; in the file's order."""
    for key, value in contents.items():
        if isinstance(value, Tensor):
            yield f"{place}{key}", value
        elif isinstance(value, Mapping):
            yield from tensors_of(value, f"{place}{key}.")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(9)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy(error)}") from error


def _is_safetensors(head: bytes, path: Path) -> bool:
    """It begins with the length of a header in JSON."""
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); fetch it again") from error


def _trusted(path: Path) -> Any:
    """What torch's own reader of weights makes of it; None where it takes offence, at whatever: the other reader knows
    what to say."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of what it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a hostile file may make it fail in any way
        return None


def _inert(path: Path, is_zip: bool) -> Any:
    try:
        return _from_zip(path) if is_zip else _from_stream(path)
    except UserError:
        raise
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: a zip that is cut off or damaged ({error}); fetch it again") from error
    except Exception as error:  # a hostile file may fail in any way
        told = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: damaged, or no file of weights ({told}); fetch it again, or {SAVE_AGAIN}") from error


def _from_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        pickled = next((name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]), "")
        if not pickled:
            raise UserError(f"{path}: a zip that torch.save did not write; unpack it, and import what is in it")
        root = pickled.removesuffix("data.pkl")
        if f"{root}constants.pkl" in archive.namelist():
            raise UserError(f"{path}: a TorchScript program, whose code is not run; {SAVE_AGAIN}")

        def storages(saved_id: tuple[Any, ...]) -> Tensor:
            _, dtype, key, _, count = saved_id
            return _flat(_stored(archive, f"{root}data/{key}"), dtype, count)

        with archive.open(_as_it_is(archive, pickled)) as file:
            return InertUnpickler(file, path, storages).load()  # type: ignore[arg-type]


def _as_it_is(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """torch compresses nothing, so that what is compressed may be a bomb."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return info


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    return archive.read(_as_it_is(archive, name))


def _flat(content: bytes, dtype: torch.dtype, count: int) -> Tensor:
    if len(content) != count * dtype.itemsize:
        raise ValueError(f"a storage of {len(content)} bytes stands for {count} numbers of {dtype}")
    return torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _from_stream(path: Path) -> Any:
    """Magic number, version, machine; the object, with its storages named; the storages one after the other."""
    found: dict[Any, Tensor] = {}
    size = path.stat().st_size

    def storages(saved_id: tuple[Any, ...]) -> Tensor:
        _, dtype, key, _, count, view = saved_id
        if count * dtype.itemsize > size:
            raise ValueError(f"a storage of {count} numbers is more than the file")
        whole = found.setdefault(key, torch.zeros(count, dtype=dtype))
        return whole if view is None else whole[view[1] : view[1] + view[2]]

    def none(_: Any) -> Tensor:
        raise ValueError("a tensor where there can be none")

    with path.open("rb") as file:
        if InertUnpickler(file, path, none).load() != MAGIC:
            raise UserError(f"{path}: a pickle that torch.save did not write; {SAVE_AGAIN}")
        for _ in ("version", "machine"):
            InertUnpickler(file, path, none).load()
        whole = InertUnpickler(file, path, storages).load()
        for key in InertUnpickler(file, path, none).load():
            _fill(found[key], file)
    return whole


def _fill(storage: Tensor, file: BinaryIO) -> None:
    (count,) = struct.unpack("<q", file.read(8))
    content = file.read(len(storage) * storage.itemsize)
    if count != len(storage) or len(content) != len(storage) * storage.itemsize:
        raise EOFError("the file ends in the middle of its weights")
    storage.copy_(_flat(content, storage.dtype, count))
