"""Networks as other projects write them, small: each with its own forward and its own names, and files as they save
them. Nothing of the benchmark is used, so that what it makes of the files can be held against them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import Bottleneck
from torchvision.transforms import v2

BLOCKS = (3, 4, 6, 3)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SmallResNet(models.ResNet):
    """torchvision's ResNet with its own blocks and forward, of so many channels."""

    def __init__(self, base: int = 4, blocks: tuple[int, ...] = BLOCKS, inner: int = 64) -> None:
        nn.Module.__init__(self)
        self._norm_layer, self.inplanes, self.dilation, self.groups, self.base_width = nn.BatchNorm2d, base, 1, 1, inner
        self.conv1 = nn.Conv2d(3, base, 7, stride=2, padding=3, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(base), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for number, depth in enumerate(blocks):
            layer = self._make_layer(Bottleneck, base * 2**number, depth, stride=1 if number == 0 else 2)
            setattr(self, f"layer{number + 1}", layer)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(32 * base, 7)

    def features(self, x: Tensor) -> Tensor:
        headless = deepcopy(self)
        headless.fc = nn.Identity()
        return headless(x)


def trained(network: nn.Module, seed: int = 0) -> nn.Module:
    """Running statistics and scales as if it had been trained: a fresh BatchNorm would hide one in another's place."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            with torch.no_grad():
                for tensor in (module.running_mean, module.bias):
                    tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
                for tensor in (module.running_var, module.weight):
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
                module.num_batches_tracked.fill_(3)
    return network.eval()


def resnet(base: int = 4, seed: int = 0, **others: Any) -> Any:
    torch.manual_seed(seed)
    return trained(SmallResNet(base, **others), seed)


class RotNetAlexNet(nn.Module):
    """gidariss/FeatureLearningRotNet, at a sixteenth of the width."""

    def __init__(self) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, kernel: int, **where: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, **where), nn.BatchNorm2d(outputs), nn.ReLU())

        units, pool = 256, nn.MaxPool2d(3, stride=2)
        self._feature_blocks = nn.ModuleList(
            [
                *(block(3, 4, 11, stride=4, padding=2), pool, block(4, 12, 5, padding=2), pool),
                *(block(12, 24, 3, padding=1), block(24, 16, 3, padding=1), block(16, 16, 3, padding=1), pool),
                nn.Sequential(
                    *(nn.Flatten(), nn.Linear(16 * 36, units, bias=False), nn.BatchNorm1d(units), nn.ReLU()),
                    *(nn.Linear(units, units, bias=False), nn.BatchNorm1d(units), nn.ReLU()),
                ),
                nn.Sequential(nn.Linear(units, 4)),
            ]
        )

    def features(self, x: Tensor) -> Tensor:
        for block in self._feature_blocks[:-1]:
            x = block(x)
        return x


class DeepClusterAlexNet(nn.Module):
    """facebookresearch/deepcluster, at a sixteenth of the width; `features` was wrapped by DataParallel."""

    def __init__(self) -> None:
        super().__init__()
        grey, sobel = nn.Conv2d(3, 1, 1), nn.Conv2d(1, 2, 3, padding=1)
        with torch.no_grad():
            grey.weight.fill_(1 / 3)
            sobel.weight[0, 0] = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
            sobel.weight[1, 0] = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]])
            for layer in (grey, sobel):
                layer.bias.zero_()
        layers: list[nn.Module] = []
        inputs = 2
        for outputs, kernel, stride, pads, is_pooled in (
            *((6, 11, 4, 2, True), (16, 5, 1, 2, True)),
            *((24, 3, 1, 1, False), (24, 3, 1, 1, False), (16, 3, 1, 1, True)),
        ):
            layers += [nn.Conv2d(inputs, outputs, kernel, stride, pads), nn.BatchNorm2d(outputs), nn.ReLU()]
            layers += [nn.MaxPool2d(3, stride=2)] if is_pooled else []
            inputs = outputs
        self.sobel, self.convolutions = nn.Sequential(grey, sobel), nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            *(nn.Dropout(), nn.Linear(16 * 36, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 256), nn.ReLU())
        )
        self.top_layer = nn.Linear(256, 10)

    def features(self, x: Tensor) -> Tensor:
        return self.after_sobel(self.sobel(x))

    def after_sobel(self, edges: Tensor) -> Tensor:
        return self.classifier(self.convolutions(edges).flatten(1))

    def saved(self) -> dict[str, Tensor]:
        return {key.replace("convolutions.", "features.module."): one for key, one in self.state_dict().items()}


@dataclass(frozen=True)
class Foreign:
    """contents: of a file as the project saves it. network: whose `features` are what its own forward gives for
    images that `prepare` made of RGB from 0 to 1. dropped: a key that is left out."""

    contents: dict[str, Any]
    network: Any
    dropped: str = ""
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def features(self, images: Tensor) -> Tensor:
        """uint8 RGB -> what the project itself would compute."""
        with torch.no_grad():
            x = images.float() / 255
            return self.network.features(v2.functional.normalize(x, list(self.mean), list(self.std)))


def below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{key}": one for key, one in state.items()}


def bare(network: Any) -> dict[str, Tensor]:
    """Without a classifier."""
    return {key: one for key, one in network.state_dict().items() if not key.startswith("fc.")}


def lightning(state: dict[str, Tensor]) -> dict[str, Any]:
    return {"epoch": 3, "global_step": 9, "pytorch-lightning_version": "2.2.1", "state_dict": state, "loops": {}}


def of_moco() -> Foreign:
    query, key = resnet(), resnet(seed=1)
    state = below("module.encoder_q.", query.state_dict()) | below("module.encoder_k.", key.state_dict())
    state |= {"module.queue": torch.randn(8, 16), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.03}]}
    return Foreign(
        {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": optimizer}, query, "module.queue"
    )


def of_vissl() -> Foreign:
    network = resnet()
    trunk = below("_feature_blocks.", bare(network))
    model = {"trunk": trunk, "heads": {"0.clf.0.weight": torch.zeros(2)}}
    return Foreign({"phase_idx": 1, "classy_state_dict": {"base_model": {"model": model}, "loss": {}}}, network)


def of_pycontrast() -> Foreign:
    network, copy = resnet(8), resnet(8, seed=1)
    head = {"module.head.0.weight": torch.zeros(2), "module.head_jig.fc1.weight": torch.zeros(2)}
    model = below("module.encoder.", bare(network)) | head
    others = {"model_ema": below("encoder.", bare(copy)), "contrast": {"memory": torch.zeros(4)}, "epoch": 200}
    return Foreign({"model": model, **others}, network, "module.head.0.weight")


def of_simclr_converter() -> Foreign:
    network = resnet(8)
    return Foreign({"state_dict": network.state_dict()}, network, "fc.weight", (0.0,) * 3, (1.0,) * 3)


def of_deepcluster() -> Foreign:
    torch.manual_seed(0)
    network: Any = trained(DeepClusterAlexNet())
    return Foreign({"epoch": 200, "arch": "alexnet", "state_dict": network.saved()}, network, "top_layer.weight")


def of_rotnet() -> Foreign:
    torch.manual_seed(0)
    network = trained(RotNetAlexNet())
    return Foreign({"epoch": 50, "network": network.state_dict()}, network, "_feature_blocks.9.0.weight")


def of_lightly() -> Foreign:
    network, copy = resnet(), resnet(seed=1)
    children = [nn.Sequential(*list(one.children())[:-1]) for one in (network, copy)]
    state = below("backbone.", children[0].state_dict()) | below("backbone_momentum.", children[1].state_dict())
    head = below("projection_head.layers.", nn.Linear(2, 2).state_dict())
    return Foreign(lightning(state | head), network, "projection_head.layers.weight")


def of_solo_learn() -> Foreign:
    network, copy = resnet(), resnet(seed=1)
    state = below("backbone.", bare(network)) | below("momentum_backbone.", bare(copy))
    state |= below("classifier.", nn.Linear(2, 2).state_dict()) | below("projector.0.", nn.Linear(2, 2).state_dict())
    return Foreign(lightning(state | {"queue": torch.zeros(2, 2)}), network, "queue")


def of_openselfsup() -> Foreign:
    network, copy = resnet(), resnet(seed=1)
    state = below("encoder_q.0.", bare(network)) | below("encoder_k.0.", bare(copy)) | below("backbone.", bare(network))
    state |= {"neck.mlp.0.weight": torch.zeros(2), "queue": torch.zeros(2, 2), "queue_ptr": torch.zeros(1)}
    return Foreign({"meta": {"epoch": 200}, "state_dict": state, "optimizer": {}}, network, "neck.mlp.0.weight")


def of_torchvision() -> Foreign:
    network = resnet()
    return Foreign(OrderedDict(network.state_dict()), network, "fc.weight")


FOREIGN: dict[str, Callable[[], Foreign]] = {
    name.removeprefix("of_"): value for name, value in list(globals().items()) if name.startswith("of_")
}
