"""Detection on VOC2007 test by Faster R-CNN on the first stages of a ResNet-50, with the last stage as its head.

*_pirl: Misra & van der Maaten, CVPR 2020 (arXiv:1912.01991), section 3.1 and supplement B [PIRL]; BatchNorm frozen.
*_moco: He et al., CVPR 2020 (arXiv:1911.05722), section 4.2.1, as in facebookresearch/moco, detection/ [MOCO]; all
        layers train, BatchNorm over the whole batch, one more BatchNorm in the head.

What neither states is detectron2's default [D2]. There PIRL reaches an AP of 54.0 under the first, a supervised
ResNet-50 52.6 (VOC07+12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image
from torchvision.transforms.v2 import functional as vision

from benchmark.backbones.contract import Backbone
from benchmark.core.optimisation import SGD, Adam, Cosine, Milestones, Optimizer, Steps, Warmup
from benchmark.core.plain import as_plain
from benchmark.data.boxes import Annotated, joined, read_boxes
from benchmark.data.loader import Samples, TrainOrder, in_order, step_seed
from benchmark.data.voc import CLASSES
from benchmark.recipe.scales import Scale
from benchmark.transfers import pictures
from benchmark.transfers.contract import Context, ProtocolCard, Scores, Transfer
from benchmark.transfers.detection.average_precision import THRESHOLDS, Detections, average_precisions, eleven_points
from benchmark.transfers.detection.detectron2_engine import Detectron2
from benchmark.transfers.detection.faster_rcnn import FasterRcnn
from benchmark.transfers.detection.settings import Detector, DetectorSettings, Found, Target
from benchmark.transfers.features import backbone_key, frozen, working_copy
from benchmark.transfers.training import Course, build_optimizer, checkpoint_path, fit

ENGINES: dict[str, Callable[[Backbone, int, DetectorSettings, int], Detector]] = {
    "torchvision": FasterRcnn,
    "detectron2": Detectron2,
}
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)  # their scale and shift do not decay [D2]
Objects = tuple[Tensor, Target]  # uint8 image (3, H, W) and what it shows


@dataclass(frozen=True)
class DetectionValues:
    """head_rate:     of the layers that no backbone has, as a multiple of the optimizer's.
    short_sides:   each training image's shorter side becomes one of these, drawn anew every time.
    test_side:     the shorter side in the test; longest_side: no side gets longer than this.
    precise_steps: batches that BatchNorm's statistics are measured on again before the test; 0 leaves them alone.
    """

    settings: DetectorSettings
    course: Course
    optimizer: Optimizer
    head_rate: float = 1.0
    short_sides: tuple[int, ...] = tuple(range(480, 801, 32))
    test_side: int = 800
    longest_side: int = 1333
    precise_steps: int = 0

    @property
    def head_optimizer(self) -> Optimizer:
        return replace(self.optimizer, lr=self.head_rate * self.optimizer.lr)


class TrainSamples(Samples):
    """An image scaled to one of the short sides, mirrored half the time, with its boxes."""

    def __init__(self, annotated: Annotated, values: DetectionValues, seed: int) -> None:
        super().__init__(annotated.images, seed)
        self.annotated, self.values = annotated, values

    def sample(self, image: Image.Image, index: int) -> Objects:
        self.annotated.check_size(index, image.size)
        side = self.values.short_sides[int(torch.randint(len(self.values.short_sides), ()))]
        resized = scaled(image, side, self.values.longest_side)
        one = self.annotated.annotations[index]
        boxes = torch.from_numpy(one.boxes) * _scales(resized.size, image.size)
        pixels = vision.pil_to_tensor(resized)
        if torch.rand(()) < 0.5:
            left, top, right, bottom = boxes.unbind(dim=1)
            boxes = torch.stack([resized.width - right, top, resized.width - left, bottom], dim=1)
            pixels = pixels.flip(-1)
        return pixels, Target(boxes, torch.from_numpy(one.labels))


class TestSamples(Samples):
    """(the image scaled for the test, its original width and height)"""

    def __init__(self, annotated: Annotated, values: DetectionValues, seed: int) -> None:
        super().__init__(annotated.images, seed)
        self.annotated, self.values = annotated, values

    def sample(self, image: Image.Image, index: int) -> tuple[Tensor, tuple[int, int]]:
        self.annotated.check_size(index, image.size)
        resized = scaled(image, self.values.test_side, self.values.longest_side)
        return vision.pil_to_tensor(resized), image.size


def scaled(image: Image.Image, short_side: int, longest_side: int) -> Image.Image:
    """The shorter side becomes `short_side`, or less where the longer one would exceed `longest_side`."""
    factor = min(short_side / min(image.size), longest_side / max(image.size))
    width, height = (int(side * factor + 0.5) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _scales(new: tuple[int, int], old: tuple[int, int]) -> Tensor:
    """(4,) factors for x1, y1, x2, y2 between two sizes (width, height)."""
    x, y = (a / b for a, b in zip(new, old, strict=True))
    return torch.tensor([x, y, x, y])


class Detection(Transfer):
    """All of the card's datasets but the last train; the last is scored."""

    engines = tuple(ENGINES)

    def __init__(self, card: ProtocolCard, values: dict[Scale, DetectionValues]) -> None:
        self.card, self.values = card, values

    def annotations(self, data_root: Path) -> dict[str, str]:
        return _fingerprints(*(read_boxes(data_root, *dataset) for dataset in self.card.datasets))

    def run(self, backbone: Backbone, context: Context) -> Scores:
        with frozen(backbone):  # a copy trains; the backbone that was handed over stays
            return self._run(backbone, context)

    def _run(self, backbone: Backbone, context: Context) -> Scores:
        values = self.values[context.scale]
        *parts, test = (read_boxes(context.data_root, *dataset) for dataset in self.card.datasets)
        data = _fingerprints(*parts, test)
        train = joined(parts).with_objects()
        engine = self.chosen_engine(context.engine)
        assert engine
        facts = (engine, context.seed, data, backbone_key(backbone), as_plain(values))
        checkpoint = checkpoint_path(self.card, context, *facts)
        detector = ENGINES[engine](working_copy(backbone, context.device), len(CLASSES), values.settings, context.seed)
        detector.to(context.device)
        _train(detector, values, train, checkpoint, context)
        found = _detect(detector, values, test, context)
        aps = average_precisions(test.annotations, found, len(CLASSES), eleven_points)
        detail = {"per_class": _per_class(aps), "trained_on": len(train)}
        return Scores(_metrics(aps), detail, data, _picture(test, found))


def _fingerprints(*parts: Annotated) -> dict[str, str]:
    return {f"{part.images.name} boxes": part.fingerprint() for part in parts}


def _train(detector: Detector, values: DetectionValues, train: Annotated, checkpoint: Path, context: Context) -> None:
    source = _source(TrainSamples(train, values, context.seed), context)
    detector.train()

    def loss_of(inputs: tuple[list[Tensor], int], targets: list[Target]) -> Tensor:
        images, seed = inputs
        torch.manual_seed(seed)  # which anchors and regions are sampled follows from the step
        return torch.stack(list(detector.losses(images, targets).values())).sum()

    optimizer = build_optimizer(_groups(detector, values))
    fit(detector, optimizer, loss_of, values.course, train.images, source, checkpoint, context)
    if values.precise_steps:
        _measure_statistics(detector, values, loss_of, source, len(train), context)
    detector.eval()


def _source(samples: TrainSamples, context: Context) -> Callable:
    def source(order: TrainOrder) -> Iterator[tuple[tuple[list[Tensor], int], list[Target]]]:
        for step, batch in enumerate(in_order(samples, order, context.workers), start=order.first_step):
            images, targets = zip(*batch, strict=True)
            on_device = [Target(one.boxes.to(context.device), one.labels.to(context.device)) for one in targets]
            yield (list(images), step_seed(context.seed, step)), on_device

    return source


def _groups(detector: Detector, values: DetectionValues) -> list[tuple[list[nn.Parameter], Optimizer]]:
    """What trains, by rate and decay: BatchNorm's scales and shifts do not decay."""
    groups: dict[Optimizer, list[nn.Parameter]] = {}
    heads = {id(parameter) for parameter in detector.head_parameters()}
    for module in detector.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                own = values.head_optimizer if id(parameter) in heads else values.optimizer
                own = replace(own, weight_decay=0.0) if isinstance(module, NORMS) else own
                groups.setdefault(own, []).append(parameter)
    return [(parameters, own) for own, parameters in groups.items()]


def _measure_statistics(
    detector: Detector, values: DetectionValues, loss_of: Callable, source: Callable, num_images: int, context: Context
) -> None:
    """BatchNorm's running statistics become plain averages over the next training batches, as nothing changes any more
    (fvcore's PreciseBN)."""
    norms = [one for one in detector.modules() if isinstance(one, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    done = values.course.steps_total(num_images)
    batch = values.course.batch(num_images)
    with torch.no_grad():
        for inputs, targets in source(TrainOrder(num_images, batch, context.seed, done, done + values.precise_steps)):
            loss_of(inputs, targets)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _detect(detector: Detector, values: DetectionValues, test: Annotated, context: Context) -> list[Detections]:
    samples = TestSamples(test, values, context.seed)
    one_by_one = [[(0, index)] for index in range(len(test))]
    found = []
    with torch.inference_mode():
        for ((pixels, size),) in in_order(samples, one_by_one, context.workers):
            (one,) = detector.detect([pixels])
            found.append(_in_original(one, (pixels.shape[2], pixels.shape[1]), size))
            context.report(f"objects in {test.images.name}", len(found), len(test), {})
    return found


def _in_original(found: Found, seen: tuple[int, int], size: tuple[int, int]) -> Detections:
    """Boxes as they lie in the image before it was scaled; those that come out empty are dropped."""
    boxes = found.boxes.cpu() * _scales(size, seen)
    boxes = clip_boxes_to_image(boxes, size[::-1])
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)
    scores, labels = (values.cpu()[kept].numpy() for values in (found.scores, found.labels))
    return Detections(boxes[kept].numpy(), scores, labels)


def _picture(test: Annotated, found: list[Detections]) -> bytes:
    tiles = []
    for index in pictures.shown(len(test)):
        objects, one = test.annotations[index].boxes, found[index]
        tiles.append(pictures.with_boxes(test.images.open(index), objects, one.boxes, one.scores, one.labels))
    return pictures.sheet(tiles)


def _metrics(aps: np.ndarray) -> dict[str, float]:
    """(10 thresholds, classes) -> AP, AP50 and AP75, over the classes that have objects."""
    per_threshold = np.nanmean(aps, axis=1)
    at = dict(zip(THRESHOLDS, per_threshold.tolist(), strict=True))
    return {"ap": float(per_threshold.mean()), "ap50": at[0.5], "ap75": at[0.75]}


def _per_class(aps: np.ndarray) -> dict[str, dict[str, float]]:
    """class -> metrics, of the classes that have objects."""
    return {name: _metrics(aps[:, [c]]) for c, name in enumerate(CLASSES) if not np.isnan(aps[0, c])}


DESK_STEPS, DESK_BATCH = 1_100, 4
FROZEN = DetectorSettings(norm="frozen")
TRAINED = DetectorSettings(norm="trained", frozen_stages=0, extra_norm=True)


def _course(steps: int, warmup: Warmup, *drops: int) -> Course:
    return Course(Steps(steps), 16, Milestones(tuple(Steps(drop) for drop in drops), warmup=warmup))


TRAINVAL07, TRAINVAL12, TEST07 = ("voc2007", "trainval"), ("voc2012", "trainval"), ("voc2007", "test")
METRICS = {"ap": "%", "ap50": "%", "ap75": "%"}
DEPARTURES = (
    "paper: the images of a step are padded to one size, not two by two",
    f"desk: {DESK_STEPS:,} steps on batches of {DESK_BATCH}, under bf16 autocast",
    "desk: AdamW at a rate of 0.0014, new layers 1.5 times that, falling by half a cosine",
    "desk: shorter sides of 144 to 176 px, anchors of 56 to 152 px",
    "desk: 32 anchors and 16 regions of 4x4 cells an image, up to half of the regions positive; at most 64 proposals",
)


def _at_scales(paper: DetectionValues, frozen_stages: int) -> dict[Scale, DetectionValues]:
    """frozen_stages: at the scales other than the paper's."""
    small = replace(
        paper.settings,
        frozen_stages=frozen_stages,
        anchor_sides=(56, 80, 112, 152),
        anchors=32,
        regions=16,
        regions_positive=0.5,
        proposals_train=(400, 64),
        proposals_test=(400, 48),
        pooled_side=4,
    )
    desk = DetectionValues(
        small,
        Course(Steps(DESK_STEPS), DESK_BATCH, Cosine(warmup=Warmup(Steps(20), 0.01)), "bf16"),
        Adam(lr=1.4e-3, weight_decay=1e-4, decoupled=True),
        head_rate=1.5,
        short_sides=(144, 160, 176),
        test_side=160,
        longest_side=320,
        precise_steps=paper.precise_steps // 10,
    )
    smoke = replace(
        desk,
        course=Course(Steps(4), 2, Cosine(warmup=Warmup(Steps(2), 0.01)), "bf16"),
        short_sides=(64, 96),
        test_side=96,
        precise_steps=paper.precise_steps // 100,
    )
    return {"paper": paper, "desk": desk, "smoke": smoke}


def _pirl(train: tuple[tuple[str, str], ...], steps: int, drop: int, reported: str) -> Detection:
    card = ProtocolCard(
        id="voc0712_det_c4_pirl" if len(train) > 1 else "voc07_det_c4_pirl",
        version=2,
        title="VOC2007 detection, Faster R-CNN C4, BatchNorm frozen",
        citation=f"Misra & van der Maaten, CVPR 2020, arXiv:1912.01991, section 3.1, supplement B; {reported}",
        metrics=METRICS,
        datasets=(*train, TEST07),
        takes=("ResNet",),
        frozen="paper: conv1, res2 and every BatchNorm; the rest trains",
        selected="nothing: the last iterate is scored at every scale",
        departures=(
            "paper: one rate for every backbone; two rows of the paper were trained at 0.02",
            "desk: res3 is frozen too",
            *DEPARTURES,
        ),
    )
    paper = DetectionValues(
        FROZEN,
        _course(steps, Warmup(Steps(1_000), 1 / 3), drop),  # PIRL
        SGD(lr=0.003, momentum=0.9, weight_decay=1e-4),  # PIRL; momentum and decay D2
    )
    return Detection(card, _at_scales(paper, frozen_stages=3))


def _moco() -> Detection:
    card = ProtocolCard(
        id="voc0712_det_c4_moco",
        version=2,
        title="VOC2007 detection, Faster R-CNN C4, everything trained",
        citation="He et al., CVPR 2020, arXiv:1911.05722, section 4.2.1; 55.9 AP, 81.5 AP50, 62.6 AP75",
        metrics=METRICS,
        datasets=(TRAINVAL07, TRAINVAL12, TEST07),
        takes=("ResNet",),
        frozen="nothing: all weights train, BatchNorm in training mode",
        selected="nothing: the last iterate is scored at every scale",
        departures=(*DEPARTURES, "desk: statistics are measured again on 20 batches"),
    )
    paper = DetectionValues(
        TRAINED,
        _course(24_000, Warmup(Steps(100), 0.001), 18_000, 22_000),  # MOCO; where the warm-up starts D2
        SGD(lr=0.02, momentum=0.9, weight_decay=1e-4),  # MOCO
        precise_steps=200,  # MOCO, with D2's number of batches
    )
    return Detection(card, _at_scales(paper, frozen_stages=0))


voc0712_det_c4_pirl = _pirl((TRAINVAL07, TRAINVAL12), 25_000, 17_000, "54.0 AP, 80.7 AP50, 59.7 AP75")
voc07_det_c4_pirl = _pirl((TRAINVAL07,), 12_500, 9_500, "44.7 AP, 73.4 AP50, 47.0 AP75")
voc0712_det_c4_moco = _moco()
