"""What a file of weights holds: the nested dictionary that it was saved as. No code in it is run.

Read are safetensors, and what torch.save writes: the zip of today and the stream of before torch 1.6. torch's own
reader for weights alone would do as it is told by calls such as bytearray(2**30), and unpacks what is compressed; so
pickles are read by benchmark.exchange.unpickling alone.
"""

from __future__ import annotations

import hashlib
import io
import pickletools
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from benchmark.core.errors import UserError, remedy
from benchmark.exchange.plain_contents import PlainContents
from benchmark.exchange.spelling import spelled_out
from benchmark.exchange.stand_ins import StandIn, Storage
from benchmark.exchange.unpickling import InertUnpickler

ZIP = b"PK\x03\x04"
MAGIC = 0x1950A86A20F9469CFC6C  # with which torch.save's older files begin
SAVE_AGAIN = "save the network's state_dict() and import that"


def read_contents(path: Path) -> tuple[dict[str, Any], str]:
    """(the file's dictionary of dictionaries, tensors and other values, tensors on the CPU; the SHA-256 of the bytes
    that it was read from). Raises UserError, naming the file, for one that is not there, is damaged or cut off, wants
    to run code, or holds no dictionary."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            file.seek(0)
            whole = _whole(file, path, size)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {remedy(error)}") from error
    if isinstance(whole, StandIn):
        raise UserError(f"{path}: holds an object of {whole.stands_for}, whose code is not run; {SAVE_AGAIN}")
    if not isinstance(whole, dict):
        raise UserError(f"{path}: holds a {type(whole).__name__}, not a dictionary of weights; {SAVE_AGAIN}")
    return whole, digest


def tensors_of(contents: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """(dotted key, tensor) of every tensor, dictionaries in dictionaries too; in the file's order. A dictionary that
    lies in several places is gone through once, at the first."""
    return _tensors_below(contents, "", set())


def _tensors_below(contents: Mapping[str, Any], place: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    for key, value in contents.items():
        if isinstance(value, Tensor):
            yield f"{place}{key}", value
        elif isinstance(value, Mapping) and id(value) not in seen:
            seen.add(id(value))
            yield from _tensors_below(value, f"{place}{key}.", seen)


def _whole(file: BinaryIO, path: Path, size: int) -> Any:
    head = file.read(9)
    file.seek(0)
    try:
        if _is_safetensors(head, size):
            return {spelled_out(key): tensor for key, tensor in load(file.read()).items()}
        return _from_zip(file, path, size) if head.startswith(ZIP) else _from_stream(file, path, size)
    except UserError:
        raise
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); fetch it again") from error
    except zipfile.BadZipFile as error:
        told = spelled_out(str(error))
        raise UserError(f"{path}: a zip that is cut off or damaged ({told}); fetch it again") from error
    except Exception as error:  # a hostile file may fail in any way
        told = spelled_out(f"{type(error).__name__}: {error}")
        raise UserError(f"{path}: damaged, or no file of weights ({told}); fetch it again, or {SAVE_AGAIN}") from error


def _is_safetensors(head: bytes, size: int) -> bool:
    """It begins with the length of a header in JSON."""
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= size


def _from_zip(file: BinaryIO, path: Path, size: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickled = next((name for name in names if name.split("/")[1:] == ["data.pkl"]), "")
        if not pickled:
            raise UserError(f"{path}: a zip that torch.save did not write; unpack it, and import what is in it")
        root = pickled.removesuffix("data.pkl")
        if f"{root}constants.pkl" in names:
            raise UserError(f"{path}: a TorchScript program, whose code is not run; {SAVE_AGAIN}")
        _check_stored(archive, size)
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers are not written with the low byte first")

        def numbers(storage: Storage) -> Tensor:
            return _flat(archive.read(f"{root}data/{storage.key}"), storage)

        unpickler = _unpickler(io.BytesIO(archive.read(pickled)), path, size)
        return PlainContents(numbers, path).of(unpickler.load())


def _check_stored(archive: zipfile.ZipFile, size: int) -> None:
    """torch compresses nothing, so that what is compressed may be a bomb; so may members that share their bytes."""
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{info.filename} is compressed")
    if sum(info.file_size for info in archive.infolist()) > size:
        raise ValueError("its members are larger than the file")


def _flat(content: bytes, storage: Storage) -> Tensor:
    if len(content) != storage.nbytes:
        raise ValueError(
            f"a storage of {len(content)} bytes stands for {storage.numbers} numbers of {storage.dtype}; it is cut off"
        )
    return torch.frombuffer(bytearray(content), dtype=storage.dtype) if content else torch.empty(0, dtype=storage.dtype)


def _unpickler(file: BinaryIO, path: Path, size: int) -> InertUnpickler:
    """Python's own keeps what it may need again in a table, which it makes as long as the pickle says."""
    start = file.tell()
    if any("PUT" in code.name and number > size for code, number, _ in pickletools.genops(file) if number is not None):
        raise ValueError("it keeps more values than it has")
    file.seek(start)
    return InertUnpickler(file, path, size)


def _from_stream(file: BinaryIO, path: Path, size: int) -> Any:
    """Magic number, version, machine; the object, with its storages named; the storages one after the other."""
    if _unpickler(file, path, size).load() != MAGIC:
        raise UserError(f"{path}: a pickle that torch.save did not write; {SAVE_AGAIN}")
    _unpickler(file, path, size).load()  # the version
    machine = _unpickler(file, path, size).load()
    if not machine["little_endian"]:
        raise ValueError("its numbers are not written with the low byte first")
    unpickler = _unpickler(file, path, size)
    whole = unpickler.load()
    order = _unpickler(file, path, size).load()
    if not all(isinstance(key, str | int) for key in order):
        raise ValueError("a storage whose name is none")
    found = {str(key): _next_storage(unpickler.storages[str(key)], file) for key in order}
    return PlainContents(lambda storage: found[storage.key], path).of(whole)


def _next_storage(storage: Storage, file: BinaryIO) -> Tensor:
    (count,) = struct.unpack("<q", file.read(8))
    if count != storage.numbers:
        raise ValueError(f"storage {storage.key} has {count} numbers, not {storage.numbers}")
    return _flat(file.read(storage.nbytes), storage)
