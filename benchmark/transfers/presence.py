"""Images that show several classes each: which of these can be scored, and what each image does to their mean AP."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from benchmark.core.errors import UserError
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Presence
from benchmark.transfers.influence import influences

PRESENT, ABSENT, IGNORED = 1, 0, -1  # codes of Presence

AveragePrecision = Callable[[np.ndarray, np.ndarray], float]  # scores (M,) and which are positive (M,) -> percent


def scorable(train: ImageSet, test: ImageSet) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Class -> its codes in both sets, for classes with a positive in both; that is every class of the real VOC2007.
    Raises UserError where there is no such class, or one that every image shows."""
    codes = [images.labelled(Presence).values.T for images in (train, test)]
    pairs = zip(train.classes, *codes, strict=True)
    found = {name: (a, b) for name, a, b in pairs if (a == PRESENT).any() and (b == PRESENT).any()}
    if not found:
        raise UserError(f"no class has an image in {train.name} and one in {test.name}, so none can be scored")
    for name, (codes_trained, codes_tested) in found.items():
        for images, others in ((train, codes_trained != PRESENT), (test, codes_tested == ABSENT)):
            if not others.any():
                raise UserError(f"every image of {images.name} shows {name}; its AP needs images that do not")
    return found


def mean_ap_influences(
    scores: Sequence[np.ndarray],
    codes: Sequence[np.ndarray],
    average_precision: AveragePrecision,
    report: Callable[[str, int, int, dict[str, float]], None],
) -> np.ndarray:
    """Each test image's influence on the mean AP: (N,). scores: of each class those of the images that it does not
    ignore, (M,); codes: of each class those of all images, (N,).

    An image does not move a class that ignores it, or of which it is the only positive: without it there would be
    nothing to score."""
    counted = [each != IGNORED for each in codes]
    positives = [each[kept] == PRESENT for each, kept in zip(codes, counted, strict=True)]
    aps = [average_precision(*each) for each in zip(scores, positives, strict=True)]
    without = np.repeat(np.array(aps)[:, None], len(codes[0]), axis=1)
    for number, (row, score, kept, positive) in enumerate(zip(without, scores, counted, positives, strict=True)):
        for at, image in enumerate(np.flatnonzero(kept)):
            others = np.delete(positive, at)
            if others.any():
                row[image] = average_precision(np.delete(score, at), others)
        report("influence of each test image, classes", number + 1, len(scores), {})
    return influences(float(np.mean(aps)), without.mean(axis=0))
