"""Turns an image file into 8-bit RGB, the same way for every dataset, or raises a clear error that names the file.

The odd cases here are all real: ImageNet has CMYK and grey JPEGs, a PNG named .JPEG and broken EXIF blocks; YFCC has
empty, truncated, 16-bit and palette files, and comes as zips.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from benchmark.core.errors import UserError
from benchmark.data.findings import denied, printable
from benchmark.data.jpeg import decode_plain_jpeg
from benchmark.data.tars import tar_index

# A truncated file must fail: padded with grey, it would be trained on without anyone noticing.
ImageFile.LOAD_TRUNCATED_IMAGES = False

# What image datasets really contain. Pillow's other formats are never tried: some start external programs (EPS).
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
MAX_BYTES = 1 << 30  # one image; a larger file or zip member is a mistake or an attack
TOO_LARGE = f"larger than {MAX_BYTES >> 30} GiB"
ARCHIVE = re.compile(r"(.*?\.(?:zip|tar))/(.+)", re.DOTALL)
OPEN_ZIPS = 32  # per process; a directory of 1,000 members takes about 0.6 MB


class UnreadableImage(UserError):
    """An image that is missing, empty, cut off or not an image at all; `reason` says which."""

    reason = ""


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image. Hidden files are not: macOS leaves "._x.jpg" beside x.jpg."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")


def open_rgb(root: Path, file: str) -> Image.Image:
    """The image `root`/`file` as 8-bit RGB; "x.zip/y.jpg" is the member y.jpg of x.zip.

    EXIF orientation is ignored, as in every published protocol. Alpha is dropped, not blended. The pixels depend only
    on the file and the JPEG library that simplejpeg and Pillow were built with.
    """
    return decode_rgb(read_bytes(root, file), root, file)


def decode_rgb(data: bytes, root: Path, file: str) -> Image.Image:
    """The image in `data`, which `root`/`file` holds, as 8-bit RGB."""
    return _decoded(data, root, file, lambda: decode_plain_jpeg(data) or to_rgb(_opened(data)))


def open_as_stored(root: Path, file: str) -> Image.Image:
    """The image `root`/`file` with its own bits and channels, as a map of depths in millimetres needs them. Raises
    UnreadableImage as `open_rgb` does."""
    data = read_bytes(root, file)
    return _decoded(data, root, file, lambda: _opened(data).copy())


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _decoded(data: bytes, root: Path, file: str, decode: Callable[[], Image.Image]) -> Image.Image:
    if not data:
        raise unreadable(root, file, "the file is empty (0 bytes)")
    try:
        return decode()
    except MemoryError:
        raise  # says nothing about the file
    except Image.DecompressionBombError as error:
        raise unreadable(root, file, "its header claims far too many pixels (a decompression bomb)") from error
    except Exception as error:  # a broken file can raise nearly anything: OSError, SyntaxError, struct.error, ...
        raise unreadable(root, file, _reason(error)) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image as a new 8-bit RGB one. 16-bit grey is scaled by 255/65535; `convert` would clip it."""
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours as going straight to RGB, without Pillow's warning
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Modes I;16* and I (which Pillow uses for 16-bit PGM): v -> round(v / 257), so that 65535 becomes 255."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("pixels of more than 16 bits have no defined range")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def unreadable(root: Path, file: str, why: str) -> UnreadableImage:
    """The error for one bad image, with what to do about it."""
    error = UnreadableImage(
        f"{printable(str(root / file))}: not a usable image: {why}. Fetch it again, or run `sslbench doctor --data DIR "
        "--deep` (your own images: --images DIR): it finds every such file and lists them in unreadable.txt, so that "
        "runs leave them out and say so."
    )
    error.reason = why
    return error


def file_size(root: Path, file: str) -> int:
    """Bytes of the file, or of the enclosing archive for a member of one; -1 if there is none."""
    try:
        return (root / (split_archive(file)[0] if is_in_archive(root, file) else file)).stat().st_size
    except OSError:
        return -1


def is_in_archive(root: Path, file: str) -> bool:
    """Whether it is a member of an archive; a folder may be called like one."""
    archive, member = split_archive(file)
    return bool(member) and not _is_folder(root / archive)


@lru_cache(maxsize=1)  # the members of an archive come one after another
def _is_folder(path: Path) -> bool:
    return path.is_dir()


def content_hash(root: Path, file: str) -> str:
    """Changes with what the file holds; of a zip's member the checksum that stands in its directory. Empty for one that
    cannot be read."""
    archive, member = split_archive(file)
    try:
        if member and archive.endswith(".zip") and is_in_archive(root, file):
            return f"{open_zip(root / archive).getinfo(member).CRC:08x}"
        return hashlib.blake2b(read_bytes(root, file), digest_size=8).hexdigest()
    except (UnreadableImage, KeyError):
        return ""


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height; None if the image itself is bad, which the doctor reports elsewhere."""
    try:
        with Image.open(path) as image:
            return image.size
    except OSError:
        return None


def split_archive(file: str) -> tuple[str, str]:
    """ "A/B.zip/C.jpg" -> ("A/B.zip", "C.jpg"), and so of a .tar; a plain file has no member: ("x.jpg", "")."""
    found = ARCHIVE.match(file)
    return (found[1], found[2]) if found else (file, "")


def read_bytes(root: Path, file: str) -> bytes:
    """What the file or member of an archive holds. UnreadableImage if it is not there; UserError if it may not be
    read."""
    archive, member = split_archive(file)
    if archive.endswith(".tar") and member and (root / archive).is_file():
        return _read_from_tar(root, file, archive, member)
    if member and not archive.endswith(".tar"):
        return _read_member(root, file, archive, member)
    try:
        with open(root / file, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MAX_BYTES:
                raise unreadable(root, file, TOO_LARGE)
            # a larger limit would be allocated whole, at five times the time of reading; some mounts tell no size
            return stream.read(size or MAX_BYTES)
    except IsADirectoryError as error:
        raise unreadable(root, file, "it is a folder") from error
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL byte in the name
        what = "it is a link to what is not there" if (root / file).is_symlink() else "there is no such file"
        raise unreadable(root, file, what) from error
    except OSError as error:
        raise denied(root / file, error) from error


def _read_member(root: Path, file: str, archive: str, member: str) -> bytes:
    try:
        opened = open_zip(root / archive)
        info = opened.getinfo(member)
        if info.file_size > MAX_BYTES:
            raise unreadable(root, file, TOO_LARGE)
        return opened.read(info)
    except UserError:
        raise
    except KeyError as error:
        raise unreadable(root, file, f"the zip has no member {member}") from error
    except Exception as error:  # zlib.error, NotImplementedError, RuntimeError (encrypted), BadZipFile (checksum) ...
        raise unreadable(root, file, _reason(error)) from error


def _read_from_tar(root: Path, file: str, archive: str, member: str) -> bytes:
    """Where the member lies was found when the tar was listed; nothing is read before it."""
    place = tar_index(root / archive).get(member)
    if place is None:
        raise unreadable(root, file, f"the tar has no member {member}")
    offset, size = place
    if size > MAX_BYTES:
        raise unreadable(root, file, TOO_LARGE)
    try:
        with open(root / archive, "rb") as stream:
            stream.seek(offset)
            return stream.read(size)
    except OSError as error:
        raise denied(root / archive, error) from error


def open_zip(path: Path) -> zipfile.ZipFile:
    """The zip, its directory parsed; the last few are kept open. UnreadableImage if it is not there or not a zip."""
    try:
        return _open_zip(path, os.getpid())
    except FileNotFoundError as error:
        raise unreadable(path.parent, path.name, "there is no such zip") from error
    except zipfile.BadZipFile as error:
        raise unreadable(path.parent, path.name, f"not a zip ({_reason(error)})") from error
    except OSError as error:
        raise denied(path, error) from error


@lru_cache(maxsize=OPEN_ZIPS)
def _open_zip(path: Path, pid: int) -> zipfile.ZipFile:
    """`pid` is in the key because a forked worker must not share the parent's file offset: reads would get mixed up."""
    return zipfile.ZipFile(path)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "cannot identify image file" in text:  # the rest of the message is the address of a buffer
        return "not in a known image format"
    return text[:200]
