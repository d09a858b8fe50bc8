"""iNaturalist 2018 (Van Horn et al. 2018, "The iNaturalist Species Classification and Detection Dataset", CVPR).

    inat2018/train_val2018/Plantae/7477/3b60c9486db1d2ee875f11a669fbde4a.jpg …
    inat2018/{train,val}2018.json    COCO style: images (id, file_name), annotations (image_id, category_id), categories

A class index is the position of its category id in increasing order (the real ids are 0…8141, so it is the id itself).
The test images have no labels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.data.entries import check_entries
from benchmark.data.findings import BadData, Finding, bad
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes

NAME = "inat2018"
HOME = "inat2018"
SPLITS = {"train": (437_513, 8142), "val": (24_426, 8142)}
LABELS = Classes
ALSO_CALLED: tuple[str, ...] = ("iNaturalist2018", "inat")

IMAGES = "train_val2018"


def read(data_root: Path, split: str) -> ImageSet:
    root = data_root / HOME
    path = root / f"{split}2018.json"
    content = _load(path)
    categories = _categories(path, content)
    index = {category: i for i, category in enumerate(categories)}
    category_of = _category_of_image(path, content, index)
    files, labels = [], []
    for i, image in enumerate(content["images"]):
        try:
            files.append(str(image["file_name"]))
            labels.append(index[category_of[image["id"]]])
        except (KeyError, TypeError) as error:
            raise _bad(f"{path}, images[{i}]", "no file_name, or no annotation has its id", split) from error
    _check_ids(path, content, split)
    _check_files(root, path, files)
    return ImageSet(
        f"{NAME}/{split}", root, files, Classes(np.array(labels, dtype=np.int64), tuple(categories.values()))
    )


def _bad(where: Path | str, what: str, split: str) -> BadData:
    return bad(where, what, f"Unpack {split}2018.json.tar.gz again.")


def _load(path: Path) -> dict[str, Any]:
    split = path.name[: -len("2018.json")]
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise _bad(path, "there is no such file", split) from error
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"is not JSON ({error})", split) from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list) or not content[key]:
            raise _bad(path, f"has no list of {key}", split)
    return content


def _categories(path: Path, content: dict[str, Any]) -> dict[int, str]:
    """Category id -> name, in increasing order of the id."""
    split = path.name[: -len("2018.json")]
    try:
        found = {c["id"]: str(c["name"]) for c in sorted(content["categories"], key=lambda c: int(c["id"]))}
    except (KeyError, TypeError, ValueError) as error:
        raise _bad(f"{path}, categories", "an entry has no id or no name", split) from error
    if len(found) < len(content["categories"]):
        raise _bad(f"{path}, categories", "an id is listed twice", split)
    return found


def _category_of_image(path: Path, content: dict[str, Any], known: dict[int, int]) -> dict[int, int]:
    """Image id -> category id; exactly one annotation per image."""
    split = path.name[: -len("2018.json")]
    category_of: dict[int, int] = {}
    for i, annotation in enumerate(content["annotations"]):
        where = f"{path}, annotations[{i}]"
        try:
            image, category = annotation["image_id"], annotation["category_id"]
            repeated, unknown = image in category_of, category not in known
        except (KeyError, TypeError) as error:
            raise _bad(where, "lacks image_id or category_id", split) from error
        if unknown:
            raise _bad(where, f"category_id {category!r} is not in categories", split)
        if repeated:
            raise _bad(where, f"image {image!r} is annotated twice", split)
        category_of[image] = category
    return category_of


def _check_ids(path: Path, content: dict[str, Any], split: str) -> None:
    """No image may be listed twice, and none annotated that is not listed."""
    seen = set()
    for i, image in enumerate(content["images"]):
        if image["id"] in seen:
            raise _bad(f"{path}, images[{i}]", f"id {image['id']!r} is listed twice", split)
        seen.add(image["id"])
    for i, annotation in enumerate(content["annotations"]):
        if annotation["image_id"] not in seen:
            raise _bad(f"{path}, annotations[{i}]", f"image_id {annotation['image_id']!r} is not in images", split)


def _check_files(root: Path, path: Path, files: list[str]) -> None:
    """Names begin with train_val2018/, which is checked separately because it is often a link to another disk."""
    for i, file in enumerate(files):
        if not file.startswith(IMAGES + "/"):
            what = f"{file!r} points outside {root / IMAGES}"
            raise bad(f"{path}, images[{i}]", what, "Such an entry is an error or an attack: fetch the list again.")
    names = [file[len(IMAGES) + 1 :] for file in files]
    check_entries(names, root / IMAGES, lambda i: f"{path}, images[{i}]")


def check(data_root: Path) -> list[Finding]:
    """Both lists must number the same categories."""
    paths = [data_root / HOME / f"{split}2018.json" for split in SPLITS]
    train, val = [_categories(path, _load(path)) for path in paths]
    if train == val:
        return []
    what = f"train2018.json has {len(train):,} categories and val2018.json {len(val):,}; they are not the same"
    return [Finding("error", NAME, str(data_root / HOME), what, "Unpack both lists again, from the same release.")]
