"""The one exception a user is meant to read: what is wrong, where, and what to do about it."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Bad input. The message names the file, key or flag at fault and says how to fix it; the command line prints it
    without a traceback and exits with status 2."""


REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free space {there}"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "make sure that you may write {there}, or choose another place"),
    errno.EROFS: "choose another place, since what is mounted there is read-only",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files, e.g. ulimit -n 4096"),
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
        "choose another path: a file stands where a folder must be, or a folder where a file must",
    ),
    **dict.fromkeys(
        (errno.EAGAIN, errno.ENOMEM), "end other programs: this machine has too little memory or too many processes"
    ),
    **dict.fromkeys(
        (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP),
        "choose another place, since the file system there does not offer that",
    ),
}


def remedy(error: OSError, there: str = "there") -> str:
    """What to do about it, for the end of a message that names the place and error.strerror."""
    return REMEDIES.get(error.errno or 0, "check the disk and its file system").format(there=there)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message about a name that does not exist: similar names that do, or nothing."""
    close = get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" (did you mean {', '.join(close)}?)" if close else ""
