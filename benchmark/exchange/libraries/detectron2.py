"""detectron2: a pickle of {"model": name -> array, "__author__", "matching_heuristics"}.

By its tools/convert-torchvision-to-d2.py. STRIDE_IN_1X1 must be False, and the input RGB from 0 to 255.
"""

from __future__ import annotations

import pickle
import re

from benchmark.exchange.contract import ExportFormat, Loading, State


def _write(state: State) -> bytes:
    """Its layers have no counters of batches."""
    model = {_d2_name(key): one.numpy() for key, one in state.items() if not key.endswith("num_batches_tracked")}
    return pickle.dumps({"model": model, "__author__": "sslbench", "matching_heuristics": True})


def _d2_name(key: str) -> str:
    """ "layer1.0.bn2.weight" -> "res2.0.conv2.norm.weight"; "bn1.bias" -> "stem.conv1.norm.bias"."""
    key = re.sub(r"^layer(\d)", lambda found: f"res{int(found[1]) + 1}", key)
    key = key if key.startswith("res") else f"stem.{key}"
    key = re.sub(r"\bbn(\d)", r"conv\1.norm", key)
    return key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def _hint(how: Loading) -> str:
    return (
        f"MODEL.WEIGHTS {how.path} MODEL.RESNETS.STRIDE_IN_1X1 False MODEL.RESNETS.DEPTH {how.depth} "
        f'INPUT.FORMAT RGB MODEL.PIXEL_MEAN "{how.mean}" MODEL.PIXEL_STD "{how.std}"'
    )


FORMAT = ExportFormat(suffix=".pkl", write=_write, hint=_hint, white=255)
