"""torchvision: torch.save of a state_dict, without a classifier. Our names are its own."""

from __future__ import annotations

import io

import torch

from benchmark.exchange.contract import ExportFormat, Loading, State


def _write(state: State) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def _hint(how: Loading) -> str:
    made = f"m = torchvision.models.resnet{how.depth}(); m.fc = torch.nn.Identity()"
    return f'{made}; m.load_state_dict(torch.load("{how.path}"))'


FORMAT = ExportFormat(suffix=".pth", write=_write, hint=_hint)
