"""Tracked patches of YouTube videos (Wang & Gupta, "Unsupervised Learning of Visual Representations using Videos",
ICCV 2015), as their authors' xiaolonw/caffe-video_triplet releases them.

    youtube_patches/E5K-WUqpmvw/pairs2/0000001_1.jpg, 0000001_2.jpg …   the first and the last patch of each track
    youtube_patches/trainlist.txt     "E5K-WUqpmvw/pairs2/0000001_1.jpg 1": one patch a line, and its video's number

Two lines in a row are a track. A class is a video. The names are relative to youtube_patches/; what lies there besides
those listed is not read.

Memory: about 100 bytes a patch, 0.8 GB for all eight million.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from benchmark.data.entries import check_entries, read_lines
from benchmark.data.findings import Finding, bad, some
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes

NAME = "youtube_patches"
HOME = "youtube_patches"
# NOTE: eight million patches and 82,903 videos are what its authors say of YouTube's patches; their list was not seen
SPLITS = {"train": (8_000_000, 82_903)}
LABELS = Classes
COUNT_VARIES = True  # the released list is called an example
TOGETHER = 2  # files in a row are a track
ALSO_CALLED: tuple[str, ...] = ("YouTube",)

LIST = "trainlist.txt"
LINE = re.compile(r"(?P<name>\S.*?)\s+(?P<video>[0-9]{1,9})\s*")
FIRST = re.compile(r"_1(?=\.\w+$)")  # what a track's first patch is called; the second has a 2
UNPACK = "Put the released list there, with the names as they lie in youtube_patches/."


def read(data_root: Path, split: str) -> ImageSet:
    root = data_root / HOME
    names, videos = _entries(root / LIST)
    check_entries(names, root, lambda i: f"{root / LIST}, line {i + 1}")
    _check_tracks(root / LIST, names, videos)
    numbers, values = np.unique(videos, return_inverse=True)
    classes = Classes(values.astype(np.int64), tuple(str(number) for number in numbers.tolist()))
    return ImageSet(f"{NAME}/{split}", root, names, classes, together=TOGETHER)


def _entries(path: Path) -> tuple[list[str], list[int]]:
    """(patches, the number of each one's video)"""
    names, videos = [], []
    for number, line in enumerate(read_lines(path, UNPACK), start=1):
        found = LINE.fullmatch(line)
        if not found:
            raise bad(f"{path}, line {number}", f"{line!r} is not a file name and the number of a video", UNPACK)
        names.append(found["name"])
        videos.append(int(found["video"]))
    if not names:
        raise bad(path, "the list is empty", UNPACK)
    return names, videos


def _check_tracks(path: Path, names: list[str], videos: list[int]) -> None:
    if len(names) % 2:
        what = f"has {len(names):,} patches, but two lines in a row are a track"
        raise bad(path, what, "Find the patch without its other.")
    for first in range(0, len(names), 2):
        if videos[first] != videos[first + 1]:
            what = f"{names[first]} and {names[first + 1]} are no track: they are of different videos"
            raise bad(f"{path}, line {first + 1}", what, "Two lines in a row are a track; find the first that is not.")


def _are_one_track(one: str, other: str) -> bool:
    return bool(FIRST.search(one)) and FIRST.sub("_2", one) == other


def check(data_root: Path) -> list[Finding]:
    """As released, the two patches of a track are called _1 and _2 of the same number."""
    path = data_root / HOME / LIST
    names = _entries(path)[0]
    odd = [one for one, other in zip(names[::2], names[1::2], strict=False) if not _are_one_track(one, other)]
    if not odd:
        return []
    what = f"{len(odd):,} of {len(names) // 2:,} tracks join patches that are not called alike: {some(odd)}"
    return [Finding("warning", NAME, str(path), what, "Check the order of the list: two lines in a row are a track.")]
