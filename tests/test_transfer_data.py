"""A record is stale once any file that its transfer opened says something else: for every transfer found, and for every
kind of file that it opens below the data root, also one that comes with a transfer of tomorrow."""

from __future__ import annotations

import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from annotated import change_mask, change_mat, move_box
from test_transfer_protocols import small_for

from benchmark.core.files import file_hash
from benchmark.gate import staleness
from benchmark.records.currency import Now, reasons
from benchmark.records.record import Record
from benchmark.runs import current
from benchmark.toyland import build_world
from benchmark.transfers import find_transfers
from benchmark.transfers.contract import Context, Transfer

# those that ask for more than a backbone are in tests/test_own_classifier.py
TRANSFERS = {name: transfer for name, transfer in find_transfers().items() if not transfer.card.asks}
DATASETS = ("imagenet", "places205", "inat2018", "voc2007", "voc2012", "coco2017")
PHOTOS = (".jpg", ".jpeg")

_opened: list[str] | None = None  # while something looks


def _note(event: str, given: tuple[object, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append(str(given[0]))


sys.addaudithook(_note)  # which cannot be taken back


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"), "smoke", datasets=DATASETS, progress=False)


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    yield
    forget()


def forget() -> None:
    current.split_fingerprint.cache_clear()
    current.annotation_fingerprints.cache_clear()


def opened_by(transfer: Transfer, world: Path, workspace: Path) -> list[Path]:
    """Every file below `world` that scoring a backbone opens."""
    backbone = small_for(transfer.card.id)
    global _opened
    _opened = opened = []
    transfer.run(backbone, Context(world, "smoke", 0, workspace, torch.device("cpu"), 0, lambda *_: None))
    _opened = None
    return sorted({path for path in map(Path, opened) if path.is_relative_to(world) and path.is_file()})


def first_and_last_of_each_kind(files: list[Path], world: Path) -> list[Path]:
    """Of the files of one ending in one folder; all photographs of a dataset are one kind."""
    kinds: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in files:
        suffix, below = path.suffix.lower(), path.relative_to(world)
        kinds["/".join(below.parts[:2] if suffix in PHOTOS else below.parts[:-1]), suffix].append(path)
    return sorted({found[place] for found in kinds.values() for place in (0, -1)})


def change_class(path: Path) -> None:
    """What classification holds its lists against; where a box lies is nothing to it."""
    xml = path.read_text()
    path.write_text(re.sub(r"(<object>\s*<name>)(\w+)", lambda m: m[1] + ("dog" if m[2] != "dog" else "cat"), xml))


def change_category(path: Path) -> None:
    names = list(dict.fromkeys(re.findall(r'"category_id": ?(\d+)', path.read_text())))
    path.write_text(re.sub(r'("category_id": ?)\d+', rf"\g<1>{names[1]}", path.read_text(), count=1))


def drop_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


CHANGES: dict[str, Callable[[Path], None]] = {
    ".xml": move_box,
    ".png": change_mask,
    ".mat": change_mat,
    ".json": change_category,
    ".txt": drop_line,
    ".csv": drop_line,
    **dict.fromkeys(PHOTOS, lengthen),
}


def record_of(transfer: Transfer, world: Path) -> Record:
    return Record(
        recipe="some", recipe_hash="h", settings={}, scale="smoke", seed=0, transfer=transfer.card.id,
        transfer_version=transfer.card.version, metrics={}, detail={},
        transfer_data=current.transfer_data(transfer, world, "smoke"), origin={}, backbone_hash="h", commit="",
        versions={}, device="cpu", threads=1,
    )  # fmt: skip


def why_stale(record: Record, world: Path) -> list[str]:
    forget()
    return reasons(record, Now(data=staleness.data_below(lambda _: world)(record)))


@pytest.mark.parametrize("name", TRANSFERS)
def test_a_change_in_any_kind_of_file_that_it_opens_makes_its_record_stale(name: str, world: Path, tmp_path: Path):
    transfer = TRANSFERS[name]
    kinds = first_and_last_of_each_kind(opened_by(transfer, world, tmp_path), world)
    assert {path.suffix.lower() for path in kinds} & set(PHOTOS)
    record = record_of(transfer, world)
    assert why_stale(record, world) == []
    unnoticed = []
    for path in kinds:
        was, before = path.read_bytes(), file_hash(path)
        boxes_count = path.suffix != ".xml" or transfer.annotations(world)
        (CHANGES[path.suffix.lower()] if boxes_count else change_class)(path)
        assert file_hash(path) != before
        try:
            stale = why_stale(record, world)
        finally:
            path.write_bytes(was)
        if not stale:
            unnoticed.append(path.relative_to(world).as_posix())
    assert unnoticed == []
    assert why_stale(record, world) == []


def test_data_that_cannot_be_read_is_a_reason_and_data_that_is_elsewhere_is_none(world: Path, tmp_path: Path):
    record = record_of(TRANSFERS["voc0712_det_c4_pirl"], world)
    root = Path(shutil.copytree(world, tmp_path / "root"))
    box = next((root / "VOCdevkit/VOC2007/Annotations").glob("*.xml"))
    was = box.read_text()
    box.write_text(was[:-20])
    (broken,) = why_stale(record, root)
    assert broken.startswith("its data cannot be read now")
    assert box.name in broken
    (root / "VOCdevkit/VOC2012").rename(root / "elsewhere")
    box.write_text(was)
    assert why_stale(record, root) == []
    image = root / f"VOCdevkit/VOC2007/JPEGImages/{box.stem}.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    (changed,) = why_stale(record, root)
    assert changed.startswith("voc2007/")
    assert why_stale(record, tmp_path / "nothing") == []


def test_what_detection_and_segmentation_open_is_what_they_should(world: Path, tmp_path: Path):
    """Else the test above would look at nothing."""
    wanted = {
        "voc0712_det_c4_pirl": {f"VOCdevkit/VOC{year}/Annotations" for year in (2007, 2012)},
        "coco_det_c4_moco": {"coco/annotations"},
        "voc12_seg_fcn_moco": {"VOCdevkit/VOC2012/SegmentationClass", "benchmark_RELEASE/dataset/cls"},
        "voc12_seg_fcn32s": {"VOCdevkit/VOC2012/SegmentationClass", "benchmark_RELEASE/dataset/cls"},
    }
    for name, folders in wanted.items():
        opened = opened_by(TRANSFERS[name], world, tmp_path / name)
        assert folders <= {path.parent.relative_to(world).as_posix() for path in opened}
