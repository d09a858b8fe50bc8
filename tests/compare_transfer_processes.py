"""How much sooner two processes score a backbone than one, each on one thread and without loaders, in turn (A B A B):

    python tests/compare_transfer_processes.py linear_imagenet_pirl voc07_svm_goyal

prints the medians of both and their ratio, for the whole command with its start. A machine that does other work besides
can compare the CPU seconds that a process took.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROUNDS, SCALE, RECIPE = 3, "desk", "random_init"
ONE, TWO = ["-m", "benchmark"], ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "benchmark"]


def taken(start: list[str], transfer: str, runs: Path) -> tuple[float, float, bytes]:
    """(seconds, CPU seconds of all processes, the record)."""
    folder = runs / SCALE / RECIPE / "seed0"
    began, used = time.monotonic(), cpu_seconds()
    sslbench(start, "transfer", RECIPE, transfer, "--workers", "0", runs=runs)
    found = time.monotonic() - began, cpu_seconds() - used, (folder / f"{transfer}.json").read_bytes()
    (folder / f"{transfer}.json").unlink()
    for path in sorted((folder / "workspace").rglob("*.npy")):
        path.unlink()
    return found


def sslbench(start: list[str], *words: str, runs: Path) -> None:
    where = ["--scale", SCALE, "--runs", str(runs), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *start, *words, *where], check=True, stdout=subprocess.DEVNULL, env=environment)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(transfers: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        sslbench(ONE, "pretrain", RECIPE, runs=runs)
        for transfer in transfers:
            pairs = [(taken(ONE, transfer, runs), taken(TWO, transfer, runs)) for _ in range(ROUNDS)]
            one, two = (median(pair[side][0] for pair in pairs) for side in (0, 1))
            of_one, of_two = (median(pair[side][1] / (side + 1) for pair in pairs) for side in (0, 1))
            same = "the same" if len({each[2] for pair in pairs for each in pair}) == 1 else "ANOTHER"
            print(f"{transfer}: {one:.1f} s by one process, {two:.1f} s by two, {two / one:.2f} of it, {same} record")
            print(f"  CPU seconds a process: {of_one:.1f} and {of_two:.1f}, {of_two / of_one:.2f} of it", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["linear_imagenet_pirl", "knn_imagenet_wu", "voc07_svm_goyal"])
