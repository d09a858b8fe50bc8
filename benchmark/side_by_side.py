"""Work in several processes at a time, each with its share of the processor. Where steps are small, two processes on a
core each get more done than one on two cores."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from typing import TypeVar

import torch

from benchmark.engine import progress
from benchmark.errors import UserError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def side_by_side(work: Callable[[Item], Outcome], items: Iterable[Item], jobs: int) -> Iterator[tuple[Item, Outcome]]:
    """Each item with what `work` made of it, in the order in which they end; they begin in the order given. With one
    job, all is done in this process. Raises what `work` raises, and UserError where a process was killed."""
    if jobs == 1:
        yield from ((item, work(item)) for item in items)
        return
    threads = max(torch.get_num_threads() // jobs, 1)
    with ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (threads,)) as pool:
        begun = {pool.submit(work, item): item for item in items}
        try:
            for future in as_completed(begun):
                yield begun[future], future.result()
        except BrokenProcessPool as error:
            raise UserError(
                f"a process was killed, perhaps for lack of memory: try --jobs {jobs - 1}; what was done is kept"
            ) from error
        except KeyboardInterrupt:
            for child in active_children():
                child.terminate()
            raise


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    progress.share_terminal()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt ends it here and now; the one who waits says so
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """Not to outlive the process that began this one: what goes on unseen would hold its folder against a new start."""
    parent = parent_process()
    assert parent
    wait([parent.sentinel])
    os._exit(1)
