"""LARS as a torch optimizer: torch has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


class LayerwiseSGD(torch.optim.Optimizer):
    """w <- w - u with u <- momentum u + lr r (g + decay w) and r = trust |w| / |g + decay w|. In groups with
    decays=False, which are the biases and norms of google-research/simclr, r is 1 and nothing decays."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,  # torch's own; groups have theirs
        momentum: float = 0.9,
        trust: float = 1e-3,
        weight_decay: float = 0.0,
        decays: bool = True,
    ) -> None:
        values = {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": weight_decay, "decays": decays}
        super().__init__(params, values)

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
        if group["decays"]:
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
