"""solo-learn: checkpoints of Lightning.

    epoch, pytorch-lightning_version, hyper_parameters …
    state_dict    backbone.conv1.weight …     a ResNet by torchvision's names  -> taken
                  encoder.conv1.weight …      the same, in older versions  -> taken
                  classifier.*, projector.*, predictor.*, prototypes.*, queue …
                  momentum_backbone.*, momentum_projector.*, momentum_classifier.*

Input: RGB, standardised as ImageNet's.

Refused: the stem for CIFAR (a conv1 of 3 x 3), and ResNet-18 and -34.

Source: github.com/vturrisi/solo-learn, solo/methods/base.py
"""

from __future__ import annotations

from benchmark.exchange.contract import Place, WeightsFormat
from benchmark.exchange.lightning import is_of_lightning

FORMAT = WeightsFormat(
    title="solo-learn",
    places=(Place(("state_dict",), "backbone."), Place(("state_dict",), "encoder.")),
    beside=(
        *("classifier", "projector", "predictor", "predictor2", "prototypes", "head"),
        *("queue", "queue_y", "queue_ptr", "queue_index"),
        *("momentum_backbone", "momentum_encoder", "momentum_projector", "momentum_classifier", "momentum_head"),
    ),
    holds=is_of_lightning,
)
