"""The classifier that a method trained along with its backbone, as it is: semi-supervised methods report no other.

Zhai, Oliver, Kolesnikov & Beyer, "S4L: Self-Supervised Semi-Supervised Learning", ICCV 2019 (arXiv:1905.03670): top-5
on the 50,000 validation images, 83.82 with 10 % and 53.37 with 1 % of the labels; the view as in google-research/s4l,
config/s4l_rotation.sh.
"""

from __future__ import annotations

import torch

from benchmark.backbones.contract import Backbone
from benchmark.core.errors import UserError
from benchmark.data.loader import Views
from benchmark.records.metric import PERCENT
from benchmark.transfers.contract import Context, ProtocolCard, Scores, Transfer
from benchmark.transfers.features import at_positions, frozen, once
from benchmark.transfers.metrics import topk_scores
from benchmark.transfers.preprocessing import centre_crop


class OwnClassifier(Transfer):
    def __init__(self, card: ProtocolCard) -> None:
        self.card = card

    def run(self, backbone: Backbone, context: Context) -> Scores:
        (test,) = self.image_sets(context)
        if context.trained is None:
            raise UserError(f"{self.card.id} scores the trained method's own classifier; a backbone alone has none")
        if context.trained.classes != test.classes:
            raise UserError(f"{self.card.id}: the method was trained on other classes than those of {test.name}")
        method = context.trained.method.to(context.device)
        views = Views(test, centre_crop(method.backbone.input.size), context.seed)
        scores, truth = [], []
        with torch.inference_mode(), frozen(method):
            for pixels, labels in at_positions(views, once(len(test)), context.workers):
                given = method.classify(pixels.to(context.device))
                if given.shape != (wanted := (len(pixels), len(test.classes))):
                    raise UserError(f"{type(method).__name__}.classify gave {tuple(given.shape)} scores, not {wanted}")
                scores.append(given.cpu())
                truth.append(labels)
                context.report(f"classes of {test.name}", sum(map(len, truth)), len(test), {})
        return Scores(*topk_scores(torch.cat(scores), torch.cat(truth)), {test.name: test.fingerprint()})


own_classifier_imagenet = OwnClassifier(
    ProtocolCard(
        id="own_classifier_imagenet",
        version=1,
        title="ImageNet, the method's own classifier",
        citation="as in Zhai et al., ICCV 2019, arXiv:1905.03670",
        metrics={"top1": PERCENT, "top5": PERCENT},
        datasets=(("imagenet", "val"),),
        asks=("classify",),
        frozen="everything: nothing is trained",
        selected="nothing",
        departures=(
            "every scale: the shorter side is resized bilinearly, with antialiasing; the released code averages areas",
        ),
    )
)
