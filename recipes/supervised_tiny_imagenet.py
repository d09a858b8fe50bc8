"""The supervised row of Deep InfoMax's Tiny ImageNet table: its encoder and a classifier, trained with labels.

Hjelm et al., "Learning Deep Representations by Mutual Information Estimation and Maximization", ICLR 2019,
arXiv:1808.06670, Table 2. The paper gives its test accuracy, one number for conv, fc and Y.

Departures:
- The accuracy is that of the last step. The paper's is an average over the last 100 epochs, as in all of its table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmark.backbones.contract import Backbone
from benchmark.method import Method
from benchmark.recipe import Given
from recipes.dim import IMAGES, SMALL, SOURCE_OF_LENGTH, WholeImages, dim_local
from recipes.supervised import Classifier


@dataclass(frozen=True)
class SupervisedWhole(WholeImages):
    def build(self, backbone: Backbone, given: Given) -> Method:
        # NOTE: a linear layer on the code; the paper does not say where the classifier begins
        return Classifier(backbone, given.classes())


supervised_tiny_imagenet = replace(
    dim_local,
    title="Supervised Tiny ImageNet classification",
    method=SupervisedWhole(),
    data=replace(IMAGES, labels=True),
    # NOTE: rate, batch and length are those of the other rows; the paper does not say
    optimizers={"main": dim_local.optimizers["main"]},
    reported=f"36.60 % Tiny ImageNet top-1 of the network's own classifier (Table 2); {SOURCE_OF_LENGTH}",
    desk=SMALL,
)
