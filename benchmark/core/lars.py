"""LARS as a torch optimizer: torch has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


class LayerwiseSGD(torch.optim.Optimizer):
    """w <- w - u with u <- momentum u + lr r (g + decay w), where r = trust |w| / |g + decay w| where
    they decay and 1 elsewhere: google-research/simclr leaves out biases and norms, which do not decay there."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        trust: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    self._step(w, group)

    def _step(self, w: torch.Tensor, group: dict[str, Any]) -> None:
        g = w.grad
        assert g is not None
        rate = group["lr"]
        if group["weight_decay"]:
            g = g + group["weight_decay"] * w
            w_norm, g_norm = w.norm(), g.norm()
            ratio = torch.where((w_norm > 0) & (g_norm > 0), group["trust"] * w_norm / g_norm, 1.0)
            g = ratio * g
        state = self.state[w]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(w)
        u = state["momentum_buffer"]
        u.mul_(group["momentum"]).add_(g, alpha=rate)
        w.sub_(u)
