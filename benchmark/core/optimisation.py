"""How long something trains, by which optimizer, and how its rates follow from the step, in plain values.

Recipes pretrain by them and transfers train by them. Imports no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from benchmark.core.plain import at_least


@dataclass(frozen=True)
class Epochs:
    """A length in passes over the pretraining images."""

    epochs: float

    def __post_init__(self) -> None:
        at_least(self, epochs=0)

    def steps(self, steps_per_epoch: int) -> int:
        return round(self.epochs * steps_per_epoch)


@dataclass(frozen=True)
class Steps:
    """A length in optimizer steps."""

    steps_total: int

    def __post_init__(self) -> None:
        at_least(self, steps_total=0)

    def steps(self, steps_per_epoch: int) -> int:
        return self.steps_total


Span = Epochs | Steps
Precision = Literal["fp32", "bf16"]  # bf16: forward passes and losses under torch.autocast; weights stay fp32


@dataclass(frozen=True)
class SGD:
    """torch.optim.SGD. lr is for the recipe's batch size; weight_decay_norm_and_bias says whether BatchNorm's
    parameters and the biases decay too."""

    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False
    weight_decay_norm_and_bias: bool = True


@dataclass(frozen=True)
class Adam:
    """torch.optim.Adam, or AdamW when the decay is decoupled."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    decoupled: bool = False
    weight_decay_norm_and_bias: bool = True


Optimizer = SGD | Adam


@dataclass(frozen=True)
class Warmup:
    """Linear from `start_factor` x rate to the rate over `span`."""

    span: Span
    start_factor: float


@dataclass(frozen=True)
class Constant:
    warmup: Warmup | None = None

    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """Multiplier of every optimizer's lr at `step` (0-based)."""
        return _warmed(self.warmup, 1.0, step, steps_per_epoch)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 at step 0 to `final_factor` at the last step."""

    final_factor: float = 0.0
    warmup: Warmup | None = None

    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        progress = min(step / max(total_steps - 1, 1), 1.0)
        cosine = self.final_factor + (1 - self.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))
        return _warmed(self.warmup, cosine, step, steps_per_epoch)


@dataclass(frozen=True)
class Milestones:
    """x `gamma` at each point of `at`."""

    at: tuple[Span, ...]
    gamma: float = 0.1
    warmup: Warmup | None = None

    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        passed = sum(step >= point.steps(steps_per_epoch) for point in self.at)
        return _warmed(self.warmup, self.gamma**passed, step, steps_per_epoch)


Schedule = Constant | Cosine | Milestones


def _warmed(warmup: Warmup | None, factor: float, step: int, steps_per_epoch: int) -> float:
    if warmup is None:
        return factor
    length = warmup.span.steps(steps_per_epoch)
    if step >= length:
        return factor
    return factor * (warmup.start_factor + (1 - warmup.start_factor) * step / length)
