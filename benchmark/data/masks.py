"""Images with a class index for every pixel: VOC's own, and the Semantic Boundaries Dataset's (Hariharan et al., ICCV
2011, "Semantic Contours from Inverse Detectors"; SBD), which has masks for most of VOC2012's images.

    VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val}.txt   as `benchmark/data/voc.py` reads them
    benchmark_RELEASE/dataset/{train,val}.txt                  SBD's ids, which are VOC's
    benchmark_RELEASE/dataset/cls/2008_000002.mat …            GTcls.Segmentation: 0 background, 1…20 classes

The two disagree along outlines: SBD has no void border.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmark.data import voc
from benchmark.data.datasets import without_unreadable
from benchmark.data.entries import check_entries, read_lines
from benchmark.data.findings import bad
from benchmark.data.image_set import ImageSet

SBD = Path("benchmark_RELEASE", "dataset")
SBD_FIX = "Unpack SBD's benchmark.tgz again, so that benchmark_RELEASE/dataset/cls holds a .mat for every listed id."


@dataclass(frozen=True)
class Masked:
    """images: without labels. masks: for each of them the file of its mask, below the data root."""

    images: ImageSet
    data_root: Path
    masks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def mask(self, index: int) -> np.ndarray:
        """(H, W) uint8: 0 background, 1…20 is CLASSES[value - 1], 255 counts nowhere. A UserError names a mask that
        cannot be read."""
        path = self.data_root / self.masks[index]
        return _sbd_mask(path) if path.suffix == ".mat" else voc.read_mask(path)

    def check_size(self, index: int, mask: np.ndarray, size: tuple[int, int]) -> None:
        """UserError if the mask is not as large as its image, whose size is (width, height)."""
        voc.check_mask_size(self.data_root / self.masks[index], mask, size)

    def fingerprint(self) -> str:
        """As ImageSet.fingerprint, over images and masks."""
        beside = replace(self.images, root=self.data_root, files=self.masks)
        return f"{self.images.fingerprint()}-{beside.fingerprint()}"


def voc_masks(data_root: Path, year: str, split: str) -> Masked:
    """The images of a segmentation split, e.g. 1,449 of VOC2012 val."""
    ids = voc.image_ids(data_root / voc.HOME, year, split, "Segmentation")
    return _masked(data_root, year, ids, f"voc{year}/{split} masks", frozenset(ids))


def train_aug(data_root: Path) -> Masked:
    """VOC2012 train with its own masks, then every image of SBD that is neither there nor in VOC2012 val: 10,582."""
    devkit, sbd = data_root / voc.HOME, data_root / SBD
    train, val = (voc.image_ids(devkit, "2012", split, "Segmentation") for split in ("train", "val"))
    listed = [line.strip() for split in ("train", "val") for line in read_lines(sbd / f"{split}.txt", SBD_FIX)]
    known = {*train, *val}
    extra = sorted({image_id for image_id in listed if image_id} - known)
    return _masked(data_root, "2012", [*train, *extra], "voc2012/train_aug masks", frozenset(train))


def _masked(data_root: Path, year: str, ids: list[str], name: str, own: frozenset[str]) -> Masked:
    """`own`: the ids whose masks are VOC's; the others' are SBD's."""
    root = data_root / voc.HOME / f"VOC{year}"
    everything = ImageSet(name, root, [f"JPEGImages/{image_id}.jpg" for image_id in ids], None, ())
    images = without_unreadable(everything, lambda _: None)
    masks = []
    for file in images.files:
        image_id = Path(file).stem
        below = Path(voc.HOME, f"VOC{year}", "SegmentationClass", f"{image_id}.png")
        masks.append((below if image_id in own else SBD / "cls" / f"{image_id}.mat").as_posix())
    check_entries([*images.files], root, lambda i: f"{name}, image {i + 1}")
    check_entries(masks, data_root, lambda i: f"{name}, mask {i + 1}")
    return Masked(images, data_root, tuple(masks))


def _sbd_mask(path: Path) -> np.ndarray:
    from scipy.io import loadmat  # slow to import, and only SBD's masks need it

    try:
        values = np.asarray(loadmat(path)["GTcls"][0, 0]["Segmentation"])
    except Exception as error:  # a broken file can raise nearly anything
        raise bad(path, f"has no GTcls.Segmentation ({error})", SBD_FIX) from error
    return voc.checked_mask(path, values, SBD_FIX)
