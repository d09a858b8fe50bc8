"""MoCo v1 and v2, as its main_moco.py saves them.

    epoch, arch, optimizer
    state_dict    module.encoder_q.conv1.weight …    the query encoder, a ResNet by torchvision's names  -> taken
                  module.encoder_q.fc.*              its head, of one layer (v1) or two (v2)
                  module.encoder_k.*                 the key encoder
                  module.queue, module.queue_ptr

Input: RGB, standardised as ImageNet's. `module.` comes of DistributedDataParallel; files without it are taken too.

Source: github.com/facebookresearch/moco, main_moco.py and moco/builder.py
"""

from __future__ import annotations

from benchmark.exchange.contract import Place, WeightsFormat

FORMAT = WeightsFormat(
    title="MoCo v1, v2",
    places=(Place(("state_dict",), "module.encoder_q."), Place(("state_dict",), "encoder_q.")),
    beside=("encoder_k", "queue", "queue_ptr"),
)
