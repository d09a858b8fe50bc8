"""What somebody wants to see of a run while it runs. None of it changes a bit of what is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from benchmark.backbones.contract import Backbone
from benchmark.core import distributed
from benchmark.core.optimisation import Span
from benchmark.engine.losses import part_of
from benchmark.engine.progress import in_a_line
from benchmark.method import Method


class BackboneProbe(Protocol):
    def __call__(self, backbone: Backbone) -> dict[str, float]:
        """Figures of a backbone by name, all finite. It gets what the run would leave behind for transfers now, the
        weights that are training: it works on a copy, and draws random numbers only from torch's global generators."""
        ...


@dataclass(frozen=True)
class PublishedLosses:
    """Of published runs like this one, by seed. ends: loss -> its mean at the end of each. courses: loss -> its mean in
    each part of a run (benchmark.engine.losses), None where a part has none; of the runs that kept them."""

    ends: Mapping[str, Sequence[float]] = field(default_factory=dict)
    courses: Mapping[str, Sequence[Sequence[float | None]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Watch:
    """probe, every: what is measured after so much of the run each time, and after its last step.
    trackers: services that get all figures besides TensorBoard (benchmark.engine.trackers), each in its own folder of
    `tracked_in`. published: what is normal."""

    probe: BackboneProbe | None = None
    every: Span | None = None
    trackers: tuple[str, ...] = ()
    tracked_in: Path = Path()
    published: PublishedLosses = PublishedLosses()

    def is_due(self, done: int, total: int, steps_per_epoch: int) -> bool:
        """Whether to probe after so many steps: by the step alone, so also after a run was resumed."""
        if self.probe is None or self.every is None:
            return False
        return done == total or done % max(self.every.steps(steps_per_epoch), 1) == 0

    def probed(self, method: Method, device: torch.device) -> dict[str, float]:
        """The probe's figures on process 0, for which the others wait; nothing on these."""
        figures: dict[str, float] = {}
        with distributed.together():
            if self.probe and distributed.rank() == 0:
                with torch.random.fork_rng([device] if device.type == "cuda" else []):
                    figures = self.probe(method.export())
        return figures

    def tell_losses(self, title: str, came_to: Mapping[str, float] | None = None) -> None:
        """Print what published runs end at, beside what this one came to if it has; nothing where none is published."""
        if self.published.ends and distributed.rank() == 0:
            who = f"ended at {in_a_line(came_to)}; published runs" if came_to else "published runs of this recipe"
            losses = ", ".join(f"{name} {_range(values)}" for name, values in self.published.ends.items())
            print(f"{title}  {who} end at {losses}", flush=True)

    def normal(self, step: int, total_steps: int) -> str:
        """What the losses of published runs were in the part of a run where `step` lies; "" where none is known."""
        part, told = part_of(step, total_steps), []
        for name, courses in self.published.courses.items():
            then = [mean for course in courses for mean in course[part : part + 1] if mean is not None]
            told += [f"published {name} {_range(then)}"] if then else []
        return ", ".join(told)


def _range(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.4g} (1 seed)"
    return f"{min(values):.4g} to {max(values):.4g} ({len(values)} seeds)"
