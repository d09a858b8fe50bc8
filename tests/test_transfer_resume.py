"""A transfer killed at any point, stopped by a full disk or started twice at once ends, when started again, with the
record of one that was not. The kills are for one transfer of each kind: they meet its code, not a protocol's values."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_runs import at_write, chance, die_after, die_in_write, in_processes

from benchmark import cli
from benchmark.runs import scoring
from benchmark.runs.run import Run
from benchmark.toyland import build_world
from benchmark.transfers import features, find_transfers, training
from benchmark.transfers.detection.c4 import Detection
from benchmark.transfers.linear import LinearTransfer
from benchmark.transfers.segmentation.fcn import Segmentation

# those that ask for more than a backbone are in tests/test_own_classifier.py
TRANSFERS = {name: transfer for name, transfer in find_transfers().items() if not transfer.card.asks}
KINDS = {type(transfer): name for name, transfer in TRANSFERS.items()}
DATASETS = ("imagenet", "places205", "inat2018", "voc2007", "voc2012", "coco2017")
RECIPES = {"ResNet": "random_init", "AlexNet": "random_init_alexnet", "Alex64": "random_init_alex64"}
RECIPES["WithProjectionHead"] = "simclr_100ep"
RECORD_WRITES = 2  # the last ones: the record, and what stands beside it
# A record is the same, bit for bit and field for field; when, how long and on which machine stands beside it, here.
OF_THE_MOMENT = {"seconds", "processes", "peak_memory_gb", "finished", "machine", "processor"}


@dataclass(frozen=True)
class Scored:
    """What a whole `sslbench transfer` gave. figures: the last ones of each thing it reported, e.g. the final loss, and
    the hash of what it trained: where a record rounds to one image of sixteen, they tell the last bit."""

    status: int
    said: str  # on stderr
    seconds: float
    writes: int
    figures: dict[str, Any]


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run, and the folder of runs that it left."""

    runs: Path
    scored: Scored


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"), "smoke", datasets=DATASETS, progress=False)


@pytest.fixture(scope="module")
def pretrained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs that have a backbone each and nothing else."""
    runs = tmp_path_factory.mktemp("pretrained")
    for recipe in RECIPES.values():
        [made] = in_processes(1, cli.run, ["pretrain", recipe, *flags(world, runs, workers=0)])
        assert made.value == 0, made
    return runs


@pytest.fixture(scope="module")
def whole(world: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """Transfer -> its uninterrupted run, made once."""

    @functools.cache
    def made(name: str) -> Whole:
        runs = copied(name, pretrained, tmp_path_factory.mktemp("whole"))
        [outcome] = in_processes(1, transfer, name, world, runs)
        assert outcome.value.status == 0, outcome
        return Whole(runs, outcome.value)

    return made


def flags(world: Path, runs: Path, workers: int) -> list[str]:
    where = ["--data", str(world), "--runs", str(runs)]
    return ["--scale", "smoke", *where, "--workers", str(workers), "--device", "cpu"]


def recipe_of(name: str) -> str:
    """A recipe whose backbone the transfer takes."""
    return RECIPES[next(iter(TRANSFERS[name].card.takes), "ResNet")]


def folder(name: str) -> Path:
    return Path("smoke", recipe_of(name), "seed0")


def copied(name: str, pretrained: Path, runs: Path) -> Path:
    (runs / folder(name)).mkdir(parents=True)
    shutil.copy(pretrained / folder(name) / "backbone.safetensors", runs / folder(name))
    return runs


def transfer(
    name: str, world: Path, runs: Path, workers: int = 0, before: Callable[[], object] = lambda: None
) -> Scored:
    """`sslbench transfer`, which saves after every step and every few images, in a process of a test's own."""
    training.CHECKPOINT_SECONDS, features.PART = -1.0, 10
    last: dict[str, Any] = {}
    write = training.write_state

    def hashing(path: Path, content: dict[str, Any]) -> None:
        write(path, content)
        last["trained"] = hashlib.sha256(
            b"".join(each.numpy().tobytes() for each in content["model"].values())
        ).hexdigest()

    @contextmanager
    def noting(_: str) -> Iterator[Any]:
        yield lambda what, done, total, figures: last.update({what: figures})

    scoring._display, training.write_state = noting, hashing
    before()
    writes, started = at_write(0, lambda _: None), time.monotonic()
    with redirect_stderr(io.StringIO()) as said:
        status = cli.run(["transfer", recipe_of(name), name, *flags(world, runs, workers)])
    return Scored(status, said.getvalue(), time.monotonic() - started, writes(), last)


@pytest.mark.parametrize("name", KINDS.values())
def test_killed_at_random_points_it_ends_with_the_same_record(
    name: str, whole: Callable[[str], Whole], world: Path, pretrained: Path, tmp_path: Path
):
    wanted, runs, random = whole(name), copied(name, pretrained, tmp_path / "runs"), chance(name)
    left = wanted.scored.writes
    for workers, earliest in ((2, 2), (1, 1)):  # the first time, something whole is there to go on from
        number = random.randint(earliest, max(left - RECORD_WRITES, 1))
        print(f"killed in the middle of write {number} of {left}")
        [died] = in_processes(1, transfer, name, world, runs, workers, functools.partial(die_in_write, number))
        assert died.exit_code == -9, died
        assert not (runs / folder(name) / f"{name}.json").exists()
        left -= number - 1
    after = random.uniform(0, wanted.scored.seconds)
    print(f"killed after {after:.3f} s")
    [died] = in_processes(1, transfer, name, world, runs, 0, functools.partial(die_after, after))
    [ended] = in_processes(1, transfer, name, world, runs, 1)

    finished = [outcome.value for outcome in (died, ended) if outcome.exit_code != -9]  # there may be less left to do
    assert [scored.status for scored in finished] == [0] * len(finished), (died, ended)
    for what, figures in (item for scored in finished for item in scored.figures.items()):
        assert figures == wanted.scored.figures[what]
    assert_same_record(name, runs, wanted.runs)
    assert contents(runs) == contents(wanted.runs), "a kill left something behind"


@pytest.mark.parametrize("back", range(RECORD_WRITES))
@pytest.mark.parametrize("name", [KINDS[kind] for kind in (LinearTransfer, Detection, Segmentation)])
def test_killed_in_its_last_writes_it_ends_with_the_same_record(
    name: str, back: int, whole: Callable[[str], Whole], world: Path, pretrained: Path, tmp_path: Path
):
    wanted, runs = whole(name), copied(name, pretrained, tmp_path / "runs")
    kill = functools.partial(die_in_write, wanted.scored.writes - back)
    assert in_processes(1, transfer, name, world, runs, 0, kill)[0].exit_code == -9
    assert list((runs / folder(name) / "workspace").glob(f"{name}-*.pt")), (
        "all of the training would have to be done again"
    )
    assert in_processes(1, transfer, name, world, runs)[0].value.status == 0
    assert_same_record(name, runs, wanted.runs)
    assert contents(runs) == contents(wanted.runs)


@pytest.mark.parametrize(
    ("name", "writes"),
    [
        ("knn_imagenet_wu", ["00000000.npy", "knn_imagenet_wu.time.json", "knn_imagenet_wu.json"]),
        (KINDS[LinearTransfer], [".pt"]),
    ],
)
def test_a_disk_that_fills_up_stops_it_and_freed_lets_it_go_on(
    name: str,
    writes: list[str],
    whole: Callable[[str], Whole],
    world: Path,
    pretrained: Path,
    mount: Callable[[str], Path],
):
    """It has no room from the start; then, each time the same command is given, for one more file."""
    runs = copied(name, pretrained, mount("size=8m") / "runs")
    filler = runs / "filler"
    fill(filler)
    [outcome] = in_processes(1, transfer, name, world, runs)
    said = ""
    while (scored := outcome.value).status:
        assert scored.status == 2
        assert re.search(r"could not be written \(No space left on device\); free space there", scored.said)
        assert scored.said.count("\n") == 1
        said += scored.said
        assert not [path for path in runs.rglob(".*") if path.name != ".lock"], "half a file"
        assert not (runs / folder(name) / f"{name}.json").exists()
        filler.unlink()
        [outcome] = in_processes(1, transfer, name, world, runs, 0, functools.partial(fill_after_a_file, filler))
    filler.unlink()
    assert all(f"{write}: could not" in said for write in writes)
    assert_same_record(name, runs, whole(name).runs)
    assert contents(runs) == contents(whole(name).runs)


def fill(filler: Path) -> None:
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def fill_after_a_file(filler: Path) -> None:
    at_write(1, lambda _: fill(filler))


def test_a_file_system_that_takes_no_more_files_is_told(world: Path, pretrained: Path, mount: Callable[[str], Path]):
    name = "knn_imagenet_wu"
    disk = mount("nr_inodes=6")  # itself, three folders, the backbone and the lock
    runs = copied(name, pretrained, disk)
    (runs / folder(name) / ".lock").touch()
    told = in_processes(1, transfer, name, world, runs)[0].value
    assert (told.status, told.said.count("\n")) == (2, 1)
    assert "could not be written (No space left on device)" in told.said
    subprocess.run(["mount", "-o", "remount,nr_inodes=100", disk], check=True)
    assert in_processes(1, transfer, name, world, runs)[0].value.status == 0


def test_a_second_transfer_in_the_same_folder_is_refused_and_harms_nothing(
    whole: Callable[[str], Whole], world: Path, pretrained: Path, tmp_path: Path
):
    """The first is in the middle of a file when the second comes, and another that would tidy up."""
    name = "knn_imagenet_wu"
    runs = copied(name, pretrained, tmp_path / "runs")
    [first] = in_processes(1, _transfer_and_start_another, name, world, runs)
    scored, second = first.value
    assert scored.status == 0
    assert second.status == 2
    assert f"{runs / folder(name)}: another process is working there" in second.said
    assert second.said.count("\n") == 1
    assert_same_record(name, runs, whole(name).runs)
    assert contents(runs) == contents(whole(name).runs)


def _transfer_and_start_another(name: str, world: Path, runs: Path) -> tuple[Scored, Scored]:
    others: list[Any] = []

    def start_others(_: int) -> None:
        others.extend(in_processes(1, transfer, name, world, runs))
        others.extend(in_processes(1, scoring.clear_workspace, Run(recipe_of(name), "smoke", 0, world, runs)))

    scored = transfer(name, world, runs, before=functools.partial(at_write, 4, start_others))
    assert [other.error for other in others] == [None, None]
    return scored, others[0].value


def assert_same_record(name: str, runs: Path, wanted: Path) -> None:
    assert (runs / folder(name) / f"{name}.json").read_bytes() == (wanted / folder(name) / f"{name}.json").read_bytes()
    assert json.loads((runs / folder(name) / f"{name}.time.json").read_bytes()).keys() == OF_THE_MOMENT


def contents(runs: Path) -> list[Path]:
    return sorted(path.relative_to(runs) for path in runs.rglob("*"))
