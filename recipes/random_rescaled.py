"""Data-dependent initialisation: weights from a few images, scaled so that all layers learn at one rate. Not trained.

Krähenbühl, Doersch, Donahue & Darrell, "Data-dependent Initializations of Convolutional Neural Networks", ICLR 2016,
arXiv:1511.06856. What the paper leaves open is as in the authors' philkr/magic_init. The row "Random rescaled" of later
papers is their k-means variant, with Caffe's AlexNet: `random_rescaled`.

1. What each channel looks for: a centre of k-means over whitened patches of what its layer is given, a principal
   component of these patches, or Gaussian noise.
2. Within a layer (Algorithm 1): every channel's output gets mean β and standard deviation 1, over places and images:

       W_k(i) <- W_k(i) / σ_k(i),    b_k(i) <- β - μ_k(i) / σ_k(i)

3. Between layers (Algorithm 2, benchmark/backbones/rescaling.py): each layer's scale is set such that a step of
   gradient descent would change all layers by the same share of themselves.

Departures:
- A layer's channels get mean β T_k and standard deviation T_k, the layer's scale, which step 3 finds: steps 2 and 3 are
  repeated together until the rates are equal. In a network in proportion to its input this is the same as once each.
  CaffeNet's response normalisation is not in proportion: after step 3 its channels would no longer have equal spread.
- k-means is Lloyd's, with as many iterations as the authors' mini-batches go over the patches at most.
- Fully connected layers are Gaussian in all variants. So they are in the authors' example: there are fewer images than
  channels.
- A layer's patches are at most 100,000, equally many of each image. The authors' are as many as fit in 500 MB: all from
  conv3 on, 102,400 for conv2, 341,333 for conv1.
- The network ends with fc7. The authors have fc8 too.
- Dropout is off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision.transforms.v2 import functional as F

from benchmark.backbones.alexnet import CAFFENET
from benchmark.backbones.contract import Backbone
from benchmark.backbones.rescaling import (
    SWEEPS,
    TOGETHER,
    Affine,
    affine_layers,
    are_even,
    columns_of,
    rate_corrections,
)
from benchmark.blocks.clustering import kmeans, whitening
from benchmark.core import distributed
from benchmark.core.bounds import Count, NotNegative
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.method import EmbedAll, Method
from benchmark.recipe import BGR, DESK_NETWORK, Change, Constant, Given, InputSpec, Pool, Recipe, Settings, Steps


@dataclass(frozen=True)
class DataDependent(Settings):
    filters: Literal["kmeans", "pca", "gaussian"] = "kmeans"
    images: Count = 160  # ten batches; all, where there are fewer
    beta: NotNegative = 0.1
    patches: Count = 100_000  # of each convolution
    iterations: Count = 100  # of k-means

    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        return {"image": F.pil_to_tensor(F.resize(image, [spec.size, spec.size]))}  # (3, 227, 227)

    def build(self, backbone: Backbone, given: Given) -> Method:
        return Initialised(self, backbone)


class Initialised(Method):
    def __init__(self, settings: DataDependent, backbone: Backbone) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone

    def prepare(self, embed_all: EmbedAll) -> None:
        images = first_images(embed_all, self.settings.images)
        with distributed.together():
            if distributed.rank() == 0:
                self.start(self.backbone.input.prepare(images))
        for value in self.backbone.state_dict().values():
            value.copy_(distributed.broadcast(value.cpu().contiguous()))

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """x: (N, 3, 227, 227), as the network takes it."""
        self.backbone.eval()
        seed = int(torch.randint(1 << 31, ()))
        T = torch.ones(len(self.backbone.stages), dtype=torch.float64)
        self.normalise(x, T, choose=partial(self.choose_filters, seed=seed))
        for _ in range(SWEEPS):
            r = rate_corrections(self.backbone, x, seed)
            if are_even(r):
                break
            T *= r.cumprod(0)  # what comes out of a layer has been through all before it
            self.normalise(x, T)
        self.backbone.train()

    def normalise(self, x: Tensor, T: Tensor, choose: Callable[[str, Affine, Tensor], None] | None = None) -> None:
        """Algorithm 1, layer by layer, with means and deviations T_k times as large. choose: sets the weights first."""
        layers = affine_layers(self.backbone)
        for (stage, layer), scale in zip(layers.items(), T.tolist(), strict=True):
            modules = self.backbone.get_submodule(f"layers.{stage}")
            assert isinstance(modules, nn.Sequential)
            place = [*modules].index(layer)
            z = in_parts(modules[:place], x)
            if choose:
                choose(stage, layer, z)
            z = self.normalised(stage, layer, z, scale)
            x = in_parts(modules[place + 1 :], z)

    def normalised(self, stage: str, layer: Affine, z: Tensor, scale: float) -> Tensor:
        """What the layer now gives for z."""
        assert layer.bias is not None
        layer.bias.zero_()
        z = in_parts(layer, z)
        variance, mu = torch.var_mean(z.double(), dim=(0, *range(2, z.ndim)), correction=0)
        if not (variance > 0).all():
            raise UserError(
                f"{stage}: a channel gives one number for all images, so no scale suits it; set method.images higher"
            )
        factor = scale / variance.sqrt()
        shift = scale * self.settings.beta - factor * mu
        layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias.copy_(shift)
        factor, shift = (one.to(z).view(-1, *[1] * (z.ndim - 2)) for one in (factor, shift))
        return z.mul_(factor).add_(shift)

    def choose_filters(self, stage: str, layer: Affine, given: Tensor, seed: int) -> None:
        W = torch.randn(layer.weight.shape)
        if isinstance(layer, nn.Conv2d) and self.settings.filters != "gaussian":
            patches = self.patches(layer, given).chunk(layer.groups, dim=1)
            groups = W.flatten(1).chunk(layer.groups)
            found = [self.found(stage, *pair, seed) for pair in zip(patches, groups, strict=True)]
            W = torch.cat(found).view_as(W)
        layer.weight.copy_(W)

    def patches(self, layer: nn.Conv2d, given: Tensor) -> Tensor:
        """Of what the layer is given, equally many of each image: (about `patches`, inputs of all groups)."""
        each, taken = -(-self.settings.patches // len(given)), []
        for part in given.split(TOGETHER):
            columns = columns_of(layer, part).mT  # (B, places, inputs)
            for image in columns:
                taken.append(image[torch.randperm(len(image))[:each].to(image.device)].float().cpu())
        return torch.cat(taken)

    def found(self, stage: str, patches: Tensor, W: Tensor, seed: int) -> Tensor:
        """patches: (P, D); W: (channels, D), of one group -> weights of that shape."""
        components = whitening(patches, len(W))  # (D, channels)
        if min(len(patches), components.shape[1]) < len(W):
            raise UserError(
                f"{stage}: {len(patches):,} patches with {components.shape[1]} directions are too few for {len(W)} "
                "channels; set method.images higher"
            )
        if self.settings.filters == "pca":
            return components.mT
        unit = normalize(patches @ components, dim=1)
        return kmeans(unit, len(W), self.settings.iterations, seed)[1] @ components.mT


def in_parts(module: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([module(part) for part in x.split(TOGETHER)])


def first_images(embed_all: EmbedAll, count: int) -> Tensor:
    """uint8 (at most count, 3, H, W), in the engine's random order, the same on all processes."""
    taken: list[Tensor] = []
    shape: list[torch.Size] = []

    def pixels(batch: Batch) -> Tensor:
        shape.append(batch.views["image"].shape[1:])
        return batch.views["image"].flatten(1).float()

    for _, rows in embed_all(pixels):
        taken.append(rows.to(torch.uint8))
        if sum(map(len, taken)) >= count:
            break
    return torch.cat(taken)[:count].unflatten(1, shape[0])


random_rescaled = Recipe(
    title="Random rescaled: k-means",
    method=DataDependent(),
    backbone=CAFFENET,
    input=InputSpec(227, BGR()),
    data=Pool("imagenet"),
    length=Steps(0),
    batch_size=16,
    optimizers={},
    schedule=Constant(),
    reported="24.5 % ImageNet top-1 linear at conv3 and 56.6 mAP VOC07, fine-tuned (Split-Brain, Tables 2, 4)",
    desk=(
        *DESK_NETWORK,
        Change("method.images", 2000, "an image of 64 pixels has 9 places at conv3, where one of 227 has 169"),
    ),
)

random_rescaled_pca = replace(
    random_rescaled, title="Random rescaled: PCA", method=DataDependent(filters="pca"), reported=""
)

random_rescaled_gaussian = replace(
    random_rescaled, title="Random rescaled: Gaussian", method=DataDependent(filters="gaussian"), reported=""
)
