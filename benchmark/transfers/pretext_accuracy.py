"""How often a method solves its own pretext on images that it was not trained on.

Papers print it beside what transfers, because the two need not go together: Noroozi & Favaro, "Unsupervised Learning of
Visual Representations by Solving Jigsaw Puzzles", ECCV 2016, arXiv:1603.09246, Tables 4 and 5. They do not say which
puzzles they count.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmark.backbones.contract import Backbone
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.data.loader import Views
from benchmark.engine.feed import sampled
from benchmark.records.metric import PERCENT
from benchmark.records.per_image import kept_per_image
from benchmark.transfers.contract import Context, ProtocolCard, Scores, Transfer
from benchmark.transfers.features import frozen, once
from benchmark.transfers.metrics import percentage
from benchmark.transfers.turns import CPU, in_turn


class PretextAccuracy(Transfer):
    """Asks the method to `solve(batch)`: the views of its recipe, as in training, of a batch of test images -> (B,)
    bool, which of their tasks it solves."""

    depends_on_processes = False

    def __init__(self, card: ProtocolCard) -> None:
        self.card = card

    def run(self, backbone: Backbone, context: Context) -> Scores:
        (test,) = self.image_sets(context)
        if context.trained is None:
            raise UserError(f"{self.card.id} has the trained method solve its pretext; a backbone alone has none")
        method, settings = context.trained.method.to(context.device), context.trained.settings
        (asked,) = self.card.asks
        solve = getattr(method, asked)
        views_at = partial(sampled, settings, "views", method.backbone.input)
        views = Views(test.without_labels(), None, context.seed, views_at)

        def made(batch: Batch) -> list[Tensor]:
            found = solve(batch.to(context.device))
            if found.shape != (len(batch),) or found.dtype != torch.bool:
                what = f"{found.dtype} {tuple(found.shape)}, not bool ({len(batch)},)"
                raise UserError(f"{type(method).__name__}.{asked} gave {what}: one answer an image")
            return [found.cpu()]

        solved = []
        with torch.inference_mode(), frozen(method):
            for (found,) in in_turn(views, once(len(test)), context.workers, made, CPU, labels=False):
                solved.append(found)
                context.report(f"pretext on {test.name}", sum(map(len, solved)), len(test), {})
        right = torch.cat(solved)
        kept = kept_per_image({"accuracy": right.numpy()})
        return Scores({"accuracy": percentage(right)}, kept, {test.name: test.fingerprint()})


pretext_accuracy_imagenet = PretextAccuracy(
    ProtocolCard(
        id="pretext_accuracy_imagenet",
        version=1,
        title="ImageNet, how often the method solves its own pretext",
        citation="as in Noroozi & Favaro, ECCV 2016, arXiv:1603.09246, Tables 4 and 5",
        metrics={"accuracy": PERCENT},
        datasets=(("imagenet", "val"),),
        asks=("solve",),
        frozen="everything: nothing is trained",
        selected="nothing",
        departures=(
            "every scale: one puzzle of each validation image, made as in training; the paper does not say which it "
            "counts",
        ),
    )
)
