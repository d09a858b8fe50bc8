"""VISSL: what its trainer saves, and what its scripts make of other files.

    classy_state_dict.base_model.model.trunk    _feature_blocks.conv1.weight …   a ResNet, torchvision's names -> taken
    classy_state_dict.base_model.model.heads    left out
    model_state_dict                            the same trunk, in converted files
    flat                                        the same trunk again

Input: RGB, standardised as ImageNet's. The networks that came from Caffe2 (Goyal et al., ICCV 2019) take blue first,
unless they were converted with --bgr2rgb; nothing in the file tells. For those give `--bgr`: conv1's input channels are
turned round, and the network takes RGB.

Source: github.com/facebookresearch/vissl, extra_scripts/convert_vissl_to_torchvision.py
"""

from __future__ import annotations

from benchmark.exchange.contract import Place, WeightsFormat

PREFIX = "_feature_blocks."

FORMAT = WeightsFormat(
    title="VISSL",
    places=(
        Place(("classy_state_dict", "base_model", "model", "trunk"), PREFIX),
        Place(("model_state_dict",), PREFIX),
        Place((), PREFIX),
    ),
    beside=("heads",),
)
