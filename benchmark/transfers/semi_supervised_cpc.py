"""A deep classifier on top of a network, trained on a part of ImageNet's labels; then both trained together.

Henaff et al., "Data-Efficient Image Recognition with Contrastive Predictive Coding", ICML 2020 (arXiv:1905.09272): 11
residual blocks and a linear layer see the grid of the pretrained network's cells. The paper calls the network and its
classifier "fixed" and "fine-tuned" before and after the second training. Its best reaches 77.1 and 78.3 top-5 on 1 % of
the labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet_v2 import PreactivationBlock, ResNetV2
from benchmark.core.draws import mix
from benchmark.core.optimisation import Adam, Cosine, Epochs, Steps
from benchmark.core.plain import as_plain
from benchmark.core.streams import Stream
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes
from benchmark.data.loader import Views
from benchmark.data.splits import percent_of
from benchmark.recipe.scales import Scale
from benchmark.records.metric import PERCENT
from benchmark.transfers.contract import Context, ProtocolCard, Scores, Transfer, values_at
from benchmark.transfers.features import as_input, backbone_key, classifier_scores, frozen, working_copy
from benchmark.transfers.linear_cpc import V2_PART
from benchmark.transfers.metrics import topk_scores
from benchmark.transfers.preprocessing import square_and_centre, square_place_and_flip
from benchmark.transfers.training import Course, build_optimizer, checkpoint_path, fit_together, gaussian, streamed

NORM = ResNetV2(norm="layer").norm_layer


@dataclass(frozen=True)
class Phase:
    course: Course
    optimizer: Adam


@dataclass(frozen=True)
class Stacked:
    """blocks: of the classifier. fixed, together: how it is trained on fixed features, and then with the network."""

    blocks: int
    fixed: Phase
    together: Phase


class GridClassifier(nn.Module):
    """The backbone, and residual blocks on the map that its output is, as wide as that; then a linear classifier."""

    def __init__(self, backbone: Backbone, num_classes: int, blocks: int, seed: int) -> None:
        super().__init__()
        self.backbone, self.trains_backbone = backbone, False
        width = backbone.out_channels  # 4,096 in the paper, with 1,024 in the middle of each block
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(seed, Stream.FINE_TUNED_HEAD))
            stack = [PreactivationBlock(width, max(width // 4, 1), 1, NORM, width) for _ in range(blocks)]
            self.stack = nn.Sequential(*stack, NORM(width), nn.ReLU())
            self.head = gaussian(nn.Linear(width, num_classes), 0.01, torch.default_generator)
        for block in stack:
            nn.init.zeros_(block.conv3.weight)

    def forward(self, images: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trains_backbone):
            x = self.backbone.forward_stages(images, self.backbone.output)[self.backbone.output]
        x = x if x.ndim == 4 else x[:, :, None, None]  # a vector is a grid of one cell
        return self.head(self.stack(x).mean(dim=(2, 3)))

    def train(self, mode: bool = True) -> GridClassifier:
        super().train(mode)
        self.backbone.train(mode and self.trains_backbone)
        return self


class DataEfficient(Transfer):
    """`percent` of the labels, and the values at each scale."""

    def __init__(self, card: ProtocolCard, percent: int, values: dict[Scale, Stacked]) -> None:
        self.card, self.percent, self.values = card, percent, values

    def run(self, backbone: Backbone, context: Context) -> Scores:
        with frozen(backbone):  # a copy trains; the backbone that was handed over stays
            return self._run(backbone, context)

    def _run(self, backbone: Backbone, context: Context) -> Scores:
        values = values_at(context.scale, self.values, self.card)
        train, test = self.image_sets(context)
        labelled = percent_of(train, self.percent, context.seed)
        data = {images.name: images.fingerprint() for images in (labelled, test)}
        classes = len(train.labelled(Classes).names)
        trunk = working_copy(backbone, context.device)
        model = GridClassifier(trunk, classes, values.blocks, context.seed).to(context.device)
        facts = (context.scale, context.seed, backbone_key(backbone), data, as_plain(values))
        metrics: dict[str, float] = {}
        kept: dict[str, Any] = {}
        for name, phase in {"fixed_": values.fixed, "": values.together}.items():
            model.trains_backbone = not name
            self._train(model, phase, labelled, (*facts, name), context)
            told = classifier_scores(model.eval(), trunk, test, _central(trunk.input.size), context)
            found, right = topk_scores(*told, ks=(5, 1))
            metrics |= {f"{name}{key}": value for key, value in found.items()}
            kept = right
        headline = {key: metrics[key] for key in self.card.metrics}
        return Scores(headline, {"labelled": labelled.name, "labelled_images": len(labelled), **kept}, data)

    def _train(
        self,
        model: GridClassifier,
        phase: Phase,
        labelled: ImageSet,
        facts: tuple[object, ...],
        context: Context,
    ) -> None:
        views = Views(labelled, _augmented(model.backbone.input.size), context.seed)
        parts: list[nn.Module] = [model] if model.trains_backbone else [model.stack, model.head]
        fit_together(
            model.train(),
            build_optimizer([([p for part in parts for p in part.parameters()], phase.optimizer)]),
            lambda images, labels: F.cross_entropy(model(images), labels),
            phase.course,
            labelled,
            streamed(views, lambda pixels: as_input(model.backbone, pixels, context.device), context),
            checkpoint_path(self.card, context, *facts),
            context,
        )


_augmented = partial(square_place_and_flip, part=V2_PART)
_central = partial(square_and_centre, part=V2_PART)


REPORTED = {1: "78.3", 10: "91.2", 100: "96.5"}  # top-5, fine-tuned
TOP1 = {1: "52.7", 2: "60.4", 5: "68.1", 10: "73.1", 20: "76.7", 50: "81.2", 100: "83.4"}


def _values(percent: int) -> dict[Scale, Stacked]:
    """Fewer labels are seen more often."""
    often = (100 / percent) ** 0.5

    def stacked(blocks: int, batch_size: int, fixed: Epochs | Steps, together: Epochs | Steps) -> Stacked:
        fixed_course, course = (Course(length, batch_size, Cosine()) for length in (fixed, together))
        return Stacked(blocks, Phase(fixed_course, Adam(lr=5e-4)), Phase(course, Adam(lr=5e-5)))

    return {
        "paper": stacked(11, 512, Epochs(50 * often), Epochs(25 * often)),
        "photos": stacked(2, 32, Epochs(often), Epochs(often / 2)),
        "desk": stacked(2, 32, Epochs(10 * often), Epochs(5 * often)),
        "smoke": stacked(2, 8, Steps(4), Steps(2)),
    }


def _transfer(percent: int) -> DataEfficient:
    reported = f"{TOP1[percent]} top-1" + (f", {REPORTED[percent]} top-5" if percent in REPORTED else "")
    card = ProtocolCard(
        id=f"semi_supervised_{percent}pct_cpc_v2",
        version=1,
        title=f"ImageNet, a deep classifier and the network under it, {percent} % of the labels",
        citation=f"Henaff et al., ICML 2020, arXiv:1905.09272, section 4.2; {reported}",
        metrics=dict.fromkeys(("top5", "top1", "fixed_top5", "fixed_top1"), PERCENT),
        datasets=(("imagenet", "train"), ("imagenet", "val")),
        lists=() if percent == 100 else (f"imagenet/{percent}percent.txt",),
        trains=True,
        frozen="nothing, once the classifier has been trained on fixed features (fixed_*)",
        selected="nothing: the last iterate of each training is scored at every scale",
        departures=(
            "paper: Adam at 0.0005 and then 0.00005, rates falling by half a cosine, batches of 512, 50 epochs and 25, "
            "with fewer labels as many more as the root of their share is smaller; none of it could be read in the "
            "paper, and no code was released",
            "paper: the classifier has layer normalisation, and its branches start at zero; not known either",
            "paper: images are crops and mirror images, their patches unchanged; not known either",
            "paper: the labelled images are not the authors', whose list was never published",
            "photos: as desk, but one epoch of all labels and half a one",
            "desk: 2 blocks; batches of 32; 10 and 5 epochs of all labels, of fewer in the same proportion",
        ),
    )
    return DataEfficient(card, percent, _values(percent))


semi_supervised_1pct_cpc_v2 = _transfer(1)
semi_supervised_2pct_cpc_v2 = _transfer(2)
semi_supervised_5pct_cpc_v2 = _transfer(5)
semi_supervised_10pct_cpc_v2 = _transfer(10)
semi_supervised_20pct_cpc_v2 = _transfer(20)
semi_supervised_50pct_cpc_v2 = _transfer(50)
semi_supervised_100pct_cpc_v2 = _transfer(100)
