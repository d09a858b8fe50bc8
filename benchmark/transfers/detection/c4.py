"""Detection by Faster R-CNN or Mask R-CNN on the first stages of a ResNet-50, with the last stage as its head: how a
detector is trained and what it finds, whatever the dataset and the protocol. voc.py and coco.py have the protocols.

What their papers leave open is detectron2's default [D2].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image
from torchvision.transforms.v2 import functional as vision

from benchmark.backbones.contract import Backbone
from benchmark.core import distributed
from benchmark.core.draws import seed_torch
from benchmark.core.optimisation import Optimizer
from benchmark.core.plain import as_plain
from benchmark.data.annotation import Annotated, Annotation, joined
from benchmark.data.image_set import ImageSet
from benchmark.data.loader import Samples, TrainOrder, in_order, one_by_one, step_seed
from benchmark.recipe.scales import Scale
from benchmark.transfers import pictures
from benchmark.transfers.contract import Context, ProtocolCard, Scores, Transfer, values_at
from benchmark.transfers.detection.detectron2_engine import Detectron2
from benchmark.transfers.detection.faster_rcnn import FasterRcnn
from benchmark.transfers.detection.masks import compressed, decompressed, pasted
from benchmark.transfers.detection.settings import Detections, Detector, DetectorSettings, Found, RegionSettings, Target
from benchmark.transfers.features import backbone_key, frozen, working_copy
from benchmark.transfers.training import Course, build_optimizer, checkpoint_path, fit_together, of_this_process
from benchmark.transfers.turns import own_turns, turns_of_all

ENGINES: dict[str, Callable[[Backbone, int, DetectorSettings, int], Detector]] = {
    "torchvision": FasterRcnn,
    "detectron2": Detectron2,
}
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)  # their scale and shift do not decay [D2]
Objects = tuple[Tensor, Target]  # uint8 image (3, H, W) and what it shows
OwnSettings = TypeVar("OwnSettings", DetectorSettings, RegionSettings)


@dataclass(frozen=True)
class DetectionValues(Generic[OwnSettings]):
    """head_rate:     of the layers that no backbone has, as a multiple of the optimizer's.
    short_sides:   each training image's shorter side becomes one of these, drawn anew every time.
    test_side:     the shorter side in the test.
    longest_side, test_longest_side: no side gets longer than this.
    precise_steps: batches that BatchNorm's statistics are measured on again before the test; 0 leaves them alone.
    """

    settings: OwnSettings
    course: Course
    optimizer: Optimizer
    head_rate: float = 1.0
    short_sides: tuple[int, ...] = tuple(range(480, 801, 32))
    test_side: int = 800
    longest_side: int = 1333
    test_longest_side: int = 1333
    precise_steps: int = 0

    @property
    def head_optimizer(self) -> Optimizer:
        return replace(self.optimizer, lr=self.head_rate * self.optimizer.lr)


@dataclass(frozen=True)
class Task:
    """What a dataset asks of a detector.

    read:   (data root, dataset, split) -> images with their objects.
    trains: of the training images and objects, those that are trained on.
    score:  what was found in the test images -> metrics, and detail for the record.
    """

    read: Callable[[Path, str, str], Annotated]
    trains: Callable[[Annotated], Annotated]
    score: Callable[[Annotated, list[Detections]], tuple[dict[str, float], dict[str, Any]]]


class TrainSamples(Samples):
    """An image scaled to one of the short sides, mirrored half the time, with its objects."""

    def __init__(self, annotated: Annotated, values: DetectionValues, seed: int) -> None:
        super().__init__(annotated.images, seed)
        self.annotated, self.values = annotated, values

    def sample(self, image: Image.Image, index: int) -> Objects:
        self.annotated.check_size(index, image.size)
        side = self.values.short_sides[int(torch.randint(len(self.values.short_sides), ()))]
        resized = scaled(image, side, self.values.longest_side)
        one = self.annotated.annotations[index]
        scales = _scales(resized.size, image.size)
        boxes, proposals = torch.from_numpy(one.boxes) * scales, _proposals(one, scales)
        masks = tuple(tuple(line * scales[:2].double().numpy() for line in polygons) for polygons in one.masks)
        pixels = vision.pil_to_tensor(resized)
        if torch.rand(()) < 0.5:
            boxes = mirrored(boxes, resized.width)
            proposals = None if proposals is None else mirrored(proposals, resized.width)
            masks = tuple(tuple(line * (-1, 1) + (resized.width, 0) for line in polygons) for polygons in masks)
            pixels = pixels.flip(-1)
        return pixels, Target(boxes, torch.from_numpy(one.labels), masks, proposals)


class TestSamples(Samples):
    """(the image scaled for the test, its proposals if it has any, its original width and height)"""

    def __init__(self, annotated: Annotated, values: DetectionValues, seed: int) -> None:
        super().__init__(annotated.images, seed)
        self.annotated, self.values = annotated, values

    def sample(self, image: Image.Image, index: int) -> tuple[Tensor, tuple[Tensor, ...], tuple[int, int]]:
        self.annotated.check_size(index, image.size)
        resized = scaled(image, self.values.test_side, self.values.test_longest_side)
        proposals = _proposals(self.annotated.annotations[index], _scales(resized.size, image.size))
        return vision.pil_to_tensor(resized), () if proposals is None else (proposals,), image.size


def scaled(image: Image.Image, short_side: int, longest_side: int) -> Image.Image:
    """The shorter side becomes `short_side`, or less where the longer one would exceed `longest_side`."""
    factor = min(short_side / min(image.size), longest_side / max(image.size))
    width, height = (int(side * factor + 0.5) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def mirrored(boxes: Tensor, width: int) -> Tensor:
    """(M, 4) boxes as they lie once an image of that width is flipped."""
    left, top, right, bottom = boxes.unbind(dim=1)
    return torch.stack([width - right, top, width - left, bottom], dim=1)


def _proposals(one: Annotation, scales: Tensor) -> Tensor | None:
    return None if one.proposals is None else torch.from_numpy(one.proposals) * scales


def _scales(new: tuple[int, int], old: tuple[int, int]) -> Tensor:
    """(4,) factors for x1, y1, x2, y2 between two sizes (width, height)."""
    x, y = (a / b for a, b in zip(new, old, strict=True))
    return torch.tensor([x, y, x, y])


class Detection(Transfer):
    """All of the card's datasets but the last train; the last is scored."""

    engines = tuple(ENGINES)

    def __init__(self, card: ProtocolCard, values: dict[Scale, DetectionValues[Any]], task: Task) -> None:
        self.card, self.values, self.task = card, values, task

    def annotations(self, data_root: Path) -> dict[str, str]:
        return _fingerprints(*(self.task.read(data_root, *dataset) for dataset in self.card.datasets))

    def absent(self, data_root: Path, test: ImageSet) -> tuple[str, ...]:
        annotated = self.task.read(data_root, *self.card.datasets[-1])
        counted = {int(label) for one in annotated.annotations for label in one.labels[~one.ignored]}
        return tuple(name for label, name in enumerate(annotated.classes) if label not in counted)

    def run(self, backbone: Backbone, context: Context) -> Scores:
        with frozen(backbone):  # a copy trains; the backbone that was handed over stays
            return self._run(backbone, context)

    def _run(self, backbone: Backbone, context: Context) -> Scores:
        values = values_at(context.scale, self.values, self.card)
        sets = [self.task.read(context.data_root, *dataset) for dataset in self.card.datasets]
        told = self.told(backbone, sets, context)
        *parts, test = sets
        data = _fingerprints(*sets)
        train = self.task.trains(joined(parts))
        facts = (self.chosen_engine(context.engine), context.seed, data, backbone_key(backbone), as_plain(values))
        checkpoint = checkpoint_path(self.card, context, *facts)
        detector = self.detector(working_copy(backbone, context.device), train, values, context).to(context.device)
        _train(detector, values, train, checkpoint, context)
        found = _detect(detector, values, test, context)
        metrics, detail = self.task.score(test, found)
        return Scores(metrics, {**detail, **told, "trained_on": len(train)}, data, _picture(test, found))

    def told(self, backbone: Backbone, sets: Sequence[Annotated], context: Context) -> dict[str, Any]:
        """More for the record's detail, about the backbone and the card's datasets as they were read."""
        return {}

    def detector(self, trunk: Backbone, train: Annotated, values: DetectionValues[Any], context: Context) -> Detector:
        """The detector on this backbone, before it is trained on these images."""
        engine = self.chosen_engine(context.engine)
        assert engine
        return ENGINES[engine](trunk, len(train.classes), values.settings, context.seed)


def _fingerprints(*parts: Annotated) -> dict[str, str]:
    return {f"{part.images.name} boxes": part.fingerprint() for part in parts}


def _train(detector: Detector, values: DetectionValues, train: Annotated, checkpoint: Path, context: Context) -> None:
    source = _source(TrainSamples(train, values, context.seed), context)
    detector.train()

    def loss_of(inputs: tuple[list[Tensor], int], targets: list[Target]) -> Tensor:
        images, seed = inputs
        seed_torch(seed)  # which anchors and regions are sampled follows from the step
        return torch.stack(list(detector.losses(images, targets).values())).sum()

    optimizer = build_optimizer(_groups(detector, values))
    fit_together(detector, optimizer, loss_of, values.course, train.images, source, checkpoint, context)
    if values.precise_steps:
        _measure_statistics(detector, values, loss_of, source, len(train), context)
    detector.eval()


def _source(samples: TrainSamples, context: Context) -> Callable:
    def source(order: TrainOrder) -> Iterator[tuple[tuple[list[Tensor], int], list[Target]]]:
        for step, batch in enumerate(in_order(samples, order, context.workers), start=order.first_step):
            images, targets = zip(*batch, strict=True)
            yield (
                (list(images), of_this_process(step_seed(context.seed, step))),
                [_moved(one, context.device) for one in targets],
            )

    return source


def _moved(target: Target, device: torch.device) -> Target:
    proposals = None if target.proposals is None else target.proposals.to(device)
    return replace(target, boxes=target.boxes.to(device), labels=target.labels.to(device), proposals=proposals)


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
    distributed.average(distributed.running_statistics(detector))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _detect(detector: Detector, values: DetectionValues, test: Annotated, context: Context) -> list[Detections]:
    samples = TestSamples(test, values, context.seed)
    places = [*own_turns(one_by_one(len(test)))]
    found = []
    with distributed.together(), torch.inference_mode():
        for ((pixels, proposals, size),) in in_order(samples, places, context.workers):
            (one,) = detector.detect([pixels], [boxes.to(context.device) for boxes in proposals])
            found.append(_in_original(one, (pixels.shape[2], pixels.shape[1]), size))
            context.report(f"objects in {test.images.name}", len(found), len(places), {})
    return turns_of_all(found)


def _in_original(found: Found, seen: tuple[int, int], size: tuple[int, int]) -> Detections:
    """Boxes as they lie in the image before it was scaled; those that come out empty are dropped."""
    boxes = found.boxes.cpu() * _scales(size, seen)
    boxes = clip_boxes_to_image(boxes, size[::-1])
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)
    scores, labels = (values.cpu()[kept].numpy() for values in (found.scores, found.labels))
    boxes = boxes[kept]
    if found.masks is None:
        return Detections(boxes.numpy(), scores, labels)
    masks = zip(found.masks.float().cpu()[kept], boxes, strict=True)
    return Detections(boxes.numpy(), scores, labels, tuple(compressed(pasted(*one, size)) for one in masks))


def _picture(test: Annotated, found: list[Detections]) -> bytes:
    tiles = []
    for index in pictures.shown(len(test)):
        objects, one = test.annotations[index].boxes, found[index]
        names = [test.classes[label] for label in one.labels]
        image = test.images.open(index)
        sure = one.scores[: len(one.masks)] >= pictures.LEAST_SCORE
        masks = [decompressed(counts, image.size) for counts, drawn in zip(one.masks, sure, strict=True) if drawn]
        tiles.append(pictures.with_boxes(pictures.tinted(image, masks), objects, one.boxes, one.scores, names))
    return pictures.sheet(tiles)
