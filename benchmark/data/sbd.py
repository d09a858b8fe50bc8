"""The Semantic Boundaries Dataset (Hariharan et al., ICCV 2011, "Semantic Contours from Inverse Detectors"; SBD): masks
for most of VOC2012's images.

    benchmark_RELEASE/dataset/{train,val}.txt           ids, which are VOC2012's, as are the images
    benchmark_RELEASE/dataset/cls/2008_000002.mat …     GTcls.Segmentation: 0 background, 1…20 classes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmark.data import voc
from benchmark.data.entries import read_lines
from benchmark.data.findings import BadData, Finding, bad, first, from_error, some
from benchmark.data.images import image_size
from benchmark.data.lookalikes import advice, lookalike

NAME = "sbd"
HOME = Path("benchmark_RELEASE", "dataset")
SPLITS = {"train": 8_498, "val": 2_857}  # ids of the real, complete dataset
FIX = "Unpack SBD's benchmark.tgz again, so that benchmark_RELEASE/dataset/cls holds a .mat for every listed id."


def sbd_image_ids(data_root: Path, split: str) -> list[str]:
    """The ids of SBD's own train or val, some of which are in VOC2012's segmentation val."""
    path = data_root / HOME / f"{split}.txt"
    ids = [line.strip() for line in read_lines(path, FIX)]
    if not any(ids):
        raise bad(path, "the list is empty", FIX)
    for number, image_id in enumerate(ids, start=1):
        if image_id and not voc.ID.fullmatch(image_id):
            raise bad(f"{path}, line {number}", f"{image_id!r} is not an image id", FIX)
    return [image_id for image_id in ids if image_id]


def mask_file(image_id: str) -> Path:
    """Relative to the data root."""
    return HOME / "cls" / f"{image_id}.mat"


def read_mat_mask(path: Path) -> np.ndarray:
    """(H, W) uint8: 0 background, 1…20 is CLASSES[value - 1]. UserError naming a file that has no such mask."""
    from scipy.io import loadmat  # slow to import, and only SBD's masks need it

    try:
        values = np.asarray(loadmat(path)["GTcls"][0, 0]["Segmentation"])
    except Exception as error:  # a broken file can raise nearly anything
        raise bad(path, f"has no GTcls.Segmentation ({error})", FIX) from error
    return voc.checked_mask(path, values, FIX)


def check(data_root: Path) -> list[Finding]:
    """What the doctor should say: every listed id must have its image, and a mask of valid classes and equal size."""
    if not (data_root / HOME).is_dir():
        if place := lookalike(data_root, HOME, ("SBD", "benchmark", "benchmark_RELEASE")):
            what = f"looks like SBD, which is only read as a folder {HOME}/ in {data_root}"
            return [Finding("error", NAME, str(place), what, advice(place, data_root, HOME))]
        return [Finding("note", NAME, str(data_root / HOME), "is not there; segmentation needs it for training")]
    listed: dict[str, list[str]] = {}
    findings = []
    for split in SPLITS:
        try:
            listed[split] = sbd_image_ids(data_root, split)
        except BadData as error:
            findings.append(from_error(error, f"{NAME}/{split}"))
    findings += [_size_note(data_root, split, ids) for split, ids in listed.items()]
    ids = [image_id for split in listed.values() for image_id in split]
    return findings + _repeated(data_root, ids) + _of_val(data_root, ids) + _incomplete(data_root, sorted({*ids}))


def _size_note(data_root: Path, split: str, ids: list[str]) -> Finding:
    what = f"{len(ids):,} images"
    complete = len(ids) == SPLITS[split]
    rest = ": complete" if complete else f"; the complete dataset has {SPLITS[split]:,}. A subset or stand-in?"
    return Finding("note", f"{NAME}/{split}", str(data_root / HOME), what + rest)


def _repeated(data_root: Path, ids: list[str]) -> list[Finding]:
    repeated = sorted(image_id for image_id, times in Counter(ids).items() if times > 1)
    if not repeated:
        return []
    what = f"train.txt and val.txt list {len(repeated):,} ids twice: {some(repeated)}"
    return [Finding("warning", NAME, str(data_root / HOME), what, "Take the lists from SBD's benchmark.tgz.")]


def _of_val(data_root: Path, ids: list[str]) -> list[Finding]:
    """The real lists share ids with it too. That is worth knowing: whoever trains on all of SBD's train.txt must not be
    scored on all of val."""
    try:
        val = {*voc.image_ids(data_root / voc.HOME, "2012", "val", "Segmentation")}
    except BadData:
        return []  # the doctor reports this under VOC2012
    shared = sorted(val & {*ids})
    what = f"{len(shared):,} listed ids are in VOC2012's segmentation val; none both trains and tests: {some(shared)}"
    return [Finding("note", NAME, str(data_root / HOME), what)] if shared else []


def _incomplete(data_root: Path, ids: list[str]) -> list[Finding]:
    images = data_root / voc.HOME / "VOC2012" / "JPEGImages"
    there = {path.stem for path in images.glob("*.jpg")}
    masks = {path.stem for path in (data_root / HOME / "cls").glob("*.mat")}
    findings = []
    for names, folder, what, fix in (
        (sorted({*ids} - masks), data_root / HOME / "cls", ".mat", FIX),
        (sorted({*ids} - there), images, "image", voc.UNPACK),
    ):
        if names:
            message = f"{len(names):,} of {len(ids):,} listed ids have no {what}: {some(names)}"
            findings.append(Finding("error", NAME, str(folder), message, fix))
    broken = list(_broken(data_root, [image_id for image_id in ids if image_id in there & masks]))
    return findings + first([from_error(error, NAME) for error in broken], NAME, data_root / HOME, FIX)


def _broken(data_root: Path, ids: list[str]) -> Iterator[BadData]:
    for image_id in ids:
        path = data_root / mask_file(image_id)
        size = image_size(voc.image_file(data_root / voc.HOME, "2012", image_id))
        try:
            values = read_mat_mask(path)
            if size:
                voc.check_mask_size(path, values, size, FIX)
        except BadData as error:
            yield error
