"""How much sooner two processes score a backbone than one, each on one thread and without loaders, in turn (A B A B):

    python tests/compare_transfer_processes.py linear_imagenet_pirl voc07_svm_goyal --scale desk --rounds 3

prints the medians of both and their ratio: of the scoring, as its record tells, and of the whole command with its
start, which two processes cannot share. On a busy machine compare the CPU seconds.
Other flags, such as --data=DIR, go to every command.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

RECIPE = "random_init"
TOLD = ("scoring, s", "the whole command, s", "CPU s a process")
ONE, TWO = ["-m", "benchmark"], ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "benchmark"]


class Compared:
    """One transfer by one process and by two, in runs of their own; `where` is what every command takes besides."""

    def __init__(self, scale: str, where: list[str], runs: Path) -> None:
        self.folder = runs / scale / RECIPE / "seed0"
        self.where = [*where, "--scale", scale, "--runs", str(runs), "--device", "cpu"]
        self.sslbench(ONE, "pretrain", RECIPE)

    def sslbench(self, start: list[str], *words: str) -> None:
        command = [sys.executable, *start, *words, *self.where]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)

    def taken(self, start: list[str], processes: int, transfer: str) -> tuple[list[float], bytes]:
        """(what TOLD names, the record)."""
        began, used = time.monotonic(), cpu_seconds()
        self.sslbench(start, "transfer", RECIPE, transfer, "--workers", "0")
        whole, cpu = time.monotonic() - began, cpu_seconds() - used
        record, times = self.folder / f"{transfer}.json", self.folder / f"{transfer}.time.json"
        found = [json.loads(times.read_text())["seconds"], whole, cpu / processes], record.read_bytes()
        record.unlink()
        for path in sorted((self.folder / "workspace").rglob("*.npy")):
            path.unlink()
        return found


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("transfers", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", default="desk")
    said, where = parser.parse_known_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        compared = Compared(said.scale, where, Path(folder))
        for transfer in said.transfers:
            pairs = [(compared.taken(ONE, 1, transfer), compared.taken(TWO, 2, transfer)) for _ in range(said.rounds)]
            same = "the same" if len({record for pair in pairs for _, record in pair}) == 1 else "ANOTHER"
            print(f"{transfer}: by two processes {same} record")
            for place, name in enumerate(TOLD):
                one, two = (median(pair[side][0][place] for pair in pairs) for side in (0, 1))
                print(f"  {name}: {one:.1f} by one, {two:.1f} by two, {two / one:.2f} of it", flush=True)


if __name__ == "__main__":
    main()
