"""Boxes where objects may be, for detectors that look nowhere else. They are made from pixels alone, before training.

Below the data root, as Fast R-CNN's authors released them (rbgirshick/fast-rcnn, selective_search_data.tgz):

    selective_search_data/voc_2007_trainval.mat, voc_2007_test.mat
        images   N cells, each an image id
        boxes    N cells, each (P, 4) numbers: y1, x1, y2, x2 of boxes, counted from 1, the last pixel included
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import box_iou

from benchmark.core.files import write_whole
from benchmark.data.annotation import Annotated
from benchmark.data.boxes import read_boxes
from benchmark.data.findings import bad, some

HOME = "selective_search_data"
UNPACK = f"Unpack Fast R-CNN's selective_search_data.tgz, so that its files are in {HOME}/."

# Windows of all images: sides as parts of the image's shorter side, ratios of height to width, and how far one is from
# the next as a part of its own sides.
PARTS = (0.5**1.5, 0.5, 0.5**0.5, 1.0)
RATIOS = (0.5, 1.0, 2.0)
STEP = 1 / 3


def proposals_file(data_root: Path, name: str, split: str) -> Path:
    """name: "voc2007" or "voc2012"."""
    return data_root / HOME / f"voc_{name.removeprefix('voc')}_{split}.mat"


def read_with_proposals(data_root: Path, name: str, split: str) -> Annotated:
    """A split of VOC with its boxes and its proposals: those of the file, or `windows` where there is none. Raises
    UserError as `read_boxes` does, and for a file that is not as above."""
    annotated = read_boxes(data_root, name, split)
    path = proposals_file(data_root, name, split)
    if path.is_file():
        proposals = read_proposals(path, ids_of(annotated))
    else:
        proposals = [windows(one.size) for one in annotated.annotations]
    pairs = zip(annotated.annotations, proposals, strict=True)
    found = replace(annotated, annotations=tuple(replace(one, proposals=boxes) for one, boxes in pairs))
    _check_inside(path, found)
    return found


def ids_of(annotated: Annotated) -> list[str]:
    return [Path(file).stem for file in annotated.images.files]


def read_proposals(path: Path, ids: Sequence[str]) -> list[np.ndarray]:
    """Of each image (P, 4) float32, as in Annotation. The file may list more images, in another order."""
    from scipy.io import loadmat  # slow to import

    try:
        content = loadmat(path, variable_names=("images", "boxes"))
        listed = [str(cell.item()) for cell in content["images"].ravel()]
        cells = content["boxes"].ravel()
    except Exception as error:  # a broken file can raise nearly anything
        raise bad(path, f"has no images and boxes, as cells ({error})", UNPACK) from error
    if len(listed) != len(cells):
        raise bad(path, f"has {len(listed):,} images and boxes of {len(cells):,}", UNPACK)
    places = {image_id: place for place, image_id in enumerate(listed)}
    if missing := [image_id for image_id in ids if image_id not in places]:
        raise bad(path, f"has no boxes for {len(missing):,} of {len(ids):,} images: {some(missing)}", UNPACK)
    return [_boxes(path, image_id, cells[places[image_id]]) for image_id in ids]


def _boxes(path: Path, image_id: str, cell: np.ndarray) -> np.ndarray:
    if cell.size == 0:
        return np.zeros((0, 4), dtype=np.float32)
    if cell.ndim != 2 or cell.shape[1] != 4 or cell.dtype.kind not in "uif":
        raise bad(path, f"the boxes of {image_id} are {cell.dtype} of shape {cell.shape}, not (P, 4) numbers", UNPACK)
    y1, x1, y2, x2 = cell.astype(np.float32).T
    boxes = np.stack([x1 - 1, y1 - 1, x2, y2], axis=1)
    if not (boxes[:, 2:] > boxes[:, :2]).all():
        raise bad(path, f"a box of {image_id} contains no pixel", UNPACK)
    return boxes


def _check_inside(path: Path, annotated: Annotated) -> None:
    """Boxes whose x and y are the wrong way round would be trained on in silence."""
    each = zip(ids_of(annotated), annotated.annotations, proposals_of(annotated), strict=True)
    outside = [
        image_id for image_id, one, boxes in each if (boxes < 0).any() or (boxes[:, 2:] > np.array(one.size)).any()
    ]
    if outside:
        what = f"boxes of {len(outside):,} images reach beyond them ({some(outside)}); each is y1, x1, y2, x2, from 1"
        raise bad(path, what, UNPACK)


def proposals_of(annotated: Annotated) -> list[np.ndarray]:
    """Of each image (P, 4)."""
    return [one.proposals for one in annotated.annotations if one.proposals is not None]


def write_proposals(path: Path, ids: Sequence[str], boxes: Sequence[np.ndarray]) -> None:
    """boxes: of each image (P, 4), as in Annotation, of whole pixels."""
    from scipy.io import savemat

    images, cells = np.empty((len(ids), 1), dtype=object), np.empty((1, len(ids)), dtype=object)
    for place, (image_id, own) in enumerate(zip(ids, boxes, strict=True)):
        x1, y1, x2, y2 = own.T
        images[place, 0], cells[0, place] = image_id, np.stack([y1 + 1, x1 + 1, y2, x2], axis=1).astype(np.uint16)
    content = io.BytesIO()
    savemat(content, {"images": images, "boxes": cells}, do_compression=True)
    write_whole(path, content.getvalue())


def windows(size: tuple[int, int]) -> np.ndarray:
    """(P, 4) float32 boxes that slide over an image of (width, height): the same for all images of a size. Toyland's,
    of 128 x 96, have some 350."""
    found = []
    for part in PARTS:
        for ratio in RATIOS:
            side = part * min(size)
            width, height = min(side / math.sqrt(ratio), size[0]), min(side * math.sqrt(ratio), size[1])
            x, y = np.meshgrid(_starts(size[0], width), _starts(size[1], height))
            found.append(np.stack([x, y, x + width, y + height], axis=2).reshape(-1, 4))
    whole = np.round(np.concatenate(found))
    return np.unique(whole, axis=0).astype(np.float32)


def _starts(length: int, window: float) -> np.ndarray:
    return np.linspace(0, length - window, math.ceil((length - window) / (STEP * window)) + 1)


def share_proposed(annotated: Annotated, overlap: float = 0.5) -> float:
    """Recall: of the objects that are not ignored, the share in [0, 1] with a proposal of at least so much IoU."""
    pairs = zip(annotated.annotations, proposals_of(annotated), strict=True)
    best = [_best_overlaps(one.boxes[~one.ignored], proposals) for one, proposals in pairs]
    return float((np.concatenate(best) >= overlap).mean())


def _best_overlaps(objects: np.ndarray, proposals: np.ndarray) -> np.ndarray:
    """(M, 4), (P, 4) -> (M,) the highest IoU of each object."""
    if not len(proposals):
        return np.zeros(len(objects))
    return box_iou(*(torch.from_numpy(boxes).double() for boxes in (objects, proposals))).amax(dim=1).numpy()
