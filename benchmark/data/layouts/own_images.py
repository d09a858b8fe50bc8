"""A user's own images, as `--images` names them: a folder, a list, a zip, or tar shards as webdataset packs them.

    photos/train/CLASS/….jpg, photos/val/CLASS/….jpg     a class is the first folder, whatever it is called; further
                                                         folders below it may be there or not
    photos/CLASS/….jpg                                   the same; about a fifth of each class is val and does not train
    photos/….jpg, photos/2019/may/….jpg, …               no classes: all images train, and there is no val
    photos.txt                                           one path a line, relative to the list's folder or absolute
    photos.zip, photos.tar                               the images in it; also anywhere in a folder

Nothing is unpacked. Memory: about 100 bytes an image, of a tar 300 more.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmark.core.own_images import OWN_IMAGES
from benchmark.data.entries import one_name, read_lines
from benchmark.data.findings import BadData, Finding, bad, some
from benchmark.data.folders import HIDDEN, NO_IMAGES, Skipped, contents, is_hidden
from benchmark.data.image_set import ImageSet
from benchmark.data.images import UnreadableImage, is_image_name, open_zip
from benchmark.data.labels import Classes
from benchmark.data.tars import check_member, tar_index
from benchmark.data.unreadable import UNREADABLE
from benchmark.data.walk import walk

NAME = OWN_IMAGES
HOME = ""
SPLITS = {"train": (0, 0), "val": (0, 0), "all": (0, 0)}
LABELS = None
ALSO_CALLED: tuple[str, ...] = ()

SCORED = 0.2  # of each class, on average, where there is no val/
ARCHIVES = (".zip", ".tar")
COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
PARTS = frozenset({"train", "training", "trainval", "val", "valid", "validation", "test", "testing"})
NO_CLASSES = "has no classes to be scored on"
TREE = "A labelled set is DIR/train/CLASS/IMAGE and DIR/val/CLASS/IMAGE, or DIR/CLASS/IMAGE, with two classes or more."
ANYTHING = "Give --images a folder of images, a list of them, a .zip or a .tar."


def read(data_root: Path, split: str) -> ImageSet:
    # users replace photos by others of the same name, and pictures that are not compressed are all of one size
    return replace(_read(data_root, split), by_content=True)


def _read(data_root: Path, split: str) -> ImageSet:
    root, files, skipped = _every_image(data_root)
    if not files:
        raise bad(data_root, f"contains no images{_instead(skipped)}", ANYTHING)
    if split == "all":
        return ImageSet(f"{NAME}/all", root, files, skipped=skipped.texts())
    if data_root.is_dir() and all((data_root / part).is_dir() for part in ("train", "val")):
        return _part(data_root, split, files, skipped)
    labelled = _labelled(root, "", files) if data_root.is_dir() else None
    if labelled and {name.lower() for name in labelled.names} <= PARTS:
        if split == "val":
            raise bad(data_root, f"holds {some([*labelled.names])}, which are parts of a set and no classes", TREE)
        labelled = None
    if labelled and len(labelled.names) == len(files):  # nothing could be held out
        labelled = None
    if labelled is None and split == "val":
        raise _no_classes(data_root)
    if labelled is None:
        return ImageSet(f"{NAME}/train", root, files, skipped=skipped.texts())
    return _drawn(ImageSet(NAME, root, files, labelled, skipped.texts()), split)


def _part(root: Path, split: str, files: list[str], skipped: Skipped) -> ImageSet:
    """Of a folder with train/ and val/."""
    own = [file for file in files if file.startswith(f"{split}/")]
    skipped.add("image(s) in neither train/ nor val/", [f for f in files if not f.startswith(("train/", "val/"))])
    if not own:
        raise bad(root / split, "contains no images", TREE)
    labels = _labelled(root, f"{split}/", own)
    if labels is None and split == "val":
        raise _no_classes(root / split)
    return ImageSet(f"{NAME}/{split}", root, own, labels, skipped.texts())


def _drawn(images: ImageSet, split: str) -> ImageSet:
    """The images that train, or those that are scored: the same for every run and seed."""
    is_scored = _scored(images)
    part = images.subset(np.flatnonzero(is_scored if split == "val" else ~is_scored), split)
    told = {"train": "are held out to be scored", "val": "train"}
    others = f"{len(images) - len(part):,} of {len(images):,} images, which {told[split]}: a draw from each class"
    return replace(part, name=f"{NAME}/{split}", skipped=(*images.skipped, others))


def _scored(images: ImageSet) -> np.ndarray:
    """(N,) bool. An image's own name decides, so that a photo that comes or goes does not turn others that a backbone
    was trained on into scored ones. Of two images or more, a class has at least one on each side: then the one of
    least or greatest draw changes sides, and which that is may depend on the others."""
    draws = np.array([_draw(file) for file in images.files])
    scored = draws < SCORED
    labels = images.labelled(Classes).values
    ends = np.cumsum(np.bincount(labels))[:-1]
    for members in np.split(np.argsort(labels, kind="stable"), ends):
        if scored[members].all():
            scored[members[draws[members].argmax()]] = False
        elif len(members) > 1 and not scored[members].any():
            scored[members[draws[members].argmin()]] = True
    return scored


def _draw(file: str) -> float:
    """In [0, 1), evenly spread over names."""
    digest = hashlib.blake2b(file.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def _labelled(root: Path, below: str, files: list[str]) -> Classes | None:
    """The class of each file by its first folder below root/below; None where there are no two classes, or images
    or archives beside them. BadData for a class without an image: every class after it would have another number."""
    first = [file.removeprefix(below).partition("/") for file in files]
    folders = sorted({name for name, slash, _ in first if slash})
    if len(folders) < 2 or not all(slash for _, slash, _ in first) or any(name.endswith(ARCHIVES) for name in folders):
        return None
    if empty := sorted({*contents(root / below).folders} - {*folders}):
        what = f"{len(empty):,} class folder(s) contain no image: {some(empty)}"
        raise bad(root / below, what, "Put images there, or remove the folders.")
    number = {name: i for i, name in enumerate(folders)}
    return Classes(np.array([number[name] for name, _, _ in first], dtype=np.int64), tuple(folders))


def _no_classes(path: Path) -> BadData:
    return bad(path, NO_CLASSES, f"{TREE} `sslbench features` shows nearest neighbours without classes.")


def _instead(skipped: Skipped) -> str:
    return f"; passed over: {'; '.join(texts)}" if (texts := skipped.texts()) else ""


def _every_image(source: Path) -> tuple[Path, list[str], Skipped]:
    """(what the files are relative to, the files, what was passed over)."""
    skipped = Skipped()
    if source.is_dir():
        return source, *_of_folder(source)
    if source.suffix in ARCHIVES:
        return source.parent, _members(source.parent, source.name, skipped), skipped
    if source.suffix in COMPRESSED:
        raise bad(
            source, "is compressed, so no image in it can be found without all before it", f"Unpack it. {ANYTHING}"
        )
    if is_image_name(source.name):
        raise bad(source, "is a single image", ANYTHING)
    return *_listed(source), skipped


def _of_folder(root: Path) -> tuple[list[str], Skipped]:
    files, others, skipped = walk(root)
    if odd := [name for name in {*map(os.path.dirname, files)} if name.endswith(ARCHIVES)]:
        raise bad(root / odd[0], "is a folder that is called like an archive", "Give it another name.")
    archives = [name for name in others if name.endswith(ARCHIVES)]
    skipped.add(NO_IMAGES, [name for name in others if not name.endswith(ARCHIVES) and name != UNREADABLE])
    inside = [file for name in archives for file in _members(root, name, skipped)]
    return (sorted(files + inside) if inside else files), skipped


def _members(root: Path, archive: str, skipped: Skipped) -> list[str]:
    """The images in an archive, in the order of their names."""
    path = root / archive
    names = _zipped(path) if archive.endswith(".zip") else [*tar_index(path)]
    hidden = [name for name in names if any(is_hidden(part) for part in name.split("/"))]
    shown = sorted({*names} - {*hidden})
    images = [name for name in shown if is_image_name(name.rpartition("/")[2])]
    skipped.add(HIDDEN, hidden, archive)
    # beside each image of a webdataset lie its texts and labels: they are counted, not named one by one
    if others := len(shown) - len(images):
        skipped.add(f"archive(s) with {others:,} file(s) that are not images", [archive])
    return [f"{archive}/{name}" for name in images]


def _zipped(path: Path) -> list[str]:
    try:
        infos = open_zip(path).infolist()
    except UnreadableImage as error:
        raise bad(
            path, f"cannot be opened: {error.reason}; it is cut off or damaged", "Fetch or pack it again."
        ) from error
    seen: set[str] = set()
    for info in infos:
        if not info.is_dir():
            check_member(path, info.filename, seen)
            seen.add(info.filename)
    return [*seen]


def _listed(path: Path) -> tuple[Path, list[str]]:
    """(what the lines are relative to, the lines)."""
    lines = {n: line.strip() for n, line in enumerate(read_lines(path, ANYTHING), start=1) if line.strip()}
    if not lines:
        raise bad(path, "the list is empty", "Write one path a line.")
    absolute = [number for number, name in lines.items() if name.startswith("/")]
    if absolute and len(absolute) < len(lines):
        raise bad(f"{path}, line {absolute[0]}", "is absolute, and other lines are not", "Write all in one way.")
    root = Path(os.path.commonpath([os.path.dirname(name) for name in lines.values()])) if absolute else path.parent
    for number, name in lines.items():
        _check_line(f"{path}, line {number}", root, name)
    files = [os.path.relpath(name, root) if absolute else one_name(name) for name in lines.values()]
    if len({*files}) < len(files):
        twice = next(name for name, count in Counter(files).items() if count > 1)
        raise bad(path, f"{twice} is listed twice, so it would count twice", "Remove one of the two lines.")
    return root, files


def _check_line(where: str, root: Path, name: str) -> None:
    if ".." in name.split("/"):
        raise bad(where, f"{name!r} leads out of the list's folder", "Write it without .., or as an absolute path.")
    if not is_image_name(name.rpartition("/")[2]):
        raise bad(where, f"{name!r} is not called like an image", "List images alone; archives go into a folder.")
    if not (root / name).is_file():
        what = f"there is no file {root / name}"
        raise bad(where, what, "Correct or remove the line; paths are relative to the list's folder, or absolute.")


def check(data_root: Path) -> list[Finding]:
    """Nothing besides what reading tells."""
    return []
