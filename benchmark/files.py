"""Files appear whole, and are known by their bytes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from benchmark.errors import UserError


def write_whole(path: Path, content: bytes) -> None:
    """Write under a temporary name in the same folder, flush to disk, then rename: a reader never sees half a file, and
    a full disk leaves the old file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise UserError(f"{path}: could not be written ({error.strerror}); free space there and run again") from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def file_hash(path: Path) -> str:
    """Twelve hex digits of the file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
