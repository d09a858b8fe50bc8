"""Tracked patches: a folder for every video, two patches for every track, and the list that says which are which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.toyland.catalogue import IMAGENET_OBJECTS, OBJECTS
from benchmark.toyland.layouts.base import LayoutWriter, Picture, ScaleName, lines, save_jpeg, write_text
from benchmark.toyland.rng import generator, hexname
from benchmark.toyland.tracks import tracked

NAME = "youtube_patches"
PIXELS = 64
# A video is of one figure, so that patches of one video are no negatives of each other.
SIZES: dict[ScaleName, int] = {"desk": 500, "smoke": 12}  # videos
TRACKS = 2  # of a video
ENDS = 2  # of a track: its first patch and its last


def pictures(scale: ScaleName, seed: int) -> list[Picture]:
    found = []
    for index in range(SIZES[scale] * TRACKS * ENDS):
        video, track = index // (TRACKS * ENDS), index // ENDS % TRACKS
        name = f"{hexname(seed, NAME, video, digits=11)}/pairs2/{1 + track:07d}_{1 + index % ENDS}.jpg"
        shows = IMAGENET_OBJECTS[video % len(IMAGENET_OBJECTS)]
        found.append(Picture("train", index, shows, f"{NAME}/{name}"))
    return found


def draw(root: Path, picture: Picture, seed: int) -> None:
    figure = generator(seed, NAME, "figure", picture.index // (TRACKS * ENDS))
    frame = generator(seed, NAME, picture.split, picture.index)
    save_jpeg(tracked(frame, figure, OBJECTS[picture.shows], PIXELS), root / picture.path)


def finish(root: Path, scale: ScaleName, seed: int, pictures: Sequence[Picture], notes: Sequence[Any]) -> None:
    rows = [f"{p.path.removeprefix(f'{NAME}/')} {1 + p.index // (TRACKS * ENDS)}" for p in pictures]
    write_text(root / NAME / "trainlist.txt", lines(rows))


LAYOUT = LayoutWriter(NAME, (NAME,), pictures, draw, finish, on_request=True)
