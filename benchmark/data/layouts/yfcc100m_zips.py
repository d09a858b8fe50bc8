"""YFCC100M as FAIR stores it (Caron et al. 2019, DeeperCluster): 95,920,149 images in zips of up to 1,000.

    yfcc100m_zips/12/345.zip holding 678.jpg     image 12345678; the zips may also be in yfcc100m_zips/images/
    yfcc100m_zips/flickr_unique_ids.npy          the numbers to use: images that could be fetched and are not one colour

Without the .npy, every member of every zip is used. No names are kept: an image is just a number until it is opened,
and a zip's directory is read when one of its images is.
Memory: with the .npy, only a mapped file (8 bytes per image on disk). Without it, about 100 bytes per zip (10 MB), and
at each start the last bytes of every zip are read to count its members (100,000 small reads).
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.data.findings import Finding, bad, some
from benchmark.data.folders import HIDDEN, Skipped, contents
from benchmark.data.image_set import ImageSet
from benchmark.data.images import UnreadableImage, is_image_name, open_zip
from benchmark.data.names import Names
from benchmark.data.unreadable import UNREADABLE

NAME = "yfcc100m_zips"
HOME = "yfcc100m_zips"
SPLITS = {"train": (95_920_149, 0)}
LABELS = None
ALSO_CALLED: tuple[str, ...] = ("yfcc-zips",)

IDS = "flickr_unique_ids.npy"
NUMBER = re.compile(r"[0-9]{8}")
ZIP = re.compile(r"\d{3}\.zip")
FOLDER = re.compile(r"[0-9]{2}")
NO_ZIPS = "file(s) or folder(s) that are no zip such as 00/000.zip"
FETCH = "Fetch it again."


def read(data_root: Path, split: str) -> ImageSet:
    root = data_root / HOME
    ids = root / IDS
    root = root / "images" if (root / "images").is_dir() else root
    if os.path.lexists(ids):
        return ImageSet(f"{NAME}/{split}", root, NumberedNames(ids))
    names, skipped = ZippedNames(root), _passed_over(data_root / HOME, root)
    return ImageSet(f"{NAME}/{split}", root, names, skipped=skipped.texts())


def _passed_over(home: Path, root: Path) -> Skipped:
    """What lies there and is neither a zip in its place nor one of the files that belong beside them."""
    skipped = Skipped()
    for folder in dict.fromkeys((home, root)):
        inside = contents(folder)
        numbered = [name for name in inside.folders if FOLDER.fullmatch(name)]
        skipped.add(HIDDEN, inside.hidden)
        skipped.add(NO_ZIPS, [name for name in inside.images + inside.others if name != UNREADABLE])
        strays = inside.folders if folder != root else sorted({*inside.folders} - {*numbered})
        skipped.add("folder(s) that are not 00 … 99", [name for name in strays if home / name != root])
    for name in numbered:
        inside = contents(root / name)
        skipped.add(HIDDEN, inside.hidden, name)
        others = [*inside.images, *inside.folders, *(one for one in inside.others if not ZIP.fullmatch(one))]
        skipped.add(NO_ZIPS, others, name)
    return skipped


class NumberedNames(Names):
    """The names of the 8-digit numbers in a .npy file, which is mapped: 12345678 is "12/345.zip/678.jpg"."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map()

    def _map(self) -> None:
        try:
            self.ids = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise bad(self.path, f"cannot be read as an array ({error})", FETCH) from error
        if self.ids.ndim != 1 or self.ids.dtype.kind not in "iu" or not len(self.ids):
            raise bad(self.path, "is not a list of whole numbers", FETCH)

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, index: int) -> str:
        number = int(self.ids[index])
        if not 0 <= number < 100_000_000:
            raise bad(f"{self.path}, entry {index}", f"{number} is not a number of 8 digits", FETCH)
        digits = f"{number:08d}"
        return f"{digits[:2]}/{digits[2:5]}.zip/{digits[5:]}.jpg"

    def positions(self, wanted: Iterable[str]) -> np.ndarray:
        """Looks the numbers up, chunk by chunk, instead of writing out 95 million names."""
        numbers = [name.replace("/", "").replace(".zip", "").removesuffix(".jpg") for name in wanted]
        asked = np.array([int(number) for number in numbers if NUMBER.fullmatch(number)], dtype=np.int64)
        chunk = 1 << 20
        hits = [
            begin + np.flatnonzero(np.isin(self.ids[begin : begin + chunk], asked))
            for begin in range(0, len(self), chunk)
        ]
        return np.concatenate(hits).astype(np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._map()


class ZippedNames(Names):
    """The members of all zips AA/BBB.zip below a folder, in the order of their paths."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.zips = zips(root)
        counts = [_member_count(root / name) for name in self.zips]
        self.ends = np.cumsum(counts, dtype=np.int64)  # ends[k] = images in zips 0 … k
        if not self.ends[-1]:
            raise bad(root, f"its {len(self.zips):,} zip(s) are empty", FETCH)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def name(self, index: int) -> str:
        k = int(np.searchsorted(self.ends, index, side="right"))
        members = _members(self.root / self.zips[k], os.getpid())
        begin = int(self.ends[k - 1]) if k else 0
        if len(members) != int(self.ends[k]) - begin:
            raise bad(self.root / self.zips[k], "contains files that are not images", "Pack it again without them.")
        return f"{self.zips[k]}/{members[index - begin]}"


def zips(root: Path) -> list[str]:
    """ "00/000.zip", "00/001.zip", …: all zips, sorted; there must be at least one, and no folder of them a link to
    what is not there."""
    inside = contents(root)
    if lost := [name for name in inside.lost if FOLDER.fullmatch(name)]:
        raise bad(root, f"{len(lost)} folder(s) are links to what is not there: {some(lost)}", "Mount the disk.")
    found = []
    for folder in filter(FOLDER.fullmatch, inside.folders):
        within = contents(root / folder)
        found += [f"{folder}/{name}" for name in sorted(within.others + within.lost) if ZIP.fullmatch(name)]
    if not found:
        raise bad(
            root, "contains no zip such as 00/000.zip", "Put FAIR's zips there; loose images belong in yfcc100m/."
        )
    return found


def _member_count(path: Path) -> int:
    """From the record at the end of the zip (22 bytes, if no comment follows), or from its directory if that fails."""
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 22))
            record = stream.read()
    except OSError:
        record = b""  # let open_zip say what is wrong
    if record[:4] == b"PK\x05\x06" and record[10:12] != b"\xff\xff":
        return int.from_bytes(record[10:12], "little")
    try:
        return len(open_zip(path).infolist())
    except UnreadableImage as error:
        raise bad(path, error.reason, FETCH) from error


@lru_cache(maxsize=32)
def _members(path: Path, pid: int) -> list[str]:
    return sorted(info.filename for info in open_zip(path).infolist() if is_image_name(info.filename))


def check(data_root: Path) -> list[Finding]:
    root = read(data_root, "train").root
    ids = data_root / HOME / IDS
    there = zips(root)
    findings = _broken_zips(root, there)
    if os.path.lexists(ids):
        findings += _faulty_numbers(NumberedNames(ids), root, there)
    return findings


def _broken_zips(root: Path, there: list[str]) -> list[Finding]:
    broken, mixed = [], []
    for name in there:
        try:
            with zipfile.ZipFile(root / name) as opened:
                if not all(is_image_name(member.rpartition("/")[2]) for member in opened.namelist()):
                    mixed.append(name)
        except (zipfile.BadZipFile, OSError):
            broken.append(name)
    findings = []
    for names, what, fix in (
        (broken, "cannot be opened", FETCH),
        (mixed, "hold files that are no images", "Pack them again without these."),
    ):
        if names:
            findings.append(Finding("error", NAME, str(root), f"{len(names):,} zip(s) {what}: {some(names)}", fix))
    return findings


def _faulty_numbers(names: NumberedNames, root: Path, there: list[str]) -> list[Finding]:
    """Zips that the .npy's numbers need but that are missing; numbers of more than 8 digits, and those listed twice."""
    ids = np.asarray(names.ids, dtype=np.int64)
    if ids.min() < 0 or ids.max() >= 100_000_000:
        return [Finding("error", NAME, str(names.path), "has numbers of more than 8 digits", FETCH)]
    findings = []
    numbers, times = np.unique(ids, return_counts=True)
    if len(numbers) < len(ids):
        twice = [f"{number:08d}" for number in numbers[times > 1].tolist()]
        what = f"{len(twice):,} number(s) are listed more than once: {some(twice)}"
        findings.append(Finding("error", NAME, str(names.path), what, "Remove the repetitions: numpy.unique."))
    wanted = [f"{k // 1000:02d}/{k % 1000:03d}.zip" for k in np.unique(numbers // 1000).tolist()]
    missing = sorted(set(wanted) - set(there))
    if missing:
        what = f"{len(missing):,} of {len(wanted):,} zips that {IDS} needs are missing: {some(missing)}"
        findings.append(Finding("error", NAME, str(root), what, "Fetch them, or for a subset shorten the .npy."))
    return findings
