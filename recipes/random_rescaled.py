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

from dataclasses import dataclass, replace
from typing import Literal

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import normalize, unfold
from torchvision.transforms.v2 import functional as F

from benchmark.backbones.alexnet import CAFFENET
from benchmark.backbones.contract import Backbone
from benchmark.backbones.rescaling import SWEEPS, TOGETHER, affine_layers, are_even, rate_corrections, seen
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

    def start(self, x: Tensor) -> None:
        """x: (N, 3, 227, 227), as the network takes it."""
        self.backbone.eval()
        seed = int(torch.randint(1 << 31, ()))
        layers = affine_layers(self.backbone)
        T = torch.ones(len(layers), dtype=torch.float64)
        for stage in layers:
            self.choose_filters(stage, x, seed)
            self.normalise(stage, x, 1.0)
        for _ in range(SWEEPS):
            r = rate_corrections(self.backbone, x, seed)
            if are_even(r):
                break
            T *= r.cumprod(0)  # what comes out of a layer has been through all before it
            for stage, scale in zip(layers, T.tolist(), strict=True):
                self.normalise(stage, x, scale)
        self.backbone.train()

    @torch.no_grad()
    def choose_filters(self, stage: str, x: Tensor, seed: int) -> None:
        layer = affine_layers(self.backbone)[stage]
        W = torch.randn(layer.weight.shape)
        if isinstance(layer, nn.Conv2d) and self.settings.filters != "gaussian":
            patches = self.patches(stage, layer, x).chunk(layer.groups, dim=1)
            groups = W.flatten(1).chunk(layer.groups)
            found = [self.found(stage, *pair, seed) for pair in zip(patches, groups, strict=True)]
            W = torch.cat(found).view_as(W)
        layer.weight.copy_(W)

    def patches(self, stage: str, layer: nn.Conv2d, x: Tensor) -> Tensor:
        """Equally many of each image: (about `patches`, inputs of all groups)."""
        each, taken = -(-self.settings.patches // len(x)), []
        for part in x.split(TOGETHER):
            given = seen(self.backbone, part, stage)[stage][0]
            all_of_it = unfold(given, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
            at = torch.stack([torch.randperm(all_of_it.shape[2])[:each] for _ in part]).to(x.device)
            taken.append(all_of_it.mT.gather(1, at[:, :, None].expand(-1, -1, all_of_it.shape[1])).flatten(0, 1).cpu())
        return torch.cat(taken)

    def found(self, stage: str, patches: Tensor, W: Tensor, seed: int) -> Tensor:
        """patches: (P, D); W: (channels, D), of one group -> weights of that shape."""
        components = whitening(patches, len(W))  # (D, channels)
        if min(len(patches), components.shape[1]) < len(W):
            raise UserError(
                f"{stage}: {len(patches):,} patches with {components.shape[1]} directions are too few for {len(W)} "
                "channels; set --recipe.method.images higher"
            )
        if self.settings.filters == "pca":
            return components.mT
        unit = normalize(patches @ components, dim=1)
        return kmeans(unit, len(W), self.settings.iterations, seed)[1] @ components.mT

    @torch.no_grad()
    def normalise(self, stage: str, x: Tensor, scale: float) -> None:
        """Algorithm 1, with standard deviation and mean `scale` times as large."""
        layer = affine_layers(self.backbone)[stage]
        assert layer.bias is not None
        layer.bias.zero_()
        mu, variance = self.statistics(stage, x)
        if not (variance > 0).all():
            raise UserError(f"{stage}: a channel gives the same number for all images, so it cannot be scaled")
        factor = scale / variance.sqrt()
        layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias.copy_(scale * self.settings.beta - mu * factor)

    @torch.no_grad()
    def statistics(self, stage: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel of the layer's output, before the ReLU, over places and images."""
        sums = torch.zeros(2, self.backbone.stages[stage].channels, dtype=torch.float64, device=x.device)
        for part in x.split(TOGETHER):
            z = seen(self.backbone, part, stage)[stage][1].double()
            z = z.flatten(2).mT.flatten(0, 1) if z.ndim == 4 else z  # (B places, channels)
            sums += len(part) / len(z) * torch.stack([z.sum(dim=0), z.square().sum(dim=0)])
        mean, square = sums / len(x)
        return mean, square - mean.square()


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
