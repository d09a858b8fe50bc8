"""A network and what was trained on top of it: a projection head or its first layer, or a classifier.

SimCLR (Chen et al., ICML 2020, arXiv:2002.05709) asks what its head leaves out of what the network knows. SimCLR v2
(NeurIPS 2020, arXiv:2006.10029) is fine-tuned from inside its head, and a fine-tuned network teaches others what its
classifier says. Each adds one stage, a vector, behind those of its encoder. The output, which frozen protocols look at,
stays the encoder's.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from benchmark.backbones.contract import Backbone, Stage
from benchmark.backbones.norms import BatchNorm1d, Over
from benchmark.core.plain import at_least
from benchmark.recipe.contract import Architecture
from benchmark.recipe.inputs import InputSpec


@dataclass(frozen=True)
class WithProjection(Architecture):
    """Stage "projection": a linear layer as wide as the encoder's last stage, BatchNorm and ReLU.

    over: which images that BatchNorm takes its statistics from (benchmark.backbones.norms).
    """

    encoder: Architecture
    over: Over = "all"

    @property
    def title(self) -> str:
        return f"{self.encoder.title} and a layer of its head"

    def build(self, spec: InputSpec) -> Backbone:
        encoder: Backbone = self.encoder.build(spec)
        width = width_at_last_stage(encoder)
        return NetworkWithHead(self, encoder, "projection", projection_layer(width, self.over), width)


@dataclass(frozen=True)
class WithProjectionHead(Architecture):
    """Stage "z": a whole `projection_head`.

    dim: numbers that it ends with. layers: linear ones.
    """

    encoder: Architecture
    dim: int
    layers: int

    def __post_init__(self) -> None:
        at_least(self, dim=1, layers=1)

    @property
    def title(self) -> str:
        return f"{self.encoder.title} and its projection head"

    def build(self, spec: InputSpec) -> Backbone:
        encoder: Backbone = self.encoder.build(spec)
        head = projection_head(width_at_last_stage(encoder), self.dim, self.layers)
        return NetworkWithHead(self, encoder, "z", head, self.dim)


@dataclass(frozen=True)
class WithClassifier(Architecture):
    """Stage "classes": a score for each class."""

    encoder: Architecture
    classes: int

    def __post_init__(self) -> None:
        at_least(self, classes=1)

    @property
    def title(self) -> str:
        return f"{self.encoder.title} and a classifier"

    def build(self, spec: InputSpec) -> Backbone:
        encoder: Backbone = self.encoder.build(spec)
        classifier = nn.Linear(width_at_last_stage(encoder), self.classes)
        return NetworkWithHead(self, encoder, "classes", classifier, self.classes)


class NetworkWithHead(Backbone):
    """head: from the encoder's last stage, averaged over space if it is a map, to a vector of so many channels."""

    def __init__(
        self, architecture: Architecture, encoder: Backbone, stage: str, head: nn.Module, channels: int
    ) -> None:
        super().__init__(architecture, encoder.input)
        self.encoder, self.head = encoder, head
        self.stages = {**encoder.stages, stage: Stage(channels, None)}

    @property
    def output(self) -> str:
        return self.encoder.output

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        maps = self.encoder.forward_stages(x, upto)
        if upto is None or upto not in self.encoder.stages:
            stage = next(reversed(self.stages))
            maps[stage] = self.head(_as_vector(maps[next(reversed(self.encoder.stages))]))
        return maps


def assembled(architecture: Architecture, encoder: Backbone, head: nn.Module) -> Backbone:
    """A network of one of these architectures with the weights of both, for the encoder's input."""
    whole = architecture.build(encoder.input)
    assert isinstance(whole, NetworkWithHead)
    whole.encoder.load_state_dict(encoder.state_dict())
    whole.head.load_state_dict(head.state_dict())
    return whole


def projection_layer(width: int, over: Over = "all") -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width, bias=False), BatchNorm1d(width, over=over), nn.ReLU(inplace=True))


def projection_head(channels: int, dim: int, layers: int) -> nn.Sequential:
    """(B, channels) -> (B, dim), by `layers` linear layers with BatchNorm over the images of all processes."""
    hidden = [part for _ in range(layers - 1) for part in projection_layer(channels)]
    g = nn.Sequential(*hidden, nn.Linear(channels, dim, bias=False), BatchNorm1d(dim, over="all"))
    g[-1].bias.requires_grad_(False)  # the last layer has none, as SimCLR released it: it stays 0
    return g


def at_last_stage(network: Backbone, x: Tensor) -> Tensor:
    """(B, channels) of a network's last stage, a map averaged over space. Its output may lie before that."""
    return _as_vector(network.forward_stages(x)[next(reversed(network.stages))])


def width_at_last_stage(network: Backbone) -> int:
    return network.stages[next(reversed(network.stages))].channels


def _as_vector(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3)) if x.ndim == 4 else x
