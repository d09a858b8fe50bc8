"""Writes files so that they appear whole, and hashes them."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from benchmark.core.errors import UserError, remedy


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write under a temporary name in the same folder, flush to disk, then rename: a reader never sees half a file, and
    a full disk leaves the old file as it was."""
    temporary = path.parent / f".{path.name}.{uuid4().hex[:8]}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:  # gets a new file's usual permissions, unlike tempfile's
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # whatever kept it from being written may keep it from being removed
            temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: could not be written ({error.strerror}); {remedy(error)}, then run again") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def require_folder(path: Path, given_as: str) -> None:
    """Raises UserError, naming flag and path, unless `path` is a folder or can become one: before the work, not after
    it. Whether it may be written to shows when it is."""
    for there in (path, *path.absolute().parents):
        try:
            there.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UserError(f"{given_as} {path}: {error.strerror}; give another folder") from error
        if not there.is_dir():
            raise UserError(f"{given_as} {path}: {there} is a file, or a link that leads nowhere; give another folder")
        return


def clear_unfinished(folder: Path) -> None:
    """Remove the temporary files that a killed `write_whole` left anywhere below `folder`. Call it only while no other
    process writes there: its unfinished files look the same."""
    for path in list(folder.rglob(".*")):
        if re.fullmatch(r"\..+\.[0-9a-f]{8}", path.name):
            path.unlink(missing_ok=True)


def file_hash(path: Path) -> str:
    """The first twelve hex digits of the SHA-256 of the file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
