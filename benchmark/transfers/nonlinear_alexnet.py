"""An AlexNet frozen up to some convolution, everything above begun anew and trained with labels: how far up the layers
are of use to another task, where linear classifiers ask how far a layer has come by itself.

Frozen up to conv1, nearly the whole network is trained with labels, so numbers are highest there and fall from layer to
layer. They never share a table with linear ones.

*_noroozi: Noroozi & Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", ECCV 2016
           (arXiv:1603.09246), Table 2; the solver as in MehdiNoroozi/JigsawPuzzleSolver, solver_cfn_rec [JPS].
*_gidaris: Gidaris et al., ICLR 2018 (arXiv:1803.07728), Table 4, as in gidariss/FeatureLearningRotNet [ROT].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmark.backbones.alexnet import KERNELS, UNITS, AlexNetwork
from benchmark.backbones.contract import Backbone
from benchmark.backbones.norms import BatchNorm1d, BatchNorm2d
from benchmark.core.draws import mix
from benchmark.core.errors import UserError
from benchmark.core.optimisation import SGD, Adam, Epochs, Milestones, Optimizer, Steps
from benchmark.core.plain import as_plain
from benchmark.core.streams import Stream
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes
from benchmark.data.loader import Views
from benchmark.recipe.scales import Scale
from benchmark.records.metric import PERCENT
from benchmark.records.per_image import kept_per_image
from benchmark.transfers.contract import Context, ProtocolCard, Scores, Transfer, values_at
from benchmark.transfers.features import (
    AdaptiveMaxGrid,
    as_input,
    backbone_key,
    frozen,
    scores_of,
    working_copy,
)
from benchmark.transfers.linear import Maps, probe_course
from benchmark.transfers.metrics import over_crops, percentage, ranked_within
from benchmark.transfers.preprocessing import (
    Preprocessing,
    centre_crop,
    place_and_flip,
    squash_and_place_ten,
    squash_place_and_flip,
)
from benchmark.transfers.training import (
    Course,
    build_optimizer,
    checkpoint_path,
    fit_together,
    streamed,
    summed_cross_entropy,
)

CONVOLUTIONS = tuple(KERNELS)
HEADLINE = CONVOLUTIONS[-1]
POOL5 = AdaptiveMaxGrid(13, 6)  # on the papers' 13 x 13 cells, the 3 x 3 max-pool at every second one
PAPER_INPUTS = {"fc6": 256 * 6 * 6, "fc7": UNITS, "fc8": UNITS}


class Above(nn.Module):
    """The map of a frozen convolution (B, channels, side, side) -> (B, classes): the convolutions above it, pool5 and
    three fully connected layers."""

    def __init__(self, convolutions: nn.Sequential, classifier: nn.Sequential) -> None:
        super().__init__()
        self.convolutions, self.classifier = convolutions, classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(POOL5(self.convolutions(x)).flatten(1))


# What is trained above a convolution: (frozen network, convolution, numbers of pool5's map, classes) -> Above.
Rest = Callable[[AlexNetwork, str, int, int], Above]


@dataclass(frozen=True)
class Retraining:
    """layers: the network is frozen up to each of these in turn, and what is above it is trained anew. These are as
    many networks, which share nothing that trains."""

    layers: tuple[str, ...]
    rest: Rest
    augment: Callable[[int], Preprocessing]
    test_view: Callable[[int], Preprocessing]
    optimizer: Optimizer
    course: Course


class Networks(nn.Module):
    """For each layer what is trained above it, begun by the seed."""

    def __init__(self, trunk: AlexNetwork, retraining: Retraining, num_classes: int, seed: int) -> None:
        super().__init__()
        numbers = _pool5_numbers(trunk)
        self.above = nn.ModuleDict()
        for place, layer in enumerate(retraining.layers):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(mix(seed, Stream.BEGUN_ANEW, place))
                self.above[layer] = retraining.rest(trunk, layer, numbers, num_classes)

    def forward(self, maps: Maps) -> Tensor:
        """-> (layers, B, classes)"""
        return torch.stack([above(maps[layer]) for layer, above in self.above.items()])

    def loss(self, maps: Maps, labels: Tensor) -> Tensor:
        """Summed over networks, which share nothing that trains."""
        return summed_cross_entropy(self(maps), labels)


def _pool5_numbers(trunk: AlexNetwork) -> int:
    parameter = next(trunk.parameters())
    side = trunk.input.size
    with torch.no_grad():
        maps = trunk.forward_stages(parameter.new_zeros(1, trunk.input.channels, side, side), HEADLINE)
    return POOL5(maps[HEADLINE]).numel()


def like_caffenet(trunk: AlexNetwork, layer: str, numbers: int, num_classes: int) -> Above:
    """The architecture's own convolutions, as they begin, and CaffeNet's fully connected layers."""
    fresh = AlexNetwork(trunk.architecture, trunk.input, trunk.input.channels)
    above = CONVOLUTIONS[CONVOLUTIONS.index(layer) + 1 :]
    units = trunk.architecture.scaled(UNITS)
    classifier = nn.Sequential(
        *(_caffes("fc6", numbers, units, std=0.005, bias=1.0), nn.ReLU(inplace=True), nn.Dropout()),
        *(_caffes("fc7", units, units, std=0.005, bias=1.0), nn.ReLU(inplace=True), nn.Dropout()),
        _caffes("fc8", units, num_classes, std=0.01, bias=0.0),
    )
    return Above(nn.Sequential(*(fresh.layers[name] for name in above)), classifier)


def _caffes(name: str, inputs: int, outputs: int, std: float, bias: float) -> nn.Linear:
    """A layer of fewer inputs than the paper's begins with larger weights in proportion, as AlexNets of less width do
    here: what comes out is as large."""
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=std * math.sqrt(PAPER_INPUTS[name] / inputs))
    nn.init.constant_(linear.bias, bias)
    return linear


def like_rotnet(trunk: AlexNetwork, layer: str, numbers: int, num_classes: int) -> Above:
    """RotNet's own layers with BatchNorm, whatever the network's are. layer: conv4 or conv5."""
    channels, units = trunk.stages[HEADLINE].channels, trunk.architecture.scaled(UNITS)
    block = [nn.Conv2d(trunk.stages[layer].channels, channels, 3, padding=1), BatchNorm2d(channels), nn.ReLU(True)]
    last = nn.Linear(units, num_classes)
    classifier = nn.Sequential(
        *(nn.Linear(numbers, units, bias=False), BatchNorm1d(units), nn.ReLU(inplace=True)),
        *(nn.Linear(units, units, bias=False), BatchNorm1d(units), nn.ReLU(inplace=True)),
        last,
    )
    above = Above(nn.Sequential(*(block if layer != HEADLINE else [])), classifier)
    for module in above.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            outputs = module.weight.shape[0] * module.weight[0, 0].numel()
            nn.init.normal_(module.weight, std=math.sqrt(2 / outputs))
    nn.init.zeros_(last.bias)
    return above


class RetrainedTransfer(Transfer):
    """One protocol, and its values at each scale."""

    def __init__(self, card: ProtocolCard, values: dict[Scale, Retraining]) -> None:
        self.card, self.values = card, values

    def run(self, backbone: Backbone, context: Context) -> Scores:
        retraining = values_at(context.scale, self.values, self.card)
        trunk = working_copy(backbone, context.device)
        if not isinstance(trunk, AlexNetwork):
            raise UserError(f"{self.card.id} takes AlexNets apart; a {type(trunk).__name__} is none")
        train, test = self.image_sets(context)
        data = {images.name: images.fingerprint() for images in (train, test)}
        networks = Networks(trunk, retraining, len(train.labelled(Classes).names), context.seed)
        networks = networks.to(context.device).to(memory_format=torch.channels_last)
        with frozen(trunk):
            self._train(networks.train(), trunk, retraining, train, data, context)
            right = _right(networks.eval(), trunk, test, retraining.test_view(trunk.input.size), context)
        per_stage = {layer: percentage(each) for layer, each in right.items()}
        kept = kept_per_image({name: each.cpu().numpy() for name, each in {"top1": right[HEADLINE], **right}.items()})
        return Scores({"top1": per_stage[HEADLINE]}, {"per_stage": per_stage, **kept}, data)

    def _train(
        self,
        networks: Networks,
        trunk: AlexNetwork,
        retraining: Retraining,
        images: ImageSet,
        data: dict[str, str],
        context: Context,
    ) -> None:
        views = Views(images, retraining.augment(trunk.input.size), context.seed)

        source = streamed(views, lambda pixels: _maps(trunk, pixels, context), context)
        course, values = retraining.course, retraining.optimizer
        facts = (context.scale, context.seed, data, backbone_key(trunk), as_plain(course), as_plain(values))
        checkpoint = checkpoint_path(self.card, context, *facts)
        optimizer = build_optimizer([(networks.parameters(), values)])
        fit_together(networks, optimizer, networks.loss, course, images, source, checkpoint, context)


def _maps(trunk: AlexNetwork, pixels: Tensor, context: Context) -> Maps:
    with torch.no_grad():
        return trunk.forward_stages(as_input(trunk, pixels, context.device), HEADLINE)


def _right(
    networks: Networks, trunk: AlexNetwork, images: ImageSet, view: Preprocessing, context: Context
) -> dict[str, Tensor]:
    """layer -> (N,) bool"""

    def scored(pixels: Tensor) -> Tensor:
        return over_crops(lambda crop: networks(_maps(trunk, crop, context)), pixels).transpose(0, 1)

    scores, labels = scores_of(scored, images, view, context)  # (N, layers, classes), (N,)
    return dict(zip(networks.above, ranked_within(scores.transpose(0, 1), labels, 1), strict=True))


def _at_scales(paper: Retraining, *drops: float, gamma: float) -> dict[Scale, Retraining]:
    """drops: the fractions of the training at which the rate falls to `gamma` of what it was."""

    def at(epochs: float, batch_size: int) -> Retraining:
        course = probe_course(epochs, batch_size, *drops, gamma=gamma)
        return replace(paper, course=course, optimizer=Adam(lr=1e-3, weight_decay=1e-4, decoupled=True))

    return {"paper": paper, "photos": at(5, 64), "desk": at(40, 64), "smoke": at(2, 16)}


def _card(who: str, layers: str, citation: str, departures: tuple[str, ...]) -> ProtocolCard:
    return ProtocolCard(
        id=f"nonlinear_imagenet_{who}",
        version=1,
        title=f"ImageNet, an AlexNet frozen up to {layers}, the rest trained anew",
        citation=citation,
        metrics={"top1": PERCENT},
        datasets=(("imagenet", "train"), ("imagenet", "val")),
        takes=("AlexNet",),
        trains=True,
        frozen=f"up to {layers} in turn, BatchNorm's running statistics too; what lies above is begun anew and trains",
        selected="nothing: the last iterate is scored at every scale; the headline is the network frozen up to conv5",
        departures=(
            *departures,
            "desk: 40 epochs in batches of 64, the rate dropping at the same fractions of them",
            "desk: Adam with a rate of 0.001, the optimizer of the desk's recipes",
            "photos: as desk, but 5 epochs",
        ),
    )


nonlinear_imagenet_noroozi = RetrainedTransfer(
    _card(
        "noroozi",
        "each of its convolutions",
        "Noroozi & Favaro, ECCV 2016, arXiv:1603.09246, Table 2; 34.6 top-1 at conv5, 54.7 at conv1",
        (
            "paper: rate, drops, length, batch and weight decay are those of the released solver that trains the "
            "network of nine tiles with labels; the authors' code has none for this experiment",
            "paper: training crops are mirrored, test crops are not; the text of the paper could not be checked",
            "every scale: the five networks train in one pass; they share nothing that trains",
            "every scale: the convolutions above are the network's own architecture, as it begins; fc6 to fc8 are "
            "CaffeNet's on every network",
        ),
    ),
    _at_scales(
        Retraining(
            layers=CONVOLUTIONS,
            rest=like_caffenet,
            augment=squash_place_and_flip,
            test_view=squash_and_place_ten,  # Table 2: ten random crops averaged; JPS has a script with twenty
            optimizer=SGD(lr=0.01, momentum=0.9, weight_decay=5e-4, decays="weights", bias_rate=2),  # JPS
            course=Course(Steps(350_000), 256, Milestones((Steps(100_000), Steps(200_000), Steps(300_000)))),  # JPS
        ),
        *(2 / 7, 4 / 7, 6 / 7),
        gamma=0.1,
    ),
)

nonlinear_imagenet_gidaris = RetrainedTransfer(
    _card(
        "gidaris",
        "conv4 or conv5",
        "Gidaris et al., ICLR 2018, arXiv:1803.07728, Table 4; released code; 43.8 top-1 at conv5, 50.0 at conv4",
        ("every scale: the layers above are RotNet's on every network",),
    ),
    _at_scales(
        Retraining(
            layers=("conv4", "conv5"),
            rest=like_rotnet,
            augment=place_and_flip,  # ROT
            test_view=centre_crop,  # ROT
            optimizer=SGD(lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True),  # ROT
            course=Course(Epochs(40), 192, Milestones((Epochs(10), Epochs(20), Epochs(30)), gamma=0.2)),  # ROT
        ),
        *(1 / 4, 1 / 2, 3 / 4),
        gamma=0.2,
    ),
)
