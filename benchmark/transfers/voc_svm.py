"""Linear SVMs on frozen stages, VOC2007 classification, mean AP of 20 classes.

Goyal et al., "Scaling and Benchmarking Self-Supervised Visual Representation Learning", ICCV 2019 (arXiv:1905.01235),
as released in facebookresearch/fair_self_supervision_benchmark, tools/svm [FSSB]; the input as in its authors'
facebookresearch/vissl [VISSL]. A supervised ResNet-50 reaches 87.5 mAP.

Trained on trainval, scored on test. An image whose only objects of a class are difficult (code -1) is a NEGATIVE of
that class in training and in cross-validation, and left out of that class's test: FSSB's behaviour, kept.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from benchmark.backbones.contract import Backbone
from benchmark.core import distributed
from benchmark.core.errors import UserError
from benchmark.core.processes import forked_pool
from benchmark.recipe.scales import Scale
from benchmark.records.metric import PERCENT
from benchmark.records.per_image import kept_per_image
from benchmark.transfers.contract import Context, ProtocolCard, Scores, Transfer, values_at
from benchmark.transfers.features import GOYAL_TAKES, GOYAL_TAPS, extract, taps_on
from benchmark.transfers.metrics import area_ap
from benchmark.transfers.preprocessing import squash
from benchmark.transfers.presence import IGNORED, PRESENT, mean_ap_influences, scorable
from benchmark.transfers.turns import own_turns, turns_of_all

if TYPE_CHECKING:
    from sklearn.svm import LinearSVC

FOLDS = 3  # FSSB
NORM_OFFSET = 1e-5  # FSSB
DECADES = tuple(10.0**k for k in range(-7, 3))  # FSSB, GETTING_STARTED: 1e-7 ... 1e2
POWERS = tuple(0.5**k for k in range(4, 20))  # FSSB adds 0.5^4 ... 0.5^19
DESK_COSTS = (0.01, 0.1, 1.0, 10.0)


class VocSvm(Transfer):
    """20 one-against-rest SVMs on every stage, each class's cost by cross-validation."""

    depends_on_processes = False

    def __init__(self, card: ProtocolCard, costs: dict[Scale, tuple[float, ...]]) -> None:
        self.card, self.costs = card, costs

    def run(self, backbone: Backbone, context: Context) -> Scores:
        trainval, test = self.image_sets(context)
        classes = scorable(trainval, test)
        view = squash(backbone.input.size)
        taps = taps_on(backbone, GOYAL_TAPS)
        features = [extract(backbone, images, view, taps, context) for images in (trainval, test)]
        results: dict[str, list[ClassResult]] = {}
        for number, tap in enumerate(taps):
            x, x_test = rotated(*(normalized(each[tap.name]) for each in features))
            fit = partial(svm, x=x, x_test=x_test, costs=values_at(context.scale, self.costs, self.card))
            results[tap.name] = _divided(fit, [*classes.values()], context.workers)
            context.report("SVMs, stages", number + 1, len(taps), {"mAP": _mean_ap(results[tap.name])})
        detail = _detail(results, [*classes], trainval.classes, context.scale)
        stage = detail["selected"]["stage"]
        scores, codes = [result.scores for result in results[stage]], [codes for _, codes in classes.values()]
        moved = mean_ap_influences(scores, codes, area_ap, context.report)
        data = {images.name: images.fingerprint() for images in (trainval, test)}
        return Scores({"map": detail["per_stage"][stage]}, {**detail, **kept_per_image({"map": moved})}, data)


Fit = Callable[..., "ClassResult"]
_fit: Fit  # in each of the processes below, with the features that they share


def _divided(fit: Fit, classes: list[tuple[np.ndarray, np.ndarray]], workers: int) -> list[ClassResult]:
    """Of each class, divided over the processes of torchrun: no class needs to know of another."""
    with distributed.together():
        own = _of_each(fit, [*own_turns(classes)], workers)
    return turns_of_all(own)


def _of_each(fit: Fit, classes: list[tuple[np.ndarray, np.ndarray]], workers: int) -> list[ClassResult]:
    """In processes, not threads, since liblinear's random numbers are one global stream."""
    if workers <= 1 or len(classes) <= 1:
        return [fit(codes=codes, test_codes=test_codes) for codes, test_codes in classes]
    try:
        with forked_pool(min(workers, len(classes)), _take, fit) as pool:
            return list(pool.map(_fit_one, *zip(*classes, strict=True)))
    except BrokenProcessPool as error:
        raise UserError(
            "a process that trained an SVM was killed, perhaps for lack of memory; the same command goes on there, and "
            "--workers 1 (make: WORKERS=1) needs least"
        ) from error


def _take(fit: Fit) -> None:
    global _fit
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt ends it here and now; the one who waits says so
    _fit = fit


def _fit_one(codes: np.ndarray, test_codes: np.ndarray) -> ClassResult:
    return _fit(codes=codes, test_codes=test_codes)


@dataclass(frozen=True)
class ClassResult:
    """One class on one stage: AP on test, the cost, the mean AP over the folds that chose it, and the scores (M,) of
    the test images that are not ignored."""

    ap: float
    cost: float
    folds_ap: float
    scores: np.ndarray


def normalized(features: np.ndarray) -> np.ndarray:
    """(N, D) -> the same in float64, each row over its length + 1e-5."""
    features = features.astype(np.float64)
    return features / (np.linalg.norm(features, axis=1, keepdims=True) + NORM_OFFSET)


def rotated(x: np.ndarray, x_test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in coordinates of the span of x's rows, where N < D: (N, D), (M, D) -> (N, N), (M, N).

    Inner products with training rows stay what they are, and an L2-regularised solution lies in that span, so every
    SVM below is the one on the unrotated features at a fraction of the time."""
    if x.shape[0] >= x.shape[1]:
        return x, x_test
    basis, upper = np.linalg.qr(x.T)  # (D, N) orthonormal columns, and x = upper.T @ basis.T
    return np.ascontiguousarray(upper.T), x_test @ basis


def svm(
    x: np.ndarray, codes: np.ndarray, x_test: np.ndarray, test_codes: np.ndarray, costs: tuple[float, ...]
) -> ClassResult:
    """Choose the cost by cross-validation, fit on everything, score on test without the ignored images."""
    from sklearn.exceptions import ConvergenceWarning

    targets = np.where(codes == PRESENT, 1, -1)  # ignored images become negatives, see above
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 2,000 iterations are the protocol's, enough or not
        folds_ap = [_cross_validated(x, targets, cost) for cost in costs]
        best = int(np.argmax(folds_ap))
        model = classifier(costs[best]).fit(x, targets)
    tested = test_codes != IGNORED
    scores = model.decision_function(x_test[tested])
    return ClassResult(area_ap(scores, test_codes[tested] == PRESENT), costs[best], folds_ap[best], scores)


def classifier(cost: float) -> LinearSVC:
    from sklearn.svm import LinearSVC

    return LinearSVC(
        C=cost,
        class_weight={1: 2, -1: 1},  # FSSB
        penalty="l2",
        loss="squared_hinge",
        dual=True,
        tol=1e-4,
        max_iter=2000,
        intercept_scaling=1.0,  # all FSSB
        random_state=0,
    )


def _cross_validated(x: np.ndarray, targets: np.ndarray, cost: float) -> float:
    """Mean AP in percent over stratified folds in the images' order; 0 where a class has too few images for folds."""
    from sklearn.model_selection import cross_val_score

    folds = min(FOLDS, int((targets == 1).sum()), int((targets == -1).sum()))
    if folds < 2:
        return 0.0
    return 100 * float(cross_val_score(classifier(cost), x, targets, cv=folds, scoring="average_precision").mean())


def _mean_ap(results: list[ClassResult]) -> float:
    return float(np.mean([result.ap for result in results]))


def _detail(results: dict[str, list[ClassResult]], names: list[str], classes: tuple[str, ...], scale: Scale) -> dict:
    """The stage is the best on test at paper scale, as the protocol has it, and the best in the folds elsewhere."""
    per_stage = {tap: _mean_ap(rows) for tap, rows in results.items()}
    folds = {tap: float(np.mean([row.folds_ap for row in rows])) for tap, rows in results.items()}
    chosen_by = per_stage if scale == "paper" else folds
    stage = max(chosen_by, key=lambda tap: chosen_by[tap])
    return {
        "per_stage": per_stage,
        "per_class": {
            tap: {name: row.ap for name, row in zip(names, rows, strict=True)} for tap, rows in results.items()
        },
        "selected": {
            "stage": stage,
            "on": "voc2007/test" if scale == "paper" else "voc2007/trainval, 3 folds",
            "map_in_folds": folds,
            "cost": {
                tap: {name: row.cost for name, row in zip(names, rows, strict=True)} for tap, rows in results.items()
            },
        },
        "classes_without_a_positive": [name for name in classes if name not in names],
    }


voc07_svm_goyal = VocSvm(
    ProtocolCard(
        id="voc07_svm_goyal",
        version=2,
        title="VOC2007, linear SVM on the best frozen stage",
        citation="Goyal et al., ICCV 2019, arXiv:1905.01235; released code, tools/svm",
        metrics={"map": PERCENT},
        datasets=(("voc2007", "trainval"), ("voc2007", "test")),
        takes=GOYAL_TAKES,
        frozen="everything, BatchNorm's running statistics too",
        selected="every scale: each class's cost by 3-fold cross-validation on trainval. paper: the best stage on the "
        "test images, as the protocol does. desk, smoke: the stage with the best mean AP in those folds; the test "
        "images only give the final number",
        departures=(
            "every scale: the SVMs are solved in the span of the training images, which gives the same solution sooner",
            "desk: costs 0.01, 0.1, 1 and 10 instead of 26 from 1e-7 to 100",
            "desk, smoke: a class without a positive image in trainval or test is left out of the mean and named",
        ),
    ),
    costs={"paper": tuple(sorted(DECADES + POWERS)), "desk": DESK_COSTS, "smoke": DESK_COSTS[1:3]},
)
