"""Deep InfoMax: the code of an image has high mutual information with the image, or with each of its places.

Hjelm, Fedorov, Lavoie-Marchildon, Grewal, Bachman, Trischler & Bengio, "Learning Deep Representations by Mutual
Information Estimation and Maximization", ICLR 2019, arXiv:1808.06670. What the paper leaves open is as in the authors'
rdevon/DIM, which can be set to train this network on this data, but whose values are those of CIFAR10.

Critics embed the M cells C_m of the encoder's map C, and its code y, as vectors of equal length. T is the dot product
of two. It is trained to be high where both are of one image, an average over P, and low where they are of two, over P~:

    I = E_P[-sp(-T)] - E_P~[sp(T)]                           (JSD), with sp(z) = log(1 + exp z)
    I = E_P[T - log(exp T + sum over P~ exp T')]             (infoNCE)

With the whole image in place of cells this is global information, I(X; y). The codes, sigmoid(y), are matched to a
prior of independent uniform numbers by adversarial training, in which D separates draws v of the prior from codes:

    encoder and critics:  -alpha I(X; y) - beta mean over m of I(C_m; y) + gamma E[-log D(sigmoid y)]
    D:                    -E[log D(v)] - E[log (1 - D(sigmoid y))] + ||D'||²,    v uniform

DIM(L) has alpha 0 and beta 1, DIM(G) the other way round. In each step both losses are computed from the same weights,
before either side moves.

Departures:
- The gradient of D is penalised at all codes of a batch. In the released code it is that of the batch's last code,
  divided by the batch.
- infoNCE leaves an image's own other cells out of the sum. In the released code each stands there with a score of -10.
- With infoNCE, the LayerNorm of the cells has no bias. It would add the same number to all scores of a code, which
  changes neither the bound nor its gradient, so that Adam would move it by rounding errors alone.
- The bounds are without their constants, log 4 in JSD.
- Images are neither mirrored nor cropped. The paper names no augmentation for Tiny ImageNet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import softplus

from benchmark.backbones.alex64 import LOCAL, POOLED, Alex64, Alex64Network, connected, pooled_convolutions, side_after
from benchmark.backbones.contract import Backbone
from benchmark.backbones.norms import BatchNorm2d, Over
from benchmark.blocks.adversaries import PriorMatching
from benchmark.core import distributed
from benchmark.core.bounds import Count, Counts, NotNegative
from benchmark.core.draws import uniform
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.method import Method
from benchmark.recipe import (
    DESK,
    DESK_SIZE,
    RGB,
    Adam,
    Change,
    Constant,
    Epochs,
    Given,
    InputSpec,
    Pool,
    Recipe,
    Settings,
    without,
)
from benchmark.views.crops import central_square


@dataclass(frozen=True)
class WholeImages(Settings):
    """What the table's methods share: each image as it is, or its middle where it is no square."""

    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        return {"image": central_square(image, spec.size)}  # (3, 64, 64)


@dataclass(frozen=True)
class DeepInfoMax(WholeImages):
    alpha: NotNegative
    beta: NotNegative
    gamma: NotNegative
    bound: Literal["JSD", "infoNCE"] = "JSD"
    units: Count = 2048  # of the vectors whose product is T
    prior_units: Counts = (1000, 200)  # of D's hidden layers
    penalty: NotNegative = 1.0  # of D's squared gradient

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha and not self.beta:
            raise UserError("DeepInfoMax: with alpha and beta both 0 nothing is learned of the images; set one of them")

    def build(self, backbone: Backbone, given: Given) -> Method:
        return InformationMaximiser(self, encoder(backbone))


def encoder(backbone: Backbone) -> Alex64Network:
    """The table's, or a UserError."""
    if not isinstance(backbone, Alex64Network):
        raise UserError(f"the encoder is an Alex64, with the stages conv3, conv, fc and y, not {backbone.architecture}")
    return backbone


class InformationMaximiser(Method):
    figures: dict[str, Tensor]

    def __init__(self, settings: DeepInfoMax, backbone: Alex64Network) -> None:
        super().__init__()
        self.settings, self.backbone = settings, backbone
        critics: dict[str, nn.Module] = {}
        if settings.alpha:
            critics["global"] = WholeCritic(backbone, settings.units)
        if settings.beta:
            # a softmax over cells stays the same when all cells' vectors move by one bias: nothing would train it
            critics["local"] = CellCritic(backbone, settings.units, bias=settings.bound != "infoNCE")
        self.critics = nn.ModuleDict(critics)
        self.prior = PriorMatching(backbone.out_channels, settings.prior_units, settings.penalty)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        x = self.backbone.input.prepare(batch.views["image"])
        stages = self.backbone.forward_stages(x.contiguous(memory_format=torch.channels_last))
        embedded = {name: critic(stages["conv3"], stages["y"]) for name, critic in self.critics.items()}
        codes = stages["y"].float().sigmoid()  # (B, 64)
        matching = self.prior.encoder_loss(codes)
        yield "main", self.negative_mutual_information(embedded) + self.settings.gamma * matching
        yield "discriminator", self.prior.loss(uniform(batch.seed, batch.index, codes.shape[1]), codes)

    def negative_mutual_information(self, embedded: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        """Weighted, of the critics' vectors: of cells (B, M, units), and of codes (B, units)."""
        bound, weights = BOUNDS[self.settings.bound], {"global": self.settings.alpha, "local": self.settings.beta}
        found = {name: bound(*scores(*vectors)) for name, vectors in embedded.items()}
        self.figures = {f"{name}_information": information.detach() for name, information in found.items()}
        return -torch.stack([weights[name] * information for name, information in found.items()]).sum()

    def players(self) -> dict[str, list[nn.Parameter]]:
        main = [*self.backbone.parameters(), *self.critics.parameters()]
        return {"main": main, "discriminator": list(self.prior.parameters())}

    def scalars(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.figures.items()}


class CellCritic(nn.Module):
    """Each cell of conv3 and the code by themselves. bias: the LayerNorm of the cells has one."""

    def __init__(self, backbone: Alex64Network, units: int, bias: bool) -> None:
        super().__init__()
        over = backbone.architecture.over
        self.of_cells = ResidualEmbedding(backbone.stages["conv3"].channels, units, over, bias)
        self.of_code = ResidualEmbedding(backbone.out_channels, units, over)

    def forward(self, C: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.of_cells(C), self.of_code(y[:, :, None, None])[:, 0]


class ResidualEmbedding(nn.Module):
    """(B, inputs, h, w) -> (B, h w, units). It starts as nearly the identity, followed by zeros."""

    def __init__(self, inputs: int, units: int, over: Over, bias: bool = True) -> None:
        super().__init__()
        first = nn.Conv2d(inputs, units, 1, bias=False)
        norm = BatchNorm2d(units, over=over)
        self.residual = nn.Sequential(first, norm, nn.ReLU(inplace=True), nn.Conv2d(units, units, 1))
        self.shortcut = nn.Conv2d(inputs, units, 1, bias=False)
        self.norm = nn.LayerNorm(units, bias=bias)
        if units >= inputs:
            with torch.no_grad():
                self.shortcut.weight.uniform_(-0.01, 0.01).view(units, inputs).fill_diagonal_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm((self.residual(x) + self.shortcut(x)).flatten(2).transpose(1, 2))


class WholeCritic(nn.Module):
    """All of conv3, by layers like the encoder's from conv3 on, and the code: one cell, M = 1."""

    def __init__(self, backbone: Alex64Network, units: int) -> None:
        super().__init__()
        architecture, size = backbone.architecture, backbone.input.size
        local, last, hidden = (backbone.stages[name].channels for name in ("conv3", "conv", "fc"))
        # NOTE: begins with a layer like conv3 itself, as in the released code; the paper says no more of it
        convolutions = pooled_convolutions(local, (local, local, last), POOLED[LOCAL - 1 :], architecture.over)
        self.of_image = nn.Sequential(
            *convolutions,
            nn.Flatten(),
            *connected(last * side_after(size, len(POOLED)) ** 2, hidden, architecture.over),
            *connected(hidden, hidden, architecture.over),
            nn.Linear(hidden, units),
        )
        self.of_code = nn.Linear(backbone.out_channels, units)

    def forward(self, C: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.of_image(C)[:, None], self.of_code(y)


def scores(cells: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """T of each code with every cell of the whole batch, (B, N, M), and which of the N images are the codes' own:
    (B, N) bool. cells: (B, M, units). codes: (B, units)."""
    everyones = distributed.gather(cells.float(), gradient=True)  # (N, M, units)
    with torch.autocast(codes.device.type, enabled=False):
        # one product of two matrices, as einsum's gradient of everyones may take a CPU four times as long
        T = (codes.float() @ everyones.flatten(0, 1).T).unflatten(1, everyones.shape[:2])
    here = distributed.rank() * len(codes) + torch.arange(len(codes), device=T.device)
    return T, here[:, None] == torch.arange(len(everyones), device=T.device)


def jensen_shannon(T: Tensor, is_own: Tensor) -> Tensor:
    own = is_own[..., None].to(T)
    cells = T.shape[2]
    positive = -(softplus(-T) * own).sum() / (own.sum() * cells)
    return positive - (softplus(T) * (1 - own)).sum() / ((1 - own).sum() * cells)


def info_nce_over_cells(T: Tensor, is_own: Tensor) -> Tensor:
    """Each of an image's cells is to be found among the cells of all other images, by the image's code."""
    own = (T * is_own[..., None]).sum(dim=1)  # (B, M)
    others = T.masked_fill(is_own[..., None], -torch.inf).flatten(1).logsumexp(dim=1)  # (B,)
    return (own - torch.logaddexp(own, others[:, None])).mean()


BOUNDS = {"JSD": jensen_shannon, "infoNCE": info_nce_over_cells}

# What all rows of the table share.
IMAGES = Pool("tiny_imagenet")
# NOTE: images from -1 to 1, since what the authors' decoder makes of a code ends in a tanh; no paper says
INPUT = InputSpec(64, RGB(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
# NOTE: 200 epochs are the released command's for STL-10, with a network like this. Its default is 1,000, for CIFAR10,
# and nothing names a number for Tiny ImageNet.
LENGTH = Epochs(200)
SOURCE_OF_LENGTH = "200 epochs as in Deep InfoMax's released command for STL-10, the papers name no number"  # for plans
SMALL = without(DESK, DESK_SIZE.key)  # the images have 64 pixels at every scale
SMALL_PRIOR = (
    Change("method.prior_units", (250, 50), "a quarter of the units, as in the encoder"),
    Change("optimizers.discriminator", Adam(lr=1e-3, weight_decay=1e-4, decoupled=True), "the encoder's rate"),
)

dim_local = Recipe(
    title="Deep InfoMax, local (JSD)",
    method=DeepInfoMax(alpha=0.0, beta=1.0, gamma=0.1),
    # BatchNorm is over each process's own images: over the whole batch on one process alone
    backbone=Alex64(),
    input=INPUT,
    data=IMAGES,
    length=LENGTH,
    batch_size=64,
    optimizers={"main": Adam(lr=1e-4), "discriminator": Adam(lr=1e-4)},
    schedule=Constant(),
    reported="33.54 / 36.88 / 31.66 % Tiny ImageNet top-1 at conv, fc and Y (Table 2); 33.8 / 34.5 / 30.7 in 8/2018; "
    + SOURCE_OF_LENGTH,
    desk=(*SMALL, Change("method.units", 512, "a quarter of the units, as in the encoder"), *SMALL_PRIOR),
)

dim_local_nce = replace(
    dim_local,
    title="Deep InfoMax, local (infoNCE)",
    # NOTE: 2,048 units as for JSD; a released command has 1,024 for infoNCE with another network
    method=DeepInfoMax(alpha=0.0, beta=1.0, gamma=0.1, bound="infoNCE"),
    reported=f"34.21 / 38.09 / 33.33 % Tiny ImageNet top-1 at conv, fc and Y (Table 2); {SOURCE_OF_LENGTH}",
)

dim_global = replace(
    dim_local,
    title="Deep InfoMax, global",
    method=DeepInfoMax(alpha=1.0, beta=0.0, gamma=1.0),
    reported=f"11.32 / 6.34 / 4.95 % Tiny ImageNet top-1 at conv, fc and Y (Table 2); {SOURCE_OF_LENGTH}",
)
