"""How long something trains, by which optimizer, and how its rates follow from the step, in plain values.

Recipes pretrain by them and transfers train by them. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal

from benchmark.core.errors import UserError
from benchmark.core.plain import at_least, is_number

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Epochs:
    """A length in passes over the pretraining images."""

    epochs: float

    def __post_init__(self) -> None:
        at_least(self, epochs=0)

    def steps(self, steps_per_epoch: int, total_steps: int = 0) -> int:
        return round(self.epochs * steps_per_epoch)


@dataclass(frozen=True)
class Steps:
    """A length in optimizer steps."""

    steps_total: int

    def __post_init__(self) -> None:
        at_least(self, steps_total=0)

    def steps(self, steps_per_epoch: int, total_steps: int = 0) -> int:
        return self.steps_total


@dataclass(frozen=True)
class Part:
    """A point or stretch as a part of the whole run, 0 to 1: it stays right when the length changes."""

    of_run: float

    def __post_init__(self) -> None:
        if not 0 <= self.of_run <= 1:
            raise UserError(f"Part: of_run must be 0 to 1, not {self.of_run!r}")

    def steps(self, steps_per_epoch: int, total_steps: int = 0) -> int:
        return round(self.of_run * total_steps)


Span = Epochs | Steps
Point = Epochs | Steps | Part  # within a run
ParameterKind = Literal["weight", "bias", "norm"]  # "norm" is a norm's scale or shift, "bias" any other vector
DECAYING: dict[str, tuple[ParameterKind, ...]] = {
    "all": ("weight", "bias", "norm"),
    "not_norms": ("weight", "bias"),
    "weights": ("weight",),
    "none": (),
}
Precision = Literal["fp32", "bf16"]  # bf16: forward passes and losses under torch.autocast; weights stay fp32


@dataclass(frozen=True)
class Optimizer:
    """Base of optimizers: values that make themselves. A new one is a class below this, and nothing else changes.

    lr:           for the recipe's batch size.
    weight_decay: of the parameters that decay: "all", "not_norms" (biases do, the scales and shifts of norms do not),
                  "weights" (neither do) or "none".
    bias_rate:    the biases' rate as a multiple of lr; Caffe's networks have 2.
    clip:         the most that the norm of all gradients together may be.
    """

    lr: float
    _: KW_ONLY
    weight_decay: float = 0.0
    decays: Literal["all", "not_norms", "weights", "none"] = "all"
    bias_rate: float = 1.0
    clip: float | None = None

    def __post_init__(self) -> None:
        at_least(self, lr=0, weight_decay=0, bias_rate=0)
        if self.clip is not None and not self.clip > 0:
            raise UserError(f"{type(self).__name__}: clip must be more than 0, not {self.clip!r}")

    def rate_of(self, kind: ParameterKind) -> float:
        return self.lr * (self.bias_rate if kind == "bias" else 1.0)

    def decays_on(self, kind: ParameterKind) -> bool:
        return kind in DECAYING[self.decays]

    def torch_class(self) -> Callable[..., torch.optim.Optimizer]:
        raise NotImplementedError(f"{type(self).__name__}.torch_class")

    def arguments(self) -> dict[str, Any]:
        """What the torch class takes besides parameters and weight decay. fused, where torch has it, is one pass over a
        parameter's numbers: without it, a step of linear classifiers on a CPU takes longer than their gradients."""
        raise NotImplementedError(f"{type(self).__name__}.arguments")

    @property
    def slots(self) -> int:
        """Numbers that it remembers for each parameter."""
        raise NotImplementedError(f"{type(self).__name__}.slots")


@dataclass(frozen=True)
class SGD(Optimizer):
    momentum: float = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, momentum=0)
        if self.nesterov and not self.momentum:
            raise UserError("SGD: nesterov needs a momentum")

    def torch_class(self) -> Callable[..., torch.optim.Optimizer]:
        from benchmark.core.sgd import ZeroStartSGD

        return ZeroStartSGD

    def arguments(self) -> dict[str, Any]:
        return {"lr": self.lr, "momentum": self.momentum, "nesterov": self.nesterov, "fused": True}

    @property
    def slots(self) -> int:
        return int(self.momentum > 0)


@dataclass(frozen=True)
class Adam(Optimizer):
    """AdamW when the decay is decoupled."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    decoupled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, eps=0)
        if not all(is_number(beta) and 0 <= beta < 1 for beta in self.betas):
            raise UserError(f"Adam: betas are from 0 to below 1, not {self.betas!r}")

    def torch_class(self) -> Callable[..., torch.optim.Optimizer]:
        import torch

        return torch.optim.AdamW if self.decoupled else torch.optim.Adam

    def arguments(self) -> dict[str, Any]:
        return {"lr": self.lr, "betas": self.betas, "eps": self.eps, "fused": True}

    @property
    def slots(self) -> int:
        return 2


@dataclass(frozen=True)
class RMSprop(Optimizer):
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, alpha=0, eps=0, momentum=0)

    def torch_class(self) -> Callable[..., torch.optim.Optimizer]:
        import torch

        return torch.optim.RMSprop

    def arguments(self) -> dict[str, Any]:
        return {"lr": self.lr, "alpha": self.alpha, "eps": self.eps, "momentum": self.momentum}

    @property
    def slots(self) -> int:
        return 1 + int(self.momentum > 0)


@dataclass(frozen=True)
class LARS(Optimizer):
    """Layer-wise adaptive rates (You et al., arXiv:1708.03888), as SimCLR uses them: what does not decay is not adapted
    either, and the rate stands inside the momentum."""

    momentum: float = 0.9
    trust: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, momentum=0, trust=0)

    def torch_class(self) -> Callable[..., torch.optim.Optimizer]:
        from benchmark.core.lars import LayerwiseSGD

        return LayerwiseSGD

    def arguments(self) -> dict[str, Any]:
        return {"lr": self.lr, "momentum": self.momentum, "trust": self.trust}

    @property
    def slots(self) -> int:
        return int(self.momentum > 0)


@dataclass(frozen=True)
class Warmup:
    """Linear from `start_factor` x rate to the rate over `span`."""

    span: Point
    start_factor: float

    def __post_init__(self) -> None:
        at_least(self, start_factor=0)


@dataclass(frozen=True)
class Constant:
    warmup: Warmup | None = None

    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """Multiplier of every optimizer's lr at `step` (0-based)."""
        return _warmed(self.warmup, 1.0, step, total_steps, steps_per_epoch)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 at step 0 to `final_factor` at the last step."""

    final_factor: float = 0.0
    warmup: Warmup | None = None

    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        progress = min(step / max(total_steps - 1, 1), 1.0)
        cosine = self.final_factor + (1 - self.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))
        return _warmed(self.warmup, cosine, step, total_steps, steps_per_epoch)


@dataclass(frozen=True)
class Milestones:
    """x `gamma` at each point of `at`."""

    at: tuple[Point, ...]
    gamma: float = 0.1
    warmup: Warmup | None = None

    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        passed = sum(step >= point.steps(steps_per_epoch, total_steps) for point in self.at)
        return _warmed(self.warmup, self.gamma**passed, step, total_steps, steps_per_epoch)


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up, then half a cosine from 1 at its end to `final_factor` at the end of the run. Cosine's falls from
    step 0 on, whatever the warm-up does meanwhile; this one's (SimCLR's, and most methods' since) does not."""

    warmup: Warmup
    final_factor: float = 0.0

    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        first = self.warmup.span.steps(steps_per_epoch, total_steps)
        progress = (step - first) / (total_steps - first) if step >= first else 0.0
        falling = self.final_factor + (1 - self.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))
        return _warmed(self.warmup, falling, step, total_steps, steps_per_epoch)


@dataclass(frozen=True)
class InverseRoot:
    """1 / sqrt(1 + `slope` x step): the rate of SGD as Bottou lets it fall, with a slope of rate x weight decay."""

    slope: float
    warmup: Warmup | None = None

    def __post_init__(self) -> None:
        at_least(self, slope=0)

    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        return _warmed(self.warmup, 1 / math.sqrt(1 + self.slope * step), step, total_steps, steps_per_epoch)


Schedule = Constant | Cosine | Milestones | WarmupCosine | InverseRoot


def _warmed(warmup: Warmup | None, factor: float, step: int, total_steps: int, steps_per_epoch: int) -> float:
    if warmup is None:
        return factor
    length = warmup.span.steps(steps_per_epoch, total_steps)
    if step >= length:
        return factor
    return factor * (warmup.start_factor + (1 - warmup.start_factor) * step / length)
