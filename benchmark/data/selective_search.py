"""Selective search (Uijlings et al., IJCV 2013) by OpenCV, an optional extra: proposals for where the released ones
are not at hand. They are not the same boxes; those come from the authors' MATLAB code."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from benchmark.core.errors import UserError
from benchmark.data.boxes import read_boxes
from benchmark.data.image_set import ImageSet
from benchmark.data.loader import Samples, in_order, one_by_one
from benchmark.data.proposals import ids_of, proposals_file, write_proposals

INSTALL = "OpenCV's selective search is not installed: pip install 'sslbench[selective-search]'"


def make_proposals(data_root: Path, name: str, split: str, workers: int, progress: bool) -> Path:
    """Searches every image of a split of VOC, in so many processes, and writes the file that `read_with_proposals`
    reads, which it returns. One that is there is kept. Raises UserError without OpenCV."""
    path = proposals_file(data_root, name, split)
    if path.is_file():
        return path
    if importlib.util.find_spec("cv2") is None:
        raise UserError(INSTALL)
    annotated = read_boxes(data_root, name, split)
    write_proposals(path, ids_of(annotated), _all_searched(annotated.images, workers, progress))
    return path


def _all_searched(images: ImageSet, workers: int, progress: bool) -> list[np.ndarray]:
    from rich.console import Console
    from rich.progress import track

    found = in_order(_Searched(images, seed=0), one_by_one(len(images)), workers)
    shown = track(found, images.name, len(images), console=Console(stderr=True), disable=not progress)
    return [boxes for (boxes,) in shown]


class _Searched(Samples):
    def sample(self, image: Image.Image, index: int) -> np.ndarray:
        return searched(image)


def searched(image: Image.Image) -> np.ndarray:
    """(P, 4) float32 boxes of an image, as in Annotation, in "fast mode", as the authors of R-CNN had theirs. In order
    of place: OpenCV's own order is drawn at random."""
    import cv2

    cv2.setNumThreads(1)
    try:
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    except AttributeError as error:  # an OpenCV without its contributed modules
        raise UserError(INSTALL) from error
    search.setBaseImage(np.ascontiguousarray(np.asarray(image)[:, :, ::-1]))
    search.switchToSelectiveSearchFast()
    x, y, width, height = search.process().T
    return np.unique(np.stack([x, y, x + width, y + height], axis=1), axis=0).astype(np.float32)
