"""Where in a tar each file lies, so that any of them can be read without what comes before it."""

from __future__ import annotations

import tarfile
from collections.abc import Collection
from functools import cache
from pathlib import Path

from benchmark.data.findings import bad, denied, printable

PACK = "Fetch the tar again, or pack it again with `tar -cf`."
UNLINK = "Pack what it leads to: `tar -chf TAR --hard-dereference FOLDER`."
BLOCK = 512


@cache
def tar_index(path: Path) -> dict[str, tuple[int, int]]:
    """Name -> (offset, bytes) of every plain file in a tar that is not compressed. About 300 bytes a file; read once in
    each process, and loader processes have it from the one that started them.

    BadData for a tar that is cut off, compressed or damaged, that has a link, two files of one name, or one that
    would be unpacked to elsewhere.
    """
    found: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.issym() or member.islnk():
                    raise bad(f"{path}, member {member.name}", "is a link, and links are not followed", UNLINK)
                if not member.isfile():
                    continue
                name = _plain(member.name)
                check_member(path, name, found)
                found[name] = (member.offset_data, member.size)
            end = tar.offset
    except tarfile.TarError as error:
        raise bad(path, f"cannot be read as a tar ({error}); it is cut off, compressed or damaged", PACK) from error
    except OSError as error:
        raise denied(path, error) from error
    _check_end(path, end)
    return found


def _plain(name: str) -> str:
    """a/b.jpg for ./a/b.jpg, as `tar -C DIR .` calls it."""
    below = "/".join(part for part in name.split("/") if part not in ("", "."))
    return f"/{below}" if name.startswith("/") else below


def check_member(path: Path, name: str, others: Collection[str]) -> None:
    """BadData for a name that leads out of its archive, or that another member has: only one would ever be read."""
    if name.startswith("/") or ".." in name.replace("\\", "/").split("/"):
        what = f"{printable(name)!r} points outside of the archive"
        raise bad(f"{path}, member {name}", what, "Such an entry is an error or an attack: pack the images again.")
    if name in others:
        raise bad(path, f"holds two files called {name}", "Give one of the two another name, and pack them again.")


def _check_end(path: Path, end: int) -> None:
    """A tar ends with empty blocks. Cut off between two files it would only seem to be shorter."""
    with path.open("rb") as stream:
        stream.seek(end)
        if stream.read(BLOCK) != bytes(BLOCK):
            raise bad(path, "does not end as a tar does; it is cut off or damaged", PACK)
