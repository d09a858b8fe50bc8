"""PASCAL VOC 2007 and 2012 (Everingham et al. 2010, "The PASCAL Visual Object Classes Challenge", IJCV): one layout.

    VOCdevkit/VOC2007/JPEGImages/000005.jpg …
    VOCdevkit/VOC2007/Annotations/000005.xml …                   boxes
    VOCdevkit/VOC2007/ImageSets/Main/{trainval,…}.txt            ids
    VOCdevkit/VOC2007/ImageSets/Main/aeroplane_trainval.txt …    id and 1 present, -1 absent, 0 only "difficult" ones
    VOCdevkit/VOC2007/ImageSets/Segmentation/{train,val,…}.txt   ids of the images that have masks
    VOCdevkit/VOC2007/SegmentationClass/000032.png …             palette images: 0 background, 1…20 classes, 255 border

VOCdevkit/VOC2012 is the same with ids such as 2008_000008. `devkit` below is the folder VOCdevkit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeElementTree
from PIL import Image

from benchmark.data.annotation import Annotation, check_stated_size
from benchmark.data.entries import check_entries, read_lines
from benchmark.data.findings import BadData, Finding, bad, first, some
from benchmark.data.image_set import ImageSet
from benchmark.data.images import image_size
from benchmark.data.labels import Presence

HOME = "VOCdevkit"
CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
           "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")  # fmt: skip
PRESENCE = {"1": 1, "-1": 0, "0": -1}  # VOC's code -> ours: 1 present, 0 absent, -1 ignored
IGNORED = 255  # in masks: the border between objects
DIFFERING = 0.02  # of the images that show a class, by the lists or by the xml
CORRECTED = 2  # files of a class that may differ however small it is, if it has FEW images or more
FEW = 20
ID = re.compile(r"\w+")
UNPACK = "Unpack the year's trainval and test archives again."


def read_classification(data_root: Path, year: str, split: str) -> ImageSet:
    """Labels (N, 20) from ImageSets/Main, as in every published protocol. Where there is xml, it must agree."""
    root = data_root / HOME / f"VOC{year}"
    ids = image_ids(data_root / HOME, year, split, "Main")
    columns = [_presence(root / "ImageSets" / "Main" / f"{name}_{split}.txt", ids) for name in CLASSES]
    labels = np.stack(columns, axis=1)
    differing = _check_lists(root, split, ids, labels)
    files = [f"JPEGImages/{image_id}.jpg" for image_id in ids]
    return ImageSet(f"voc{year}/{split}", root, files, Presence(labels, CLASSES), differing)


def _check_lists(root: Path, split: str, ids: list[str], labels: np.ndarray) -> tuple[str, ...]:
    """Holds the lists' labels (N, 20) against the xml of the images that have any. UserError if one class differs in
    more than DIFFERING of the images that show it, and in more than CORRECTED; what differs in fewer is returned in
    words: the lists were made from the xml, but later corrections of single files are no reason to refuse a dataset."""
    folder = root / "Annotations"
    there = {path.stem for path in folder.glob("*.xml")}
    rows = [row for row, image_id in enumerate(ids) if image_id in there]
    if not rows:
        return ()
    found = np.stack([_presence_in_xml(folder / f"{ids[row]}.xml") for row in rows])
    listed = labels[rows]
    texts = []
    for label, name in enumerate(CLASSES):
        wrong = np.flatnonzero(listed[:, label] != found[:, label])
        if not len(wrong):
            continue
        path, named = f"{name}_{split}.txt", some([ids[rows[row]] for row in wrong])
        shown = int(((listed[:, label] != 0) | (found[:, label] != 0)).sum())
        if len(wrong) > max(CORRECTED if shown >= FEW else 0, DIFFERING * shown):
            what = f"contradicts the xml in {len(wrong):,} of the {shown:,} images that show a {name}: {named}"
            raise bad(root / "ImageSets" / "Main" / path, what, UNPACK)
        texts.append(f"label(s) of the xml that {path} does not share, {len(wrong):,}: {named}")
    return tuple(texts)


def _presence_in_xml(path: Path) -> np.ndarray:
    """(20,) int64: what the lists should say of one image, as codes of ours."""
    codes = np.zeros(len(CLASSES), dtype=np.int64)
    for item in _parse(path).findall("object"):
        label = _label(path, item)
        codes[label] = 1 if not _is_difficult(item) else codes[label] or PRESENCE["0"]
    return codes


def image_ids(devkit: Path, year: str, split: str, task: str) -> list[str]:
    """The ids of a split of task "Main" (classification, detection) or "Segmentation". Each image must exist."""
    root = devkit / f"VOC{year}"
    path = root / "ImageSets" / task / f"{split}.txt"
    ids = [fields[0] for fields in _fields(path, 1)]
    check_entries([f"{i}.jpg" for i in ids], root / "JPEGImages", lambda i: f"{path}, line {i + 1}")
    return ids


def segmentation_ids(devkit: Path, year: str) -> tuple[list[str], list[str]]:
    """The ids of segmentation train and val. UserError if they share one: nothing may be both trained and scored on."""
    train, val = (image_ids(devkit, year, split, "Segmentation") for split in ("train", "val"))
    shared = sorted({*train} & {*val})
    if shared:
        path = devkit / f"VOC{year}" / "ImageSets" / "Segmentation" / "train.txt"
        raise bad(path, f"{len(shared):,} of its images are in val.txt too: {some(shared)}", UNPACK)
    return train, val


def _fields(path: Path, count: int) -> list[list[str]]:
    """The fields of every line, the first an image id. They may be two spaces apart, so any white space splits them."""
    rows = []
    for number, line in enumerate(read_lines(path, UNPACK), start=1):
        fields = line.split()
        if len(fields) != count or not ID.fullmatch(fields[0]):
            what = f"{line!r} is not an image id" + (" and a label" if count == 2 else "")
            raise bad(f"{path}, line {number}", what, UNPACK)
        rows.append(fields)
    if not rows:
        raise bad(path, "the list is empty", UNPACK)
    return rows


def _presence(path: Path, ids: list[str]) -> np.ndarray:
    """(N,) int64 codes of one class for the images `ids`."""
    rows = _fields(path, 2)
    if [row[0] for row in rows] != ids:
        raise bad(path, f"does not list the same {len(ids):,} images as the split", UNPACK)
    for number, row in enumerate(rows, start=1):
        if row[1] not in PRESENCE:
            raise bad(f"{path}, line {number}", f"the label {row[1]!r} is not 1, 0 or -1", UNPACK)
    return np.array([PRESENCE[row[1]] for row in rows], dtype=np.int64)


def annotation(devkit: Path, year: str, image_id: str) -> Annotation:
    """The objects in VOC<year>/Annotations/<image_id>.xml, in the order of the file; difficult ones are ignored.

    The xml counts pixels from 1 and includes the last: a box is xmin - 1, ymin - 1, xmax, ymax. VOC2012 has fractions.
    Boxes are clipped to the image: a few of VOC's reach a pixel beyond it. A box that is wholly outside is a
    UserError."""
    path = devkit / f"VOC{year}" / "Annotations" / f"{image_id}.xml"
    tree = _parse(path)
    objects = tree.findall("object")  # children only: a person's head and hands are boxes of a "part" further down
    boxes = np.array([_box(path, item) for item in objects], dtype=np.float32).reshape(-1, 4)
    labels = np.array([_label(path, item) for item in objects], dtype=np.int64)
    difficult = np.array([_is_difficult(item) for item in objects], dtype=bool)
    width, height = (int(_number(path, tree, f"size/{side}")) for side in ("width", "height"))
    if width < 1 or height < 1:
        what = f"says that its image is {width} × {height}, which none is; some tools write 0 where they know no size"
        raise bad(path, what, UNPACK)
    return Annotation(_inside(path, boxes, width, height), labels, difficult, (width, height))


def _is_difficult(item: Element) -> bool:
    return (item.findtext("difficult") or "0").strip() == "1"


def _parse(path: Path) -> Element:
    """The xml's root element. Entities are refused: a few hundred bytes of them can expand to gigabytes."""
    try:
        root: Element = SafeElementTree.fromstring(path.read_bytes(), forbid_dtd=False)
    except FileNotFoundError as error:
        raise bad(path, "there is no such file", UNPACK) from error
    except DefusedXmlException as error:
        what = "defines entities, which no VOC annotation does and which can use up all memory"
        raise bad(path, what, "Do not trust this copy: fetch the archive again.") from error
    except (ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise bad(path, f"is not well-formed xml ({error})", UNPACK) from error
    return root


def _number(path: Path, element: Element, tag: str) -> float:
    try:
        value = float(element.findtext(tag) or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise bad(path, f"{tag} of the {element.tag} is missing or not a number", UNPACK)
    return value


def _box(path: Path, item: Element) -> tuple[float, float, float, float]:
    xmin, ymin, xmax, ymax = (_number(path, item, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
    if not (xmin - 1 < xmax and ymin - 1 < ymax):
        raise bad(path, f"the box {xmin:g}, {ymin:g}, {xmax:g}, {ymax:g} contains no pixel", UNPACK)
    return xmin - 1, ymin - 1, xmax, ymax


def _inside(path: Path, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Boxes (M, 4), clipped to the image."""
    inside = np.clip(boxes, 0, np.array([width, height, width, height], dtype=np.float32))
    empty = np.flatnonzero((inside[:, 2:] <= inside[:, :2]).any(axis=1))
    if len(empty):
        box = ", ".join(f"{value:g}" for value in boxes[empty[0]])
        raise bad(path, f"the box {box} lies outside the image of {width} × {height}", UNPACK)
    return inside


def _label(path: Path, item: Element) -> int:
    name = (item.findtext("name") or "").strip()
    if name not in CLASSES:
        raise bad(path, f"the object {name!r} is not one of the 20 classes", UNPACK)
    return CLASSES.index(name)


def mask(devkit: Path, year: str, image_id: str) -> np.ndarray:
    """(H, W) uint8 from SegmentationClass: 0 background, 1…20 is CLASSES[value - 1], 255 ignored."""
    return read_mask(devkit / f"VOC{year}" / "SegmentationClass" / f"{image_id}.png")


def read_mask(path: Path) -> np.ndarray:
    """Like `mask`, from a file: indices, whatever colours the palette gives them."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            mode, values = image.mode, np.array(image)
    except FileNotFoundError as error:
        raise bad(path, "there is no such mask", UNPACK) from error
    except Exception as error:  # a broken PNG can raise nearly anything
        raise bad(path, f"cannot be decoded ({error})", UNPACK) from error
    if mode not in ("P", "L"):
        what = f"contains colours (mode {mode}), not palette indices"
        raise bad(path, what, "The mask was converted to RGB along the way: unpack it again.")
    return checked_mask(path, values, UNPACK)


def checked_mask(path: Path, values: np.ndarray, fix: str) -> np.ndarray:
    """`values` as (H, W) uint8; UserError if they are not a table of numbers, or one of them is not a class."""
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise bad(path, f"is not a table of numbers but {values.dtype} of shape {values.shape}", fix)
    strange = sorted(set(np.unique(values).tolist()) - {*range(len(CLASSES) + 1), IGNORED})
    if strange:
        raise bad(path, f"has values that are not classes: {some([str(value) for value in strange])}", fix)
    return values.astype(np.uint8)


def check_mask_size(path: Path, values: np.ndarray, size: tuple[int, int], fix: str) -> None:
    """UserError if a mask (H, W) does not have the size of its image, (width, height)."""
    if size != values.shape[::-1]:
        raise bad(path, f"is {values.shape[1]} × {values.shape[0]}, but its image is {size[0]} × {size[1]}", fix)


def check_year(data_root: Path, year: str) -> list[Finding]:
    """Every annotation must parse and state its image's size; every image of a segmentation list must have a mask of
    the same size."""
    devkit = data_root / HOME
    root = devkit / f"VOC{year}"
    errors = [
        _error_of(_check_annotation, devkit, year, path.stem) for path in sorted((root / "Annotations").glob("*.xml"))
    ]
    splits = _lists(root / "ImageSets" / "Segmentation")
    if {"train", "val"} <= {*splits}:
        errors.append(_error_of(segmentation_ids, devkit, year))
    for split in splits:
        errors += [
            _error_of(_check_mask, devkit, year, image_id)
            for image_id in image_ids(devkit, year, split, "Segmentation")
        ]
    found = {str(error): Finding("error", f"voc{year}", error.path, error.what, error.fix) for error in errors if error}
    findings = first(list(found.values()), f"voc{year}", root, UNPACK)
    return findings + _missing_annotations(devkit, year) + _trainval(devkit, year)


def _trainval(devkit: Path, year: str) -> list[Finding]:
    """trainval is train and val together, so each tells what the other lost."""
    folder = devkit / f"VOC{year}" / "ImageSets" / "Main"
    if not {"train", "val", "trainval"} <= {*_lists(folder)}:
        return []
    train, val, both = ({*image_ids(devkit, year, split, "Main")} for split in ("train", "val", "trainval"))
    odd = sorted(both ^ (train | val))
    if not odd:
        return []
    what = f"{len(odd):,} image(s) are either in trainval.txt or in train.txt and val.txt: {some(odd)}"
    return [Finding("error", f"voc{year}", str(folder / "trainval.txt"), what, UNPACK)]


def _lists(folder: Path) -> list[str]:
    """The splits that have a list of ids in an ImageSets folder."""
    return [split for split in ("train", "val", "trainval", "test") if (folder / f"{split}.txt").is_file()]


def _error_of(reader: Callable[..., object], *arguments: object) -> BadData | None:
    try:
        reader(*arguments)
    except BadData as error:
        return error
    return None


def _check_annotation(devkit: Path, year: str, image_id: str) -> None:
    stated, path = annotation(devkit, year, image_id).size, image_file(devkit, year, image_id)
    size = image_size(path)
    if size:
        check_stated_size(path, size, stated, UNPACK)


def _check_mask(devkit: Path, year: str, image_id: str) -> None:
    values, size = mask(devkit, year, image_id), image_size(image_file(devkit, year, image_id))
    if size:
        check_mask_size(devkit / f"VOC{year}" / "SegmentationClass" / f"{image_id}.png", values, size, UNPACK)


def image_file(devkit: Path, year: str, image_id: str) -> Path:
    return devkit / f"VOC{year}" / "JPEGImages" / f"{image_id}.jpg"


def _missing_annotations(devkit: Path, year: str) -> list[Finding]:
    root = devkit / f"VOC{year}"
    there = {path.stem for path in (root / "Annotations").glob("*.xml")}
    listed = {i for split in _lists(root / "ImageSets" / "Main") for i in image_ids(devkit, year, split, "Main")}
    missing = sorted(listed - there)
    if not missing:
        return []
    what = f"{len(missing):,} of {len(listed):,} images have no annotation, which detection needs: {some(missing)}"
    return [Finding("error", f"voc{year}", str(root / "Annotations"), what, UNPACK)]
