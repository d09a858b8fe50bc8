"""lightly: checkpoints of Lightning, of the models in its examples.

    epoch, pytorch-lightning_version, hyper_parameters …
    state_dict    backbone.0.weight …         nn.Sequential(*resnet.children()): 0 is conv1, 1 bn1, 4 to 7 layer1 to
                                              layer4; the others have no weights                       -> taken
                  backbone.conv1.weight …     the same by torchvision's names                          -> taken
                  projection_head.*, prediction_head.*, prototypes.* …
                  backbone_momentum.*, projection_head_momentum.* …

Input: RGB, standardised as ImageNet's, which is the default of lightly's transforms.

Refused: ResNets of basic blocks (18, 34), and stems of 3 x 3.

Source: github.com/lightly-ai/lightly, examples/pytorch_lightning
"""

from __future__ import annotations

from pathlib import Path

from benchmark.exchange.contract import ForeignNetwork, Place, State, WeightsFormat, plain_resnet
from benchmark.exchange.lightning import is_of_lightning

CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def _network(state: State, path: Path) -> ForeignNetwork:
    return plain_resnet({_named(key): tensor for key, tensor in state.items()}, path)


def _named(key: str) -> str:
    child, _, rest = key.partition(".")
    return f"{CHILDREN.get(child, child)}.{rest}"


FORMAT = WeightsFormat(
    title="lightly",
    places=(Place(("state_dict",), "backbone."),),
    first=("conv1.weight", "0.weight"),
    beside=(
        *("projection_head", "prediction_head", "prototypes", "queues", "criterion", "smog", "memory_bank"),
        *("backbone_momentum", "projection_head_momentum"),
    ),
    network=_network,
    holds=is_of_lightning,
)
