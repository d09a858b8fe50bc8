"""Which images a recipe trains on, and in which order. Imports no torch until an order is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmark.core.errors import UserError
from benchmark.core.plain import at_least, is_number, later

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Pool:
    """Images that a recipe draws batches from.

    dataset:    a dataset's name. split: one of its splits.
    percent:    so many per cent of it. 100 is all; of less, a list beside the images, e.g. 1percent.txt, says which,
                else the seed, the same share of every class where there are any (benchmark.data.splits.percent_of).
    labels:     whether batches carry labels: visible here because it is the exception.
    batch_size: over all processes; the recipe's, if left out.
    views:      the method of the recipe's settings that makes views of these images.
    maps:       kinds of maps that come with each image, e.g. its depth: visible here, as labels are.
    """

    dataset: str
    split: str = "train"
    percent: float = 100.0
    labels: bool = False
    batch_size: int | None = None
    views: str = "views"
    maps: tuple[str, ...] = later(())

    @property
    def title(self) -> str:
        return self.dataset if self.percent == 100 else f"{self.percent:g} % of {self.dataset}"

    def __post_init__(self) -> None:
        if not is_number(self.percent) or not 0 < self.percent <= 100:
            raise UserError(f"Pool: percent must be more than 0 and at most 100, not {self.percent!r}")
        if self.batch_size is not None:
            at_least(self, batch_size=1)


@dataclass(frozen=True)
class Known:
    """What is known of a pool's images before any is opened.

    num_classes: classes or factors that its labels are about; 0 without labels.
    per_image:   shape of one image's labels: () where they are one class, else (num_classes,).
    """

    num_images: int
    num_classes: int = 0
    per_image: tuple[int, ...] = ()


@dataclass(frozen=True)
class Given:
    """What a method is built from besides its settings and its backbone.

    num_images, num_classes: of the recipe's pool; of the first one, where it has several.
    pools:     by name; a recipe's single pool is called "main".
    backbones: those of the recipes that this one comes after (Recipe.after), by the names it gives them.
    """

    num_images: int
    num_classes: int = 0
    pools: Mapping[str, Known] = field(default_factory=dict)
    backbones: Mapping[str, Any] = field(default_factory=dict)

    def classes(self, pool: str = "") -> int:
        """num_classes, or that of the pool with this name, for a method that learns them. Raises UserError unless the
        labels are one class an image, of two classes or more."""
        first = next(iter(self.pools.items()), ("main", Known(self.num_images, self.num_classes)))
        name, known = (pool, self.pools[pool]) if pool else first
        if not known.num_classes:
            raise UserError(
                f"pool {name!r} gives no labels, and the method learns from them: it needs labels=True and a dataset "
                "of one class an image"
            )
        if known.per_image:
            raise UserError(
                f"pool {name!r} has {known.per_image[0]} labels an image, and the method learns one class an image: "
                "choose another dataset"
            )
        if known.num_classes < 2:
            raise UserError(f"pool {name!r} has only one class, so there is nothing to tell apart: add classes")
        return known.num_classes


@dataclass(frozen=True)
class Order:
    """Base of orders: which images the batches of an epoch hold, as a function of the seed and the epoch alone."""

    def indices(self, labels: Any, num_images: int, batch_size: int, seed: int) -> Tensor:
        """(images in an epoch,) int64, batch by batch. seed: this epoch's own. labels: (num_images,) class
        indices, or None."""
        raise NotImplementedError(f"{type(self).__name__}.indices")


@dataclass(frozen=True)
class Shuffled(Order):
    """Every image once, in a random order."""

    def indices(self, labels: Any, num_images: int, batch_size: int, seed: int) -> Tensor:
        from benchmark.core.draws import permutation  # imports torch

        return permutation(num_images, seed)


@dataclass(frozen=True)
class Balanced(Order):
    """In each batch `classes` classes, and as many images of each as the batch has room for. Needs a pool with labels;
    an epoch has as many batches as with Shuffled."""

    classes: int

    def __post_init__(self) -> None:
        at_least(self, classes=1)

    def indices(self, labels: Any, num_images: int, batch_size: int, seed: int) -> Tensor:
        import torch

        if labels is None:
            raise UserError("Balanced draws by class: the recipe's pool needs labels=True, and one class an image")
        if batch_size % self.classes:
            raise UserError(f"Balanced: a batch of {batch_size} cannot be divided over {self.classes} classes")
        labels = torch.as_tensor(labels)
        present = labels.unique()
        if len(present) < self.classes:
            raise UserError(f"Balanced: {self.classes} classes a batch, but there are {len(present)}")
        generator = torch.Generator().manual_seed(seed)
        members = {int(c): (labels == c).nonzero()[:, 0] for c in present}
        each, batches = batch_size // self.classes, []
        for _ in range(num_images // batch_size):
            chosen = present[torch.randperm(len(present), generator=generator)[: self.classes]]
            batches += [_draw(members[int(c)], each, generator) for c in chosen]
        return torch.cat(batches)


@dataclass(frozen=True)
class Assigned(Order):
    """The method's own: `Method.order(epoch)`, asked for at the start of each epoch, when the method has seen all."""

    def indices(self, labels: Any, num_images: int, batch_size: int, seed: int) -> Tensor:
        raise UserError("Assigned is the order that a method gives: ask Method.order")


def _draw(members: Tensor, count: int, generator: Any) -> Tensor:
    """`count` of them: each once before any comes twice."""
    import torch

    rounds = [torch.randperm(len(members), generator=generator) for _ in range(-(-count // len(members)))]
    return members[torch.cat(rounds)[:count]]
