"""Clusters of features: whitening, k-means by faiss, and epochs in which every cluster comes equally often.

Process 0 keeps the features of all images, clusters them and tells the others. Only one process then needs the memory,
and the clusters are the same everywhere: k-means on each would differ where a last bit decides between two centres.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn.functional import normalize

from benchmark.core import distributed
from benchmark.core.errors import UserError

LEAST_VARIANCE = 1e-6  # of the largest: what is below it is rounding, which whitening would blow up


@dataclass(frozen=True)
class Work:
    """What process 0 computes while the others wait, for the plan."""

    name: str
    operations: int
    num_bytes: int  # of what it is computed from, and of what comes out
    formula: str  # of the operations


def kmeans_work(rows: int, dim: int, k: int, iterations: int, starts: int = 1) -> Work:
    """The distances of all rows to all centres: `iterations` times, and once more for the last assignment."""
    formula = f"2 x {rows:,} rows x {dim:,} x {k:,} clusters x ({iterations} + 1) iterations"
    formula += f" x {starts} starts" if starts > 1 else ""
    return Work("k-means", 2 * rows * dim * k * (iterations + 1) * starts, 4 * (rows + k) * dim, formula)


def whitening_work(rows: int, dim: int, components: int) -> Work:
    """The products of all columns, then those with the components."""
    formula = f"2 x {rows:,} rows x {dim:,} x ({dim:,} + {components:,} components)"
    return Work("whitening", 2 * rows * dim * (dim + components), 4 * rows * (dim + components), formula)


def clusters_of_all(
    features: Iterable[tuple[Tensor, Tensor]],
    num_images: int,
    cluster: Callable[[Tensor], Tensor],
) -> Tensor:
    """Batches of (index (B,), features (B, D)), as Method's embed_all gives them -> (num_images,) int64 on the CPU, the
    same on all processes. cluster: features (num_images, D) -> cluster of each; runs on process 0."""
    rows = rows_of_all(features, num_images)
    labels = torch.zeros(num_images, dtype=torch.int64)
    with distributed.together():
        labels = cluster(rows) if distributed.rank() == 0 else labels
    return distributed.broadcast(labels)


def rows_of_all(features: Iterable[tuple[Tensor, Tensor]], num_images: int) -> Tensor:
    """The same batches -> (num_images, D) on the CPU of process 0, and nothing, (0,), on the others."""
    rows, is_first = torch.empty(0), distributed.rank() == 0
    for index, batch in features:  # a process that keeps none takes part in computing them
        if is_first:
            rows = rows if len(rows) else torch.empty(num_images, batch.shape[1])
            rows[index.cpu()] = batch.cpu()
    return rows


def whitened(x: Tensor, dim: int) -> Tensor:
    """(N, D) -> (N, at most dim): the principal components of largest variance, each of mean 0 and variance 1.
    Components without variance are left out, so that narrow or few features give fewer. Changes x in place, since there
    may be no room for two of it."""
    return x @ whitening(x, dim)


def whitening(x: Tensor, dim: int) -> Tensor:
    """(N, D) -> (D, at most dim): what rows are multiplied with to be whitened, a column for each component. Takes the
    mean away from x itself."""
    x -= x.mean(dim=0)
    variance, directions = torch.linalg.eigh((x.T @ x / len(x)).double())  # ascending
    variance, directions = variance.flip(0)[:dim], directions.flip(1)[:, :dim]
    has_spread = variance > LEAST_VARIANCE * variance[0]
    return (directions[:, has_spread] / variance[has_spread].sqrt()).float()


def kmeans(x: Tensor, k: int, iterations: int, seed: int) -> tuple[Tensor, Tensor]:
    """(N, D) on the CPU -> ((N,) int64, the cluster of each row; (k, D), the centres).

    Lloyd's algorithm from k rows that `seed` draws. No cluster is empty: while it iterates faiss splits a large one,
    and what is empty after the last assignment takes half of the largest. The same for a seed on as many threads.
    Raises UserError for fewer rows than clusters.
    """
    import faiss

    if k > len(x):
        raise UserError(f"k-means: {k:,} clusters of {len(x):,} images; set the number of clusters lower")
    rows = x.to(torch.float32).numpy()
    start = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:k]
    with threadpool_limits(torch.get_num_threads()):  # faiss has threads of its own
        # all rows count: by default faiss would take a sample of them
        means = faiss.Kmeans(x.shape[1], k, niter=iterations, min_points_per_centroid=1, max_points_per_centroid=len(x))
        means.train(rows, init_centroids=rows[start.numpy()])
        nearest = torch.from_numpy(means.index.search(rows, 1)[1][:, 0])
    centres = torch.tensor(means.centroids)
    return _without_empty(torch.from_numpy(rows), nearest, centres)


def best_kmeans(x: Tensor, k: int, iterations: int, seeds: Iterable[int]) -> tuple[Tensor, Tensor]:
    """k-means from each seed's start, and of these the one whose rows lie nearest to their centres, in squares."""
    found = (kmeans(x, k, iterations, seed) for seed in seeds)
    return min(found, key=lambda each: float((x - each[1][each[0]]).square().sum()))


def _without_empty(x: Tensor, nearest: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Each empty cluster takes half of the largest one: of two copies of its centre, moved apart by a little as faiss
    does it, the rows that lie most on the one's side. Rows that are all equal are divided too."""
    apart = torch.ones_like(centres[0])
    apart[1::2] = -1
    sizes = torch.bincount(nearest, minlength=len(centres))
    for empty in (sizes == 0).nonzero()[:, 0].tolist():
        largest = int(sizes.argmax())
        members = (nearest == largest).nonzero()[:, 0]
        side = (x[members] - centres[largest]) @ (centres[largest] * apart)
        moved = members[side.argsort(stable=True)[: len(members) // 2]]
        nearest[moved] = empty
        centres[empty], centres[largest] = x[moved].mean(dim=0), x[nearest == largest].mean(dim=0)
        sizes[empty], sizes[largest] = len(moved), len(members) - len(moved)
    return nearest, centres


def clusters_of_unit_vectors(x: Tensor, k: int, iterations: int, seed: int) -> Tensor:
    """k-means of the rows at length 1: (N, D) -> (N,) int64."""
    return kmeans(normalize(x, dim=1), k, iterations, seed)[0]


def uniform_over_clusters(labels: Tensor, seed: int) -> Tensor:
    """(N,) clusters -> (N,) image indices in random order, in which every cluster that has an image comes N / clusters
    times: images of small clusters often, some of large ones not at all (Caron et al., ECCV 2018, section 3.2)."""
    generator = torch.Generator().manual_seed(seed)
    by_cluster = [each for each in labels.argsort(stable=True).split(torch.bincount(labels).tolist()) if len(each)]
    count = len(labels) // len(by_cluster) + 1
    drawn = torch.cat([_drawn(members, count, generator) for members in by_cluster])
    return drawn[torch.randperm(len(drawn), generator=generator)[: len(labels)]]


def _drawn(members: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """None twice, where there are enough."""
    if len(members) > count:
        return members[torch.randperm(len(members), generator=generator)[:count]]
    return members[torch.randint(len(members), (count,), generator=generator)]
