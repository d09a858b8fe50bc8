"""Torch's fused SGD fails if a parameter gets its first gradient later than others of its group; this one does not."""

from __future__ import annotations

from typing import Any

import torch


class ZeroStartSGD(torch.optim.SGD):
    """Momenta begin at zero with the optimizer, where torch's begin at a parameter's first gradient. Without dampening
    both are that gradient after it."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self._fill(self.param_groups[-1:])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A state of torch's own may lack the momenta of parameters without a gradient so far."""
        super().load_state_dict(state_dict)
        self._fill(self.param_groups)

    def _fill(self, groups: list[dict[str, Any]]) -> None:
        for group in groups:
            for parameter in group["params"] if group["momentum"] else ():
                if self.state[parameter].get("momentum_buffer") is None:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
