"""Processes that end with the one that started them. Imports no torch."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """By themselves, processes of a pool outlive a parent that is killed: they wait for work forever, or hold the
    folder they work in against the next start."""
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
