"""OpenSelfSup, and MMSelfSup after it: what mmcv saves, and what its extract_backbone_weights.py makes of that.

    meta, optimizer, or author
    state_dict    backbone.conv1.weight …        a ResNet by torchvision's names          -> taken
                  encoder_q.0.*, online_net.0.*  the same one more time, in MoCo and BYOL  -> taken where there is no
                                                 backbone.*
                  conv1.weight …                 extracted: the encoder alone              -> taken
                  neck.*, head.*, encoder_k.*, target_net.*, queue, queue_ptr …

Input: RGB, standardised as ImageNet's. The stride is in the 3 x 3 convolution ("pytorch" style); a file of "caffe"
style has the same keys and shapes, and cannot be told apart.

Refused: networks of another input, such as Sobel's two channels.

Source: github.com/open-mmlab/mmselfsup, openselfsup/models and tools/extract_backbone_weights.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmark.exchange.contract import Place, WeightsFormat
from benchmark.exchange.lightning import VERSION


def _holds(contents: Mapping[str, Any]) -> bool:
    is_theirs = "meta" in contents or "author" in contents or contents.keys() == {"state_dict"}
    return is_theirs and VERSION not in contents and "fc.weight" not in contents.get("state_dict", ())


FORMAT = WeightsFormat(
    title="OpenSelfSup, MMSelfSup",
    places=tuple(Place(("state_dict",), prefix) for prefix in ("backbone.", "encoder_q.0.", "online_net.0.", "")),
    beside=("neck", "head", "encoder_q", "encoder_k", "online_net", "target_net", "queue", "queue_ptr", "memory_bank"),
    holds=_holds,
)
