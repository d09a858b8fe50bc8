"""Selective search (Uijlings et al., IJCV 2013) by OpenCV, an optional extra: proposals for where the released ones
are not at hand. They are not the same boxes; those come from the authors' MATLAB code."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmark.core.errors import UserError
from benchmark.data.boxes import read_boxes
from benchmark.data.image_set import ImageSet
from benchmark.data.proposals import image_ids, proposals_file, write_proposals

INSTALL = "OpenCV's selective search is not installed: pip install 'sslbench[selective-search]'"


def make_proposals(
    data_root: Path, name: str, split: str, workers: int, report: Callable[[int, int], None]
) -> Path | None:
    """Searches every image of a split of VOC, on so many processes, and writes the file that `read_with_proposals`
    reads; None if it is there already. report: takes (images done, images). Raises UserError without OpenCV."""
    path = proposals_file(data_root, name, split)
    if path.is_file():
        return None
    if importlib.util.find_spec("cv2") is None:
        raise UserError(INSTALL)
    annotated = read_boxes(data_root, name, split)
    write_proposals(path, image_ids(annotated), _all_searched(annotated.images, workers, report))
    return path


def _all_searched(images: ImageSet, workers: int, report: Callable[[int, int], None]) -> list[np.ndarray]:
    from joblib import Parallel, delayed

    found = []
    parallel = Parallel(n_jobs=max(workers, 1), return_as="generator")
    for boxes in parallel(delayed(_of_image)(images, index) for index in range(len(images))):
        found.append(boxes)
        report(len(found), len(images))
    return found


def _of_image(images: ImageSet, index: int) -> np.ndarray:
    return searched(images.open(index))


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
