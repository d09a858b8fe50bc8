"""Images with a class index for every pixel: VOC's own, as `benchmark/data/voc.py` reads them, and the Semantic
Boundaries Dataset's (`benchmark/data/sbd.py`). The two disagree along outlines: SBD has no void border.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.data import sbd, voc
from benchmark.data.datasets import without_unreadable
from benchmark.data.entries import check_entries
from benchmark.data.findings import bad, some
from benchmark.data.image_set import ImageSet

SEG11VALID = Path(voc.HOME, "VOC2012", "ImageSets", "Segmentation", "seg11valid.txt")


@dataclass(frozen=True)
class Masked:
    """images: without labels. masks: the mask file of each image, relative to the data root."""

    images: ImageSet
    data_root: Path
    masks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def mask(self, index: int) -> np.ndarray:
        """(H, W) uint8: 0 background, 1…20 is CLASSES[value - 1], 255 is ignored. UserError naming a mask that cannot
        be read."""
        path = self.data_root / self.masks[index]
        return sbd.read_mat_mask(path) if path.suffix == ".mat" else voc.read_mask(path)

    def check_size(self, index: int, mask: np.ndarray, size: tuple[int, int]) -> None:
        """UserError if the mask does not have the size of its image, (width, height)."""
        path = self.data_root / self.masks[index]
        voc.check_mask_size(path, mask, size, sbd.FIX if path.suffix == ".mat" else voc.UNPACK)

    def fingerprint(self) -> str:
        """Like ImageSet.fingerprint, with every pixel of every mask as well: masks are the labels, and no change to
        them may slip through. It hashes pixels and not file bytes, which another PNG encoder would change."""
        digest = hashlib.sha256(self.images.fingerprint().encode())
        for index, name in enumerate(self.masks):
            mask = self.mask(index)
            digest.update(f"{name}\0{mask.shape}\n".encode() + mask.tobytes())
        return digest.hexdigest()[:12]


def voc_masks(data_root: Path, year: str, split: str) -> Masked:
    """The images of a segmentation split, e.g. 1,449 of VOC2012 val."""
    ids = voc.image_ids(data_root / voc.HOME, year, split, "Segmentation")
    return _masked(data_root, year, ids, f"voc{year}/{split} masks", frozenset(ids))


def train_aug(data_root: Path) -> Masked:
    """VOC2012 train with its own masks, then every image of SBD that is neither there nor in VOC2012 val: 10,582.
    UserError if VOC's train and val share an image."""
    train, val = voc.segmentation_ids(data_root / voc.HOME, "2012")
    listed = {image_id for split in sbd.SPLITS for image_id in sbd.sbd_image_ids(data_root, split)}
    extra = sorted(listed - {*train, *val})
    return _masked(data_root, "2012", [*train, *extra], "voc2012/train_aug masks", frozenset(train))


def sbd_train(data_root: Path) -> Masked:
    """Every image of SBD's own train, with SBD's masks: 8,498. Some are in VOC2012's segmentation val."""
    ids = sbd.sbd_image_ids(data_root, "train")
    return _masked(data_root, "2012", ids, "sbd/train masks", frozenset())


def seg11valid(data_root: Path) -> Masked:
    """The images of Long et al.'s list `seg11valid.txt`, where it lies beside VOC2012's, with VOC's masks: 736 of
    VOC2011's val, none of which is in SBD's train. Without the list, all of VOC2012's val that are not. UserError if
    the list names an image of SBD's train, which is trained on."""
    trained = {*sbd.sbd_image_ids(data_root, "train")}
    listed = (data_root / SEG11VALID).is_file()
    split = SEG11VALID.stem if listed else "val"
    ids = voc.image_ids(data_root / voc.HOME, "2012", split, "Segmentation")
    if listed and (shared := sorted(trained & {*ids})):
        what = f"lists {len(shared):,} images of SBD's train: {some(shared)}"
        raise bad(data_root / SEG11VALID, what, "Take the list from shelhamer/fcn.berkeleyvision.org, data/pascal.")
    kept = [image_id for image_id in ids if image_id not in trained]
    name = f"voc2012/{split} masks" if listed else "voc2012/val masks without SBD's train"
    return _masked(data_root, "2012", kept, name, frozenset(kept))


def _masked(data_root: Path, year: str, ids: list[str], name: str, own: frozenset[str]) -> Masked:
    """`own`: the ids with VOC's masks; the others have SBD's."""
    root = data_root / voc.HOME / f"VOC{year}"
    everything = ImageSet(name, root, [f"JPEGImages/{image_id}.jpg" for image_id in ids])
    images = without_unreadable(everything, lambda _: None)
    masks = []
    for file in images.files:
        image_id = Path(file).stem
        below = Path(voc.HOME, f"VOC{year}", "SegmentationClass", f"{image_id}.png")
        masks.append((below if image_id in own else sbd.mask_file(image_id)).as_posix())
    check_entries([*images.files], root, lambda i: f"{name}, image {i + 1}")
    check_entries(masks, data_root, lambda i: f"{name}, mask {i + 1}")
    return Masked(images, data_root, tuple(masks))
