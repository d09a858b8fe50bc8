"""Work in several processes at a time, each with its share of the processor. Where steps are small, two processes on a
core each get more done than one on two cores."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

from benchmark.core.errors import UserError
from benchmark.core.processes import end_with_parent
from benchmark.engine import progress

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def side_by_side(work: Callable[[Item], Outcome], items: Sequence[Item], jobs: int) -> Iterator[tuple[Item, Outcome]]:
    """Each item with what `work` made of it, in the order in which they end; they begin in the order given. With one
    job, or one item, all is done in this process.

    Raises what `work` raises, and UserError where a process was killed; what still works then is ended too.
    """
    jobs = min(jobs, len(items))
    if jobs <= 1:
        yield from ((item, work(item)) for item in items)
        return
    threads = max(torch.get_num_threads() // jobs, 1)
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (threads,))
    try:
        begun = {pool.submit(work, item): item for item in items}
        for future in as_completed(begun):
            yield begun[future], future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process ended unexpectedly: killed, perhaps for lack of memory, or crashed as said above. What was done "
            "is kept, and the same command goes on there; --jobs 1 (make: JOBS=1) needs least memory"
        ) from error
    except BaseException:
        for child in active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    threadpool_limits(threads)  # numpy's
    progress.share_terminal()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt ends it here and now; the one who waits says so
    end_with_parent()
