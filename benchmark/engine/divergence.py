"""Stops a run whose numbers are no longer finite, before they are written anywhere."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from benchmark.core.errors import UserError
from benchmark.method import Method

MEND = "lower the lr, lengthen the warm-up, or use --recipe.precision fp32 if it is bf16. The last checkpoint is kept"


class FiniteCheck:
    """Remembers the first step whose loss was not finite. It does so on the device, because looking at each loss right
    away would make a GPU wait for the CPU at every step."""

    def __init__(self, run: Path, device: torch.device) -> None:
        self.run = run
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)

    def note(self, step: int, figures: dict[str, Tensor]) -> None:
        is_bad = ~torch.stack(list(figures.values())).isfinite().all()
        self.first_bad = torch.where(is_bad & (self.first_bad < 0), step, self.first_bad)

    def check(self, step: int, method: Method) -> None:
        """Raises UserError if any loss so far was not finite, or if the weights are not finite now."""
        bad = int(self.first_bad)
        if bad >= 0:
            raise UserError(f"{self.run}: the loss is not finite at step {bad}; {MEND}")
        broken = [name for name, p in method.named_parameters() if not p.isfinite().all()]
        if broken:
            raise UserError(f"{self.run}: {broken[0]} is not finite after step {step}; {MEND}")
