"""Torch's SGD for parameters that do not all have gradients from the first step on, as torch's fused step demands."""

from __future__ import annotations

from typing import Any

import torch


class SGD(torch.optim.SGD):
    """Momenta begin at zero with the optimizer, where torch's begin at a parameter's first gradient. Without dampening
    both are that gradient after it."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        added = self.param_groups[-1]
        if added["momentum"]:
            for parameter in added["params"]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
