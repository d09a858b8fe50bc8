"""The one exception a user is meant to read: what is wrong, where, and what to do about it."""


class UserError(Exception):
    """Bad input. The message names the file, key or flag at fault and the mend; the command line prints it without a
    traceback and exits with status 2."""
