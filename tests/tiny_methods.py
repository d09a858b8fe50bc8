"""Methods of a few lines, each for one thing that the engine can do, on a network of two layers: runs take moments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, normalize, softplus
from torchvision.transforms import v2

from benchmark.backbones.contract import Backbone, Stage
from benchmark.backbones.norms import BatchNorm1d, BatchNorm2d, Over
from benchmark.blocks.memory_bank import MemoryBank
from benchmark.blocks.nce import info_nce
from benchmark.blocks.running_statistics import as_in_training
from benchmark.core import distributed
from benchmark.core.draws import mix
from benchmark.data.batch import Batch
from benchmark.method import EmbedAll, Method
from benchmark.recipe import (
    SGD,
    Adam,
    Architecture,
    Assigned,
    Balanced,
    Constant,
    Cosine,
    Given,
    InputSpec,
    Pool,
    Recipe,
    Settings,
    Steps,
)
from benchmark.recipe.contract import with_change

WAYS = 4


@dataclass(frozen=True)
class Tiny(Architecture):
    channels: int = 8
    over: Over = "process"

    def build(self, spec: InputSpec) -> TinyNetwork:
        return TinyNetwork(self, spec)


class TinyNetwork(Backbone):
    def __init__(self, architecture: Tiny, spec: InputSpec) -> None:
        super().__init__(architecture, spec)
        channels = architecture.channels
        self.conv1 = nn.Conv2d(spec.channels, channels, 3, stride=2, padding=1)
        self.bn1 = BatchNorm2d(channels, over=architecture.over)
        self.fc = nn.Linear(channels, 2 * channels)
        self.stages = {"conv1": Stage(channels, 2), "code": Stage(2 * channels, None)}

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        x = self.bn1(self.conv1(x)).relu()
        return {"conv1": x} if upto == "conv1" else {"conv1": x, "code": self.fc(x.amax(dim=(2, 3)))}


@dataclass(frozen=True)
class Small(Settings):
    """method: the name of a class below."""

    method: str
    sharded_bank: bool = False

    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        crop = v2.Compose([v2.RandomCrop(spec.size), v2.RandomHorizontalFlip(), v2.PILToTensor()])
        return {"image": crop(image), "other": crop(image)}

    def middle(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        return {"image": v2.functional.pil_to_tensor(v2.CenterCrop(spec.size)(image))}

    def build(self, backbone: Backbone, given: Given) -> Method:
        return METHODS[self.method](self, backbone, given)


class TellApart(Method):
    """Images by their index, with a draw in each step."""

    def __init__(self, settings: Any, backbone: Backbone, given: Given) -> None:
        super().__init__()
        self.backbone, self.settings, self.given = backbone, settings, given
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(backbone.out_channels, WAYS)
        self.norm = BatchNorm1d(WAYS, over=backbone.architecture.over, affine=False)

    def embed(self, batch: Batch, view: str = "image") -> Tensor:
        return self.backbone(self.backbone.input.prepare(batch.views[view]))

    def code(self, batch: Batch, view: str = "image") -> Tensor:
        """Unit length; without the norm all are alike."""
        return normalize(self.norm(self.head(self.embed(batch, view))), dim=1)

    def loss(self, batch: Batch) -> Tensor:
        return cross_entropy(self.head(self.drop(self.embed(batch))), batch.index % WAYS)


class Remember(TellApart):
    """A memory bank that starts from the images."""

    def __init__(self, settings: Any, backbone: Backbone, given: Given) -> None:
        super().__init__(settings, backbone, given)
        self.bank = MemoryBank(given.num_images, WAYS, sharded=settings.sharded_bank)

    def prepare(self, embed_all: EmbedAll) -> None:
        self.bank.fill(embed_all(as_in_training(self, self.code)))

    def losses(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        v = self.code(batch)
        negatives = self.bank.negatives(batch.index, 8, batch.seed)
        s = self.bank.scores(v[:, None], torch.cat([batch.index[:, None], negatives], dim=1))[:, 0]
        yield "main", info_nce(s[:, 0], s[:, 1:], tau=0.5)
        self.bank.update(batch.index, v)


class Play(TellApart):
    """Trunk and head by one loss, against a critic with its own."""

    def __init__(self, settings: Any, backbone: Backbone, given: Given) -> None:
        super().__init__(settings, backbone, given)
        self.critic = nn.Linear(backbone.out_channels, 1)

    def players(self) -> dict[str, list[nn.Parameter]]:
        parts = {"trunk": self.backbone, "head": self.head, "critic": self.critic}
        return {name: list(part.parameters()) for name, part in parts.items()}

    def losses(self, batch: Batch) -> Iterator[tuple[str | tuple[str, ...], Tensor]]:
        z = self.embed(batch)
        yield ("trunk", "head"), cross_entropy(self.head(z), batch.index % WAYS) + softplus(-self.critic(z)).mean()
        yield "critic", softplus(self.critic(z.detach())).mean() + softplus(-self.critic(z.detach().flip(1))).mean()


class Cluster(TellApart):
    """Each epoch assigns the images anew, and draws them evenly over what it assigned."""

    def __init__(self, settings: Any, backbone: Backbone, given: Given) -> None:
        super().__init__(settings, backbone, given)
        self.centre: Tensor
        self.assigned: Tensor
        self.register_buffer("centre", torch.zeros(WAYS))
        self.register_buffer("assigned", torch.zeros(given.num_images, dtype=torch.int64))

    def prepare(self, embed_all: EmbedAll) -> None:
        self.centre += torch.cat([codes for _, codes in embed_all(self.code, still=True)]).mean(dim=0)

    def on_epoch_start(self, epoch: int, embed_all: EmbedAll) -> None:
        for index, codes in embed_all(self.code, still=True):
            self.assigned[index] = (codes - self.centre).argmax(dim=1)

    def order(self, epoch: int) -> Tensor:
        even = 1 / torch.bincount(self.assigned, minlength=WAYS)[self.assigned]
        generator = torch.Generator().manual_seed(mix(epoch))
        return torch.multinomial(even, len(even), replacement=True, generator=generator)

    def loss(self, batch: Batch) -> Tensor:
        return cross_entropy(self.code(batch) / 0.1, self.assigned[batch.index])


class Labelled(TellApart):
    """By the pool's labels."""

    def loss(self, batch: Batch) -> Tensor:
        assert batch.labels is not None
        return cross_entropy(self.head(self.embed(batch)), batch.labels)


class SemiSupervise(TellApart):
    """A few labelled images beside all."""

    def loss(self, batch: Batch) -> Tensor:
        few = batch.pools["few"]
        assert few.labels is not None
        consistent = mse_loss(self.embed(batch), self.embed(batch, "other"))
        return cross_entropy(self.head(self.embed(few)), few.labels) + consistent


class HandOver(TellApart):
    """Leaves half of its network behind."""

    def export(self) -> Backbone:
        half = Tiny(self.backbone.architecture.channels // 2).build(self.backbone.input)
        whole = self.backbone.state_dict()
        half.load_state_dict({k: whole[k][tuple(slice(n) for n in t.shape)] for k, t in half.state_dict().items()})
        return half


class Learn(TellApart):
    """From a teacher, which does not change."""

    def __init__(self, settings: Any, backbone: Backbone, given: Given) -> None:
        super().__init__(settings, backbone, given)
        self.teacher = given.backbones["teacher"].requires_grad_(False)

    def loss(self, batch: Batch) -> Tensor:
        wanted = self.teacher(self.teacher.input.prepare(batch.views["image"]))
        return mse_loss(self.code(batch), normalize(wanted[:, :WAYS], dim=1))


class Contrast(TellApart):
    """NT-Xent over the images of all processes."""

    def all_rows(self, z: Tensor) -> Tensor:
        return distributed.gather(z, gradient=True)

    def loss(self, batch: Batch) -> Tensor:
        views = [self.code(batch, view) for view in ("image", "other")]
        own = torch.stack(views, dim=1).flatten(0, 1)  # (2 B, D), the two views of an image side by side
        place = torch.arange(len(own)) + distributed.rank() * len(own)
        logits = own @ self.all_rows(own).T / 0.5
        return cross_entropy(logits.scatter(1, place[:, None], -torch.inf), place ^ 1)


class ContrastDetached(Contrast):
    """What one writes who forgets that other processes' losses have gradients for this one's rows."""

    def all_rows(self, z: Tensor) -> Tensor:
        rows = distributed.gather(z.detach()).clone()
        rows[distributed.rank() * len(z) :][: len(z)] = z
        return rows


METHODS = {one.__name__: one for one in (TellApart, *TellApart.__subclasses__(), ContrastDetached)}


def tiny(kind: type[Method], **changes: Any) -> Recipe:
    """Two epochs and a step, of three steps each, over 48 images."""
    values = {
        "title": kind.__name__,
        "method": Small(kind.__name__),
        "backbone": Tiny(),
        "data": Pool("drawn"),
        "length": Steps(7),
        "batch_size": 16,
        "optimizers": {"main": SGD(lr=0.1)},
        "schedule": Cosine(0.1),
        "input": InputSpec(16),
    }
    return Recipe(**values | changes)


SCHEDULES = {"trunk": Cosine(0.1), "head": Constant(), "critic": Constant()}
PLAYERS = {"trunk": SGD(lr=0.1, clip=1.0), "head": Adam(lr=1e-2), "critic": SGD(lr=0.05, momentum=0.0)}
POOLS = {"all": Pool("drawn"), "few": Pool("drawn", percent=25, labels=True, batch_size=4, views="middle")}

# What the engine can do, by name; what is to hold of each is tested in a process and in several, and with kills.
FEATURES: dict[str, Recipe] = {
    "one loss": tiny(TellApart),
    "bank": tiny(Remember),
    "sharded bank": tiny(Remember, method=Small("Remember", sharded_bank=True)),
    "players": tiny(Play, optimizers=PLAYERS, schedule=SCHEDULES),
    "assigned order": tiny(Cluster, order=Assigned()),
    "balanced order": tiny(Labelled, order=Balanced(2), data=Pool("drawn", labels=True)),
    "pools": tiny(SemiSupervise, data=POOLS),
    "export": tiny(HandOver),
    "after": tiny(Learn, after={"teacher": "random_init"}),
    "rows of all": tiny(Contrast, backbone=Tiny(over="all")),
    "bf16": tiny(TellApart, precision="bf16"),
}
UNTRAINED = tiny(TellApart, length=Steps(0))


def with_bank_sharded(recipe: Recipe) -> Recipe:
    """Where its method can."""
    has_bank = hasattr(recipe.method, "sharded_bank")
    return with_change(recipe, "method.sharded_bank", True) if has_bank else recipe
