"""The classifier that a method trained along with its backbone, as it is: semi-supervised methods report no other.

Zhai, Oliver, Kolesnikov & Beyer, "S4L: Self-Supervised Semi-Supervised Learning", ICCV 2019 (arXiv:1905.03670): top-5
on the 50,000 validation images, 83.82 with 10 % and 53.37 with 1 % of the labels; the view as in google-research/s4l,
config/s4l_rotation.sh.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from benchmark.backbones.contract import Backbone
from benchmark.core.errors import UserError
from benchmark.records.metric import PERCENT
from benchmark.transfers.contract import Context, ProtocolCard, Scores, Transfer
from benchmark.transfers.features import frozen, scores_of
from benchmark.transfers.metrics import topk_scores
from benchmark.transfers.preprocessing import Preprocessing, centre_crop, whole_image


class OwnClassifier(Transfer):
    depends_on_processes = False

    def __init__(self, card: ProtocolCard, view: Callable[[int], Preprocessing] = centre_crop) -> None:
        self.card, self.view = card, view

    def run(self, backbone: Backbone, context: Context) -> Scores:
        *_, test = sets = self.image_sets(context)
        if context.trained is None:
            raise UserError(f"{self.card.id} scores the trained method's own classifier; a backbone alone has none")
        if context.trained.classes != test.classes:
            raise UserError(f"{self.card.id}: the method was trained on other classes than those of {test.name}")
        method = context.trained.method.to(context.device)

        def scored(pixels: Tensor) -> Tensor:
            given = method.classify(pixels.to(context.device))
            if given.shape != (wanted := (len(pixels), len(test.classes))):
                raise UserError(f"{type(method).__name__}.classify gave {tuple(given.shape)} scores, not {wanted}")
            return given

        with frozen(method):
            scores, truth = scores_of(scored, test, self.view(method.backbone.input.size), context)
        data = {images.name: images.fingerprint() for images in sets}
        return Scores(*topk_scores(scores, truth), data)


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

own_classifier_tiny_imagenet = OwnClassifier(
    ProtocolCard(
        id="own_classifier_tiny_imagenet",
        version=1,
        title="Tiny ImageNet, the method's own classifier",
        citation="Hjelm et al., ICLR 2019, arXiv:1808.06670, Table 2, fully supervised; 36.60 top-1",
        metrics={"top1": PERCENT, "top5": PERCENT},
        datasets=(("tiny_imagenet", "val"),),
        takes=("Alex64",),
        asks=("classify",),
        frozen="everything: nothing is trained, the classifier was trained on the training images before",
        selected="nothing",
        departures=(
            "every scale: the accuracy after the last step; the paper's is an average over the last 100 epochs, as in "
            "all of its table",
            "desk: ImageNet's drawn pictures, of 96 pixels, since Tiny ImageNet's are a fifth as many",
        ),
    ),
    whole_image,
)
