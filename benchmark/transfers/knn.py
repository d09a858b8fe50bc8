"""Weighted nearest neighbours on a frozen backbone.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018 (arXiv:1805.01978),
section 3.4, as in zhirongw/lemniscate.pytorch, test.py [LEM]. A ResNet-50 reaches 42.5 top-1 with that paper's method.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.backbones.contract import Backbone
from benchmark.data.labels import Classes
from benchmark.records.metric import PERCENT
from benchmark.transfers.contract import Context, ProtocolCard, Scores, Transfer
from benchmark.transfers.features import extract, output_tap
from benchmark.transfers.metrics import topk_scores
from benchmark.transfers.preprocessing import centre_crop
from benchmark.transfers.turns import own_turns, tensors_of_all_turns

K = 200  # section 4
TAU = 0.07  # section 4
QUERIES_AT_ONCE = 256


class NearestNeighbours(Transfer):
    depends_on_processes = False

    def __init__(self, card: ProtocolCard) -> None:
        self.card = card

    def run(self, backbone: Backbone, context: Context) -> Scores:
        train, test = self.image_sets(context)
        view, tap = centre_crop(backbone.input.size), output_tap(backbone)
        database, queries = (
            torch.from_numpy(extract(backbone, images, view, (tap,), context)[tap.name]) for images in (train, test)
        )
        labels = torch.as_tensor(train.labelled(Classes).values, device=context.device)
        scores = vote_in_turn(queries.to(context.device), database.to(context.device), labels, len(train.classes))
        truth = torch.as_tensor(test.labelled(Classes).values, device=context.device)
        data = {images.name: images.fingerprint() for images in (train, test)}
        return Scores(*topk_scores(scores, truth), data)


def vote(queries: Tensor, database: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """queries (M, D), database (N, D), labels (N,) -> (M, classes): of each query's K nearest by cosine, every
    one votes for its class with exp(cosine / TAU). Images that are as near as the K-th share the places that are left
    to them, wherever they stand in the database: else it would be the first classes' that vote for equal features."""
    return torch.cat(list(_votes(queries.split(QUERIES_AT_ONCE), database, labels, num_classes)))


def vote_in_turn(queries: Tensor, database: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """`vote`, for which processes take queries in turn; all have all votes."""
    parts = queries.split(QUERIES_AT_ONCE)
    own = ([votes] for votes in _votes(own_turns(parts), database, labels, num_classes))
    return torch.cat([votes for (votes,) in tensors_of_all_turns(own, len(parts), queries.device)])


def _votes(parts: Iterable[Tensor], database: Tensor, labels: Tensor, num_classes: int) -> Iterator[Tensor]:
    database = F.normalize(database)
    for part in parts:
        every = F.normalize(part) @ database.T  # (B, N)
        cosine, nearest = every.topk(min(K, len(database)))  # (B, K)
        votes = every.new_zeros(len(part), num_classes)
        votes.scatter_add_(1, labels[nearest], (cosine / TAU).exp())
        last = cosine[:, -1:]
        places, equal = (cosine == last).sum(dim=1), (every == last).sum(dim=1)
        for query in (equal > places).nonzero()[:, 0].tolist():
            share = (every[query] == last[query]) * (places[query] / equal[query])
            weights = ((every[query] > last[query]) + share) * (every[query] / TAU).exp()
            votes[query].zero_().scatter_add_(0, labels, weights)
        yield votes


knn_imagenet_wu = NearestNeighbours(
    ProtocolCard(
        id="knn_imagenet_wu",
        version=1,
        title="ImageNet, 200 weighted nearest neighbours",
        citation="Wu et al., CVPR 2018, arXiv:1805.01978, section 3.4",
        metrics={"top1": PERCENT, "top5": PERCENT},
        datasets=(("imagenet", "train"), ("imagenet", "val")),
        frozen="everything, BatchNorm's running statistics too",
        selected="nothing",
        departures=(
            "every scale: features are the backbone's output, averaged over space where it is a map; its file has no "
            "128-dimensional head",
            "every scale: training features are computed anew, without augmentation; the paper takes its memory bank",
        ),
    )
)
