"""How much sooner two processes score a backbone than one, each on one thread and without loaders, in turn (A B A B):

    python tests/compare_transfer_processes.py linear_imagenet_pirl voc07_svm_goyal

prints the medians of both and their ratio: of the scoring, as its record tells, and of the whole command with its
start, which two processes cannot share. On a busy machine compare the CPU seconds.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROUNDS, SCALE, RECIPE = 3, "desk", "random_init"
TOLD = ("scoring, s", "the whole command, s", "CPU s a process")
ONE, TWO = ["-m", "benchmark"], ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "benchmark"]


def taken(start: list[str], processes: int, transfer: str, runs: Path) -> tuple[list[float], bytes]:
    """(what TOLD names, the record)."""
    folder = runs / SCALE / RECIPE / "seed0"
    began, used = time.monotonic(), cpu_seconds()
    sslbench(start, "transfer", RECIPE, transfer, "--workers", "0", runs=runs)
    whole, cpu = time.monotonic() - began, cpu_seconds() - used
    record, times = folder / f"{transfer}.json", folder / f"{transfer}.time.json"
    found = [json.loads(times.read_text())["seconds"], whole, cpu / processes], record.read_bytes()
    record.unlink()
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
            pairs = [(taken(ONE, 1, transfer, runs), taken(TWO, 2, transfer, runs)) for _ in range(ROUNDS)]
            same = "the same" if len({record for pair in pairs for _, record in pair}) == 1 else "ANOTHER"
            print(f"{transfer}: by two processes {same} record")
            for place, name in enumerate(TOLD):
                one, two = (median(pair[side][0][place] for pair in pairs) for side in (0, 1))
                print(f"  {name}: {one:.1f} by one, {two:.1f} by two, {two / one:.2f} of it", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["linear_imagenet_pirl", "knn_imagenet_wu", "voc07_svm_goyal"])
