"""What a training set and the set it is scored on must agree on: the same classes, no image in both, and each folder of
one class. Every run checks it before it scores, and the doctor says it of each dataset."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmark.core.own_images import OWN_IMAGES
from benchmark.data.findings import bad, some
from benchmark.data.image_set import ImageSet
from benchmark.data.images import UnreadableImage, file_size, is_in_archive, read_bytes
from benchmark.data.labels import Classes

LISTS = "Take all lists of a dataset from one release; a subset must have the same classes in every split"
SAME_FOLDERS = "Give both parts the same class folders, spelled alike"


def check_classes(train: ImageSet, test: ImageSet) -> None:
    """A class index must mean the same class in both. BadData if it does not."""
    if train.labels is None or test.labels is None or train.classes == test.classes:
        return
    what = [
        f"only {here.name} has {some(sorted(missing), 3)}"
        for here, there in ((train, test), (test, train))
        if (missing := {*here.classes} - {*there.classes})
    ]
    numbers = zip(train.classes, test.classes, strict=False)
    place = next((i for i, (one, other) in enumerate(numbers) if one != other), len(test.classes))
    if not what:
        what = [f"class {place} is {train.classes[place]} in the first and {test.classes[place]} in the second"]
    counts = f"{train.name} has {len(train.classes):,} classes and {test.name} {len(test.classes):,}"
    differ = f"which are not the same in the same order: {'; '.join(what)}. Every score would be wrong"
    is_own = train.name.startswith(f"{OWN_IMAGES}/")
    raise bad(train.root, f"{counts}, {differ}", SAME_FOLDERS if is_own else LISTS)


def check_folders(train: ImageSet, test: ImageSet) -> None:
    """Where both splits lie in the same folders, one for each class, a folder must be of the same class in both.
    BadData if it is not."""
    if not isinstance(train.labels, Classes) or not isinstance(test.labels, Classes) or train.root != test.root:
        return
    class_of: dict[str, int] = {}
    for file, label in zip(train.files, train.labels.values.tolist(), strict=True):
        folder = file.rpartition("/")[0]
        class_of[folder] = label if class_of.get(folder, label) == label else -1  # -1: of several
    for file, label in zip(test.files, test.labels.values.tolist(), strict=True):
        known = class_of.get(file.rpartition("/")[0], -1)
        if known not in (-1, label):
            here = f"in {test.name} {file} has the class {test.classes[label]}"
            there = f"in {train.name} its folder has {train.classes[known]}. Every score would be wrong"
            raise bad(test.root, f"{here}, but {there}", LISTS)


def check_apart(train: ImageSet, test: ImageSet) -> None:
    """No image may stand in both. BadData if one does."""
    if shared := shared_images(test, train):
        what = (
            f"{len(shared):,} of the {len(test):,} images of {test.name} are in {train.name} too, which is trained on"
        )
        fix = "What is scored must not be trained on: take them out of one of the two"
        raise bad(test.root, f"{what}: {some(shared, 3)}", fix)


def shared_images(first: ImageSet, second: ImageSet) -> list[str]:
    """Files of `first` that are files of `second` too, under whatever name: links to files and folders are followed.
    Copies are not found, but by `copies`. Only the names of `second` are held in memory."""
    held = set(_real_names(second))
    return [name for name, real in zip(first.files, _real_names(first), strict=True) if real in held]


def copies(first: ImageSet, second: ImageSet) -> list[tuple[str, str]]:
    """(file of `first`, file of `second`) of equal bytes, one pair for a file of `first`. Read is only what is as long
    as a file of the other set. What is empty or cannot be read equals nothing, nor does what is in an archive equal a
    file outside of one."""
    lengths = _lengths(first) & _lengths(second)
    known = {content: file for file, content in _contents(second, lengths)}
    return [(file, known[content]) for file, content in _contents(first, lengths) if content in known]


def _lengths(images: ImageSet) -> set[int]:
    return {_length(images, file) for file in images.files}


def _length(images: ImageSet, file: str) -> int:
    """Of a member of an archive 0: how long it is stands in the archive."""
    return 0 if is_in_archive(images.root, file) else file_size(images.root, file)


def _contents(images: ImageSet, lengths: set[int]) -> Iterator[tuple[str, bytes]]:
    """(file, hash of its bytes) of those of these lengths."""
    for file in images.files:
        if _length(images, file) in lengths:
            try:
                content = read_bytes(images.root, file)
            except UnreadableImage:
                continue
            if content:
                yield file, hashlib.blake2b(content, digest_size=16).digest()


def _real_names(images: ImageSet) -> Iterator[str]:
    """The path of each image without links, in order. Each folder is looked at once: a link more would cost a set of a
    million links a minute."""
    folders: dict[str, tuple[str, set[str]]] = {}
    real_folder = functools.cache(os.path.realpath)
    root = real_folder(images.root)
    for file in images.files:
        folder, _, name = file.rpartition("/")
        if folder not in folders:
            folders[folder] = real_folder(images.root / folder), _links(images.root / folder)
        real, links = folders[folder]
        yield _behind(real, name, root, real_folder) if name in links else f"{real}/{name}"


def _behind(folder: str, name: str, root: str, real_folder: Callable[[str], str]) -> str:
    """What a link leads to; itself, if that is outside of the dataset and has another name: stores that keep each
    content once (git-annex, DVC) name it by its hash, and make one file of two photos that happen to be equal."""
    try:
        target = os.path.join(folder, os.readlink(f"{folder}/{name}"))
    except OSError:  # gone since: whoever opens it tells
        return f"{folder}/{name}"
    place, _, called = target.rpartition("/")
    real = f"{real_folder(place)}/{called}"
    return real if called == name or real.startswith(f"{root}/") else f"{folder}/{name}"


def _links(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_symlink()}
    except OSError:  # a zip is a file; and what cannot be listed cannot be read, which its reader tells
        return set()
