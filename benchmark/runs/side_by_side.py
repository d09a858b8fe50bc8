"""Work in several processes at a time, each with its share of the processor. Where steps are small, two processes on a
core each get more done than one on two cores."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from graphlib import TopologicalSorter
from multiprocessing import active_children
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

from benchmark.core.errors import UserError
from benchmark.core.processes import process_pool
from benchmark.core.standard_streams import keep_writable
from benchmark.engine import progress

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def side_by_side(
    work: Callable[[Item], Outcome],
    items: Sequence[Item],
    jobs: int,
    needs: Mapping[Item, Collection[Item]] | None = None,
) -> Iterator[tuple[Item, Outcome]]:
    """Each item with what `work` made of it, in the order in which they end. They begin in the order given, but none
    before the other items that it needs have ended. With one job, or one item, all is done in this process.

    Raises what `work` raises, and UserError where a process was killed; what still works then is ended too.
    """
    order = _sorted(items, needs or {})
    jobs = min(jobs, len(items))
    if jobs <= 1:
        yield from ((items[place], work(items[place])) for place in order.static_order())
        return
    threads = max(torch.get_num_threads() // jobs, 1)
    pool = process_pool(jobs, _begin, threads)
    begun: dict[Future[Outcome], int] = {}
    order.prepare()
    try:
        while order.is_active():
            begun |= {pool.submit(work, items[place]): place for place in order.get_ready()}
            for future in wait(begun, return_when=FIRST_COMPLETED).done:
                place = begun.pop(future)
                order.done(place)
                yield items[place], future.result()
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


def _sorted(items: Sequence[Item], needs: Mapping[Item, Collection[Item]]) -> TopologicalSorter[int]:
    """Places in `items`, since two items may be equal."""
    needed = {item: set(needs.get(item, ())) for item in items}
    return TopologicalSorter(
        {place: [other for other, one in enumerate(items) if one in needed[item]] for place, item in enumerate(items)}
    )


def _begin(threads: int) -> None:
    keep_writable()
    torch.set_num_threads(threads)
    threadpool_limits(threads)  # numpy's
    progress.share_terminal()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt ends it here and now; the one who waits says so
