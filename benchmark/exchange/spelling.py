"""Text from somebody else's file, for a terminal."""

from __future__ import annotations


def spelled_out(text: str) -> str:
    r"""The same with every character that steers a terminal, or is not shown, written out: "\x1b"."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
