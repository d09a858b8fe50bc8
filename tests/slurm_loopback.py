"""`python tests/slurm_loopback.py`: pretraining as a job of a real Slurm on this machine, preempted and put back.

Starts munged, slurmctld and slurmd on loopback, in a folder of its own, and ends them afterwards. One job of two tasks
is sent SIGTERM, then SIGUSR2 as before its limit; another is preempted by a job that matters more. Prints what happens,
and exits with 1 unless both end with the same bits as a job that nobody disturbed, and `reproduce` with its rows as
jobs ends with all that it promises. Needs root, and Debian's packages slurm-wlm and munge. `python
tests/slurm_loopback.py STEPS` takes other than 300 steps.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from benchmark import cli
from benchmark.toyland import build_world

RECIPE, STEPS, IMAGES = "rotation", int(sys.argv[1]) if len(sys.argv) > 1 else 300, 64
LIMIT_SECONDS = 1200
BEGAN = time.monotonic()
CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=requeue_delay=1,sched_interval=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=common Nodes=ALL Default=YES PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=ALL PriorityTier=2
"""


def tell(what: str) -> None:
    print(f"{time.monotonic() - BEGAN:6.1f} s  {what}", flush=True)


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """A cluster of this machine alone, while the block runs."""
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(64))
    key.chmod(0o600)
    folder.chmod(0o755)
    configuration = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    configuration.write_text(CONFIGURATION.format(host=host, folder=folder, ports=(free_port(), free_port())))
    os.environ["SLURM_CONF"] = str(configuration)
    files = [f"--{name}={folder}/munge.{end}" for name, end in (("key-file", "key"), ("socket", "socket"))]
    files += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    with ExitStack() as running:
        running.enter_context(daemon(folder, "munged", "--foreground", "--num-threads=2", *files))
        until("munge answers", lambda: (folder / "munge.socket").exists())
        running.enter_context(daemon(folder, "slurmctld", "-D"))
        running.enter_context(daemon(folder, "slurmd", "-D"))
        until("the node is idle", lambda: "idle" in answer("sinfo", "-h", "-o", "%T"))
        try:
            yield
        finally:
            subprocess.run(["scancel", "--user", "root"], check=False)


@contextmanager
def daemon(folder: Path, *command: str) -> Iterator[None]:
    with (folder / f"{command[0]}.out").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        tell(f"{command[0]} started")
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            tell(f"{command[0]} ended")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answer(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def until(what: str, is_so: Callable[[], object]) -> float:
    """When it is so, by the clock that files have."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {LIMIT_SECONDS} s in vain until {what}")
        time.sleep(0.1)
    tell(what)
    return time.time()


def pretrain(runs: Path) -> tuple[str, Path]:
    """(the job, the run's folder)"""
    command = ["pretrain", RECIPE, "--scale", "smoke", "--recipe.length", f"{STEPS}steps", "--device", "cpu"]
    command += ["--images", str(runs.parent / "images"), "--workers", "1", "--runs", str(runs)]
    command += ["--launcher", "slurm", "--slurm", "ntasks-per-node=2"]
    tell(f"sslbench {' '.join(command)}")
    with redirect_stdout(io.StringIO()) as told:
        status = cli.run(command)
    job = re.match(r"job (\d+)", told.getvalue())
    if status or not job:
        raise SystemExit("it could not be submitted")
    tell(told.getvalue().strip())
    name = f"{RECIPE}@length={STEPS}steps,images=images"
    return job[1], runs / "smoke" / name / "seed0"


def reproduce(runs: Path) -> int:
    """The grid of rows as jobs of two tasks: 1 unless all end well, and the same command then finds everything done."""
    command = ["reproduce", RECIPE, "random_init", "--scale", "smoke", "--device", "cpu", "--workers", "1"]
    command += ["--runs", str(runs), "--data", str(build_world(runs.parent / "world", "smoke", progress=False))]
    tell(f"sslbench {' '.join(command)} --launcher slurm --slurm ntasks-per-node=2")
    with redirect_stdout(io.StringIO()) as told:
        status = cli.run([*command, "--launcher", "slurm", "--slurm", "ntasks-per-node=2"])
    print(told.getvalue(), end="")
    jobs = re.findall(r"^job (\d+)", told.getvalue(), re.MULTILINE)
    for job in jobs:
        wait_for_end(job)
    with redirect_stdout(io.StringIO()) as told:
        again = cli.run(command)
    tell(told.getvalue().strip())
    steps = re.findall(r"^\[.*\] .*?: (current|left out)?", told.getvalue(), re.MULTILINE)
    done = steps and all(steps) and all(fact(job, "JobState") == "COMPLETED" for job in jobs)
    fault = bool(status or again or not jobs or not done)
    tell(f"{len(jobs)} jobs, {'NOT all as promised' if fault else 'all done, and nothing is left to do'}")
    return int(fault)


def draw_images(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")


def fact(job: str, name: str) -> str:
    found = re.search(rf"\b{name}=(\S+)", answer("scontrol", "show", "job", job))
    return found[1] if found else ""


def steps_logged(run: Path) -> int:
    log = run / "log.jsonl"
    return len(log.read_text().splitlines()) if log.is_file() else 0


def wait_for_end(job: str) -> None:
    ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED")
    until(f"job {job} has ended", lambda: fact(job, "JobState") in ends)
    tell(f"job {job}: {fact(job, 'JobState')}, Restarts={fact(job, 'Restarts')}")


def send_signals(job: str, run: Path) -> None:
    until("it trains", lambda: steps_logged(run))
    signal_job(job, "TERM", run)
    tell(f"after SIGTERM the job is {fact(job, 'JobState')}")
    signal_job(job, "USR2", run)
    until("Slurm has put it back into the queue", lambda: fact(job, "Restarts") == "1")


def preempt(job: str, run: Path) -> None:
    until("it trains", lambda: steps_logged(run))
    urgent = re.search(r"\d+", answer("sbatch", "-p", "urgent", "-n", "2", "-o", "/dev/null", "--wrap", "sleep 1"))
    assert urgent
    tell(f"submitted: job {urgent[0]}, which matters more")
    until("Slurm has preempted it and put it back", lambda: fact(job, "Restarts") == "1")


def signal_job(job: str, kind: str, run: Path) -> None:
    checkpoint = run / "checkpoint.pt"
    sent = time.time()
    subprocess.run(["scancel", f"--signal={kind}", job], check=True)
    tell(f"scancel --signal={kind} {job}")
    written = until("a checkpoint is written", lambda: checkpoint.is_file() and checkpoint.stat().st_mtime > sent)
    tell(f"that took {written - sent:.1f} s, at step {torch.load(checkpoint, weights_only=True)['step']}")


def main() -> int:
    if missing := [name for name in ("munged", "slurmctld", "slurmd") if not shutil.which(name)]:
        raise SystemExit(f"{', '.join(missing)} not found: apt-get install slurm-wlm munge")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as temporary, slurm(Path(temporary)):
        draw_images(Path(temporary, "images"))
        job, whole = pretrain(Path(temporary, "undisturbed"))
        wait_for_end(job)
        faults = [compare(how, whole, Path(temporary, how.__name__)) for how in (send_signals, preempt)]
        return max(*faults, reproduce(Path(temporary, "grid")))


def compare(disturb: Callable[[str, Path], None], whole: Path, runs: Path) -> int:
    job, run = pretrain(runs)
    disturb(job, run)
    wait_for_end(job)
    for log in (runs / "slurm").glob(f"{job}_[01]_log.*"):
        print(f"--- {log.name}\n{log.read_text()}---")
    one, two = (load_file(folder / "backbone.safetensors") for folder in (whole, run))
    same = one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    tell(f"{len(one)} tensors, {'all with the same bits' if same else 'NOT the same'}")
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
