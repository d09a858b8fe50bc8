"""PIRL-ens: two PIRL models whose features stand side by side.

Misra & van der Maaten, "Self-Supervised Learning of Pretext-Invariant Representations", CVPR 2020, arXiv:1912.01991,
section 3.2 and Figure 2: beside CMC (recipes/cmc.py), which transfers two ResNet-50s as well.

Two networks learn at once as in recipes/pirl.py, each with a head, a memory bank, views and negatives of its own.
Neither knows of the other. Transfers see what both say of an image, side by side.

Departures:
- Those of recipes/pirl.py.
- The paper does not say in what its two models differ. Ours differ in their first weights, views and negatives, and see
  the images in the same order.
- The paper's classifiers train longer on it, by how much it does not say. Ours train as long as on any other network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from PIL.Image import Image
from torch import Tensor

from benchmark.backbones.contract import Backbone
from benchmark.backbones.resnet_ensemble import ResNetEnsemble
from benchmark.backbones.two_networks import EnsembleOfTwo
from benchmark.core.draws import mix
from benchmark.core.errors import UserError
from benchmark.core.streams import Stream
from benchmark.data.batch import Batch
from benchmark.method import EmbedAll, Method
from benchmark.recipe import Given, InputSpec
from recipes.pirl import PIRL, PretextInvariant, pirl


@dataclass(frozen=True)
class PIRLEnsemble(PIRL):
    def views(self, image: Image, spec: InputSpec) -> dict[str, Tensor]:
        return {f"{name}_{k}": view for k in (0, 1) for name, view in PIRL.views(self, image, spec).items()}

    def build(self, backbone: Backbone, given: Given) -> Method:
        if not isinstance(backbone, EnsembleOfTwo):
            raise UserError(
                f"PIRL-ens needs two networks that both see the whole image, as ResNetEnsemble has them, not "
                f"{type(backbone.architecture).__name__}: set --recipe.backbone"
            )
        return Ensemble(self, backbone, given.num_images)


class Ensemble(Method):
    def __init__(self, settings: PIRLEnsemble, backbone: EnsembleOfTwo, num_images: int) -> None:
        super().__init__()
        self.backbone, self.chunk = backbone, settings.chunk
        self.first = PretextInvariant(settings, backbone.first, num_images, number=0)
        self.second = PretextInvariant(settings, backbone.second, num_images, number=1)

    def losses(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        steps = self.first.losses(of_member(batch, 0)), self.second.losses(of_member(batch, 1))
        (_, first), (_, second) = (next(step) for step in steps)
        yield "main", first + second
        for step in steps:
            next(step, None)  # to the update of its bank

    def prepare(self, embed_all: EmbedAll) -> None:
        for k, member in enumerate((self.first, self.second)):
            member.prepare(partial(_embed_member, embed_all, k))


def of_member(batch: Batch, k: int) -> Batch:
    """What a member sees of the batch: its own views, and a key of its own for its negatives."""
    views = {name: batch.views[f"{name}_{k}"] for name in ("I", "I_t")}
    return replace(batch, views=views, seed=mix(batch.seed, Stream.MEMBER, k))


def _embed_member(
    embed_all: EmbedAll, k: int, embed: Callable[[Batch], Tensor], still: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    return embed_all(lambda batch: embed(of_member(batch, k)), still)


pirl_ens = replace(
    pirl,
    title="PIRL (jigsaw), ensemble of two",
    method=PIRLEnsemble(),
    backbone=ResNetEnsemble(over=32),
    reported="65.7 % ImageNet top-1 linear (PIRL, section 3.2)",
)
