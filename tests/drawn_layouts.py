"""Draws small, sound datasets of every layout by seed: other classes, counts and placements each time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import handmade
import numpy as np

Random = np.random.Generator


def imagenet(root: Path, rng: Random) -> None:
    """Validation images in class folders, or in one folder with the devkit."""
    home, flat = root / "imagenet", bool(rng.integers(2))
    wnids = sorted(f"n{number:08d}" for number in rng.choice(10**8, rng.integers(2, 5), replace=False).tolist())
    for wnid in wnids:
        for number in rng.choice(10_000, rng.integers(2, 5), replace=False).tolist():
            handmade.image(home / "train" / wnid / f"{wnid}_{number}.JPEG")
    labels = rng.permutation(np.arange(2 * len(wnids)) % len(wnids)).tolist()
    for number, label in enumerate(labels, start=1):
        folder = home / "val" if flat else home / "val" / wnids[label]
        handmade.image(folder / f"ILSVRC2012_val_{number:08d}.JPEG")
    if flat:
        ids = dict(zip(wnids, (1 + rng.permutation(len(wnids))).tolist(), strict=True))
        handmade.devkit(home, ids, [ids[wnids[label]] for label in labels])


def tiny_imagenet(root: Path, rng: Random) -> None:
    home = root / "tiny-imagenet-200"
    wnids = [f"n{number:08d}" for number in rng.choice(10**8, rng.integers(2, 5), replace=False).tolist()]
    handmade.text(home / "wnids.txt", "".join(f"{wnid}\n" for wnid in wnids))
    for wnid in wnids:
        for number in range(rng.integers(2, 4)):
            handmade.image(home / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", size=(64, 64))
    lines = []
    for number, label in enumerate(rng.permutation(np.arange(2 * len(wnids)) % len(wnids)).tolist()):
        handmade.image(home / "val" / "images" / f"val_{number}.JPEG", size=(64, 64))
        lines.append(f"val_{number}.JPEG\t{wnids[label]}\t0\t32\t44\t62\n")
    handmade.text(home / "val" / "val_annotations.txt", "".join(lines))


def places205(root: Path, rng: Random) -> None:
    home = root / "places205"
    images = home / ("images256" if rng.integers(2) else "data/vision/torralba/deeplearning/images256")
    folders = ["a/abbey", "a/airport", "b/bar", "m/mountain/snowy"][: rng.integers(2, 5)]
    for split in ("train", "val"):
        rows = [(f"{folder}/{split}_{n}.jpg", i) for i, folder in enumerate(folders) for n in range(2)]
        for name, _ in rows:
            handmade.image(images / name)
        lines = (f"{rows[i][0]} {rows[i][1]}\n" for i in rng.permutation(len(rows)).tolist())
        handmade.text(home / "trainvalsplit_places205" / f"{split}_places205.csv", "".join(lines))


def inat2018(root: Path, rng: Random) -> None:
    home = root / "inat2018"
    categories = rng.choice(100, rng.integers(2, 5), replace=False).tolist()
    listed = [{"id": i, "name": f"species {i}", "supercategory": "x"} for i in categories]
    for split, first in (("train", 1), ("val", 1000)):
        images, annotations = [], []
        for number, category in enumerate(categories * 2, start=first):
            name = f"train_val2018/Aves/{category}/{number}.jpg"
            handmade.image(home / name)
            images.append({"id": number, "file_name": name, "width": 10, "height": 8})
            annotations.append({"id": number, "image_id": number, "category_id": category})
        content = {"images": images, "annotations": annotations, "categories": listed}
        handmade.text(home / f"{split}2018.json", json.dumps(content))


def voc(root: Path, rng: Random, year: str) -> None:
    xmls = [handmade.XML, handmade.DOG, handmade.NOTHING]
    order = rng.permutation(3).tolist()
    handmade.voc(root, year, (xmls[order[0]], xmls[order[1]], xmls[order[2]]))


def coco2017(root: Path, rng: Random) -> None:
    home = root / "coco"
    categories = sorted(rng.choice(90, rng.integers(2, 5), replace=False).tolist())
    listed = [{"id": 1 + i, "name": f"thing {i}", "supercategory": "x"} for i in categories]
    for split in ("train", "val"):
        images, annotations = [], []
        for number in range(1, 1 + int(rng.integers(3, 6))):
            name = f"{number:012d}.jpg"
            handmade.image(home / f"{split}2017" / name)
            images.append({"id": number, "file_name": name, "width": 10, "height": 8})
            box = {"bbox": [1, 1, 5, 4], "area": 20, "iscrowd": 0, "segmentation": [[1, 1, 6, 1, 6, 5, 1, 5]]}
            category = 1 + categories[int(rng.integers(len(categories)))]
            annotations.append({"id": number, "image_id": number, "category_id": category} | box)
        content = {"images": images, "annotations": annotations, "categories": listed}
        handmade.text(home / "annotations" / f"instances_{split}2017.json", json.dumps(content))


def yfcc100m(root: Path, rng: Random) -> None:
    home = root / "yfcc100m"
    names = [f"{i % 3}/{'a/' * int(rng.integers(3))}{i}.jpg" for i in range(rng.integers(4, 8))]
    for name in names:
        handmade.image(home / name)
    if rng.integers(2):
        handmade.text(home / "files.txt", "".join(f"{name}\n" for name in names))


def yfcc100m_zips(root: Path, rng: Random) -> None:
    numbers = rng.choice(5000, 6, replace=False).tolist()
    zips: dict[str, list[str]] = {}
    for number in sorted(numbers):
        zips.setdefault(f"00/{number // 1000:03d}.zip", []).append(f"{number % 1000:03d}.jpg")
    home = handmade.yfcc_zips(root, zips)
    if rng.integers(2):
        np.save(home / "flickr_unique_ids.npy", np.array(numbers))


def youtube_patches(root: Path, rng: Random) -> None:
    home = root / "youtube_patches"
    rows = []
    for video in rng.choice(90, rng.integers(2, 4), replace=False).tolist():
        for track in range(1, 2 + int(rng.integers(2))):
            for end in (1, 2):
                rows.append(f"video{video}/pairs2/{track:07d}_{end}.jpg {video}\n")
                handmade.image(home / rows[-1].split()[0])
    handmade.text(home / "trainlist.txt", "".join(rows))


def suncg_scenenet(root: Path, rng: Random) -> None:
    rooms = rng.choice(10**6, rng.integers(2, 4), replace=False).tolist()
    scenes = [f"suncg {room:06x}/{1 + view:06d}" for room in rooms for view in range(1 + int(rng.integers(2)))]
    scenes += [f"scenenet train/{room % 3}/{room} {25 * view}" for room in rooms for view in range(2)]
    handmade.suncg_scenenet(root, [scenes[i] for i in rng.permutation(len(scenes)).tolist()])


def places365(root: Path, rng: Random) -> None:
    places = rng.choice(["airfield", "airplane_cabin", "arena-hockey", "zen_garden"], rng.integers(2, 5), replace=False)
    for place in places.tolist():
        for split in ("train", "val"):
            for number in range(1, 2 + int(rng.integers(3))):
                handmade.image(root / "places365_standard" / split / place / f"{split}_{number:08d}.jpg")


DRAWN: dict[str, Callable[[Path, Random], None]] = {
    "imagenet": imagenet,
    "tiny_imagenet": tiny_imagenet,
    "places205": places205,
    "inat2018": inat2018,
    "voc2007": lambda root, rng: voc(root, rng, "2007"),
    "voc2012": lambda root, rng: voc(root, rng, "2012"),
    "coco2017": coco2017,
    "yfcc100m": yfcc100m,
    "yfcc100m_zips": yfcc100m_zips,
    "youtube_patches": youtube_patches,
    "suncg_scenenet": suncg_scenenet,
    "places365": places365,
}
