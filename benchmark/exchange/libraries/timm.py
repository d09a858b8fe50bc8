"""timm: safetensors, without a classifier. Our names are its own."""

from __future__ import annotations

from safetensors.torch import save

from benchmark.exchange.contract import ExportFormat, Loading, State


def _write(state: State) -> bytes:
    return save(dict(state), {"format": "pt"})


def _hint(how: Loading) -> str:
    return f'm = timm.create_model("resnet{how.depth}", num_classes=0, checkpoint_path="{how.path}")'


FORMAT = ExportFormat(suffix=".safetensors", write=_write, hint=_hint)
