"""PyContrast (InsDis, MoCo, PIRL, InfoMin): what its contrast_trainer.py saves.

    model        module.encoder.conv1.weight …    a ResNet by torchvision's names, of width 1, 2 or 4  -> taken
                 module.head.*, module.head_jig.*
    model_ema    encoder.conv1.weight …           its momentum copy; taken where there is no `model`
    contrast, optimizer, epoch, amp

Input: RGB, standardised as ImageNet's.

Refused: CMC, whose two encoders (`encoder1`, `encoder2`) look at YDbDr colours, which no input here is, and have, at
half the width, a stem of 64 channels all the same, which no SplitResNet here has.

Source: github.com/HobbitLong/PyContrast, learning/contrast_trainer.py and networks/build_backbone.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmark.exchange.contract import Place, WeightsFormat

MODELS = ("model", "model_ema")


def _is_cmc(contents: Mapping[str, Any]) -> str:
    halves = [key for name in MODELS for key in Place((name,)).state(contents) if "encoder1.conv1.weight" in key]
    return "CMC of PyContrast, whose two encoders look at YDbDr colours; no input here gives those" if halves else ""


FORMAT = WeightsFormat(
    title="PyContrast",
    places=tuple(Place((name,), prefix) for name in MODELS for prefix in ("module.encoder.", "encoder.")),
    beside=("head", "head_jig"),
    refuses=_is_cmc,
)
