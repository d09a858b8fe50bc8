"""How many processes load images, and processes that end with the one that started them. Imports no torch."""

from __future__ import annotations

import multiprocessing
import os
import threading

MOST_LOADERS = 32  # for one GPU; each keeps batches ready in shared memory


def default_loaders(beside_gpu: bool) -> int:
    """Loader processes for this process: of the cores it may use, shared with torchrun's others on this machine, all
    but one beside a GPU. On a CPU training itself needs the cores: a quarter of them keeps up with it, and 2 on few."""
    from joblib import cpu_count  # knows affinity and a container's limit; takes a moment to import

    cores = max(cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 1)
    return min(max(cores - 1, 1), MOST_LOADERS) if beside_gpu else min(max(cores // 4, 2), cores)


def end_with_parent() -> None:
    """By themselves, processes of a pool outlive a parent that is killed: they wait for work forever, or hold the
    folder they work in against the next start."""
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
