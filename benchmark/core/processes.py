"""How many processes load images, and processes that end with the one that started them. Imports no torch."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.context import BaseContext
from types import FrameType
from typing import Any

from benchmark.core.allocator import keep_freed_memory
from benchmark.core.errors import UserError, remedy

MOST_LOADERS = 32  # for one GPU; each keeps batches ready in shared memory
PR_SET_PDEATHSIG = 1  # Linux, sys/prctl.h
LOOK_SECONDS = 1.0


def default_loaders(beside_gpu: bool) -> int:
    """Loader processes for this process: of the cores it may use, which are a share of them beside others that torchrun
    started, or what Slurm gives a task. All but one beside a GPU. On a CPU training itself needs the cores: a quarter
    of them keeps up with it, and 2 on few."""
    from joblib import cpu_count  # knows affinity and a container's limit; takes a moment to import

    cores, of_task = cpu_count(), os.environ.get("SLURM_CPUS_PER_TASK")
    if of_task:
        cores = min(int(of_task), cores)
    if not of_task or "TORCHELASTIC_RUN_ID" in os.environ:  # else a task is one process, and no torchrun of several
        cores //= int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    cores = max(cores, 1)
    return min(max(cores - 1, 1), MOST_LOADERS) if beside_gpu else min(max(cores // 4, 2), cores)


def process_pool(count: int, begin: Callable[..., object], *arguments: Any) -> ProcessPoolExecutor:
    """`count` processes that start from a fresh interpreter, call begin(*arguments), and end with this one. Fresh, as a
    fork copies the locks of this one's threads in whatever state they are. Raises UserError if none can be started."""
    # as bytes: importing the modules that they need takes seconds, through which the process must be bound to this one
    later = pickle.dumps((begin, arguments))
    return _pool(multiprocessing.get_context("spawn"), count, _begin_fresh, (later,))


def forked_pool(count: int, begin: Callable[..., object], *arguments: Any) -> ProcessPoolExecutor:
    """The same, forked where that is safe, for work that takes no longer than importing torch. `arguments` may be
    large, since a fork shares them."""
    return _pool(forking(), count, _begin, (begin, arguments))


def forking() -> BaseContext:
    """How to start processes that share this one's memory, where that is safe. By itself multiprocessing starts them
    afresh in a process that was started afresh: each would import torch for seconds, and take 400 MB."""
    return multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


def _pool(
    context: BaseContext, count: int, first: Callable[..., object], arguments: tuple[Any, ...]
) -> ProcessPoolExecutor:
    try:
        return _Pool(count, context, first, arguments)
    except OSError as error:  # for instance no room in /dev/shm for a semaphore
        raise _not_started(error) from error


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does: what is done is kept, and the processes it started end."""


def raise_terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated


class _Pool(ProcessPoolExecutor):
    """Its processes start when there is something to do."""

    def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
        try:
            return super().submit(*arguments, **named)
        except OSError as error:
            for one in self._processes.values():  # who would wait for work, and this process for them
                one.kill()
            raise _not_started(error) from error


def _not_started(error: OSError) -> UserError:
    return UserError(f"no processes can be started to work beside this one ({error}); {remedy(error, 'in /dev/shm')}")


def _begin_fresh(later: bytes) -> None:
    end_with_parent()
    keep_freed_memory()
    begin, arguments = pickle.loads(later)
    begin(*arguments)


def _begin(begin: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    end_with_parent()
    heed_parent_alone()
    begin(*arguments)


def end_with_parent() -> None:
    """From now on this process ends when the one that started it does, even by SIGKILL, and leaves it to that one what
    to do before a job's limit (SIGUSR2). Every process that this program starts calls it first: by themselves they wait
    for work forever, or hold the folder they work in against the next start."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    # Slurm may send it to every process of a job, and a fork has the parent's handler
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    assert parent.pid  # as the parent noted it before it started this one
    if sys.platform == "linux":  # the kernel strikes at once, also where Python waits for a lock
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent.pid,), daemon=True).start()
    if os.getppid() != parent.pid:  # it ended before anybody watched
        os._exit(1)


def heed_parent_alone() -> None:
    """From now on SIGTERM ends this process only if the one that started it sends it, as it does when it ends itself.
    Slurm sends it to every process of a job that it preempts, and a parent that goes on until Slurm ends it needs this
    one all that time."""
    if not hasattr(signal, "sigwaitinfo"):  # only this tells who sent it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_the_parent_says_so, daemon=True).start()


def _end_when_the_parent_says_so() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)
