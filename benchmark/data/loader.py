"""Batches as a function of position: which images (seed, epoch), which views of them (seed, epoch, image).

Nothing depends on history, on the number of worker processes, or on how often the run was interrupted.
"""

from __future__ import annotations

import os
import signal
import statistics
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from benchmark.core import distributed
from benchmark.core.draws import mix, permutation
from benchmark.core.errors import UserError
from benchmark.core.processes import end_with_parent, forking, heed_parent_alone
from benchmark.core.streams import Stream
from benchmark.data.batch import Batch
from benchmark.data.handover import Parcel, lost_loader_told, packed, refused
from benchmark.data.image_set import ImageSet

KEPT_DECODED_BYTES = 512 << 20  # sets that fit are decoded once; JPEG decoding is half of a small image's data path
TRIED = 16  # images that tell whether most would fit
Position = tuple[int, int]  # (epoch, image index)
Sample = tuple[dict[str, Tensor], int, Any]  # (views, image index, its row of the labels, or -1)


def step_seed(seed: int, step: int) -> int:
    """The seed that all processes share at a step."""
    return mix(seed, Stream.STEP, step)


class Samples(Dataset):
    """(epoch, index) -> what `sample` makes of that image, with torch seeded for just that image in that epoch.

    wanted: the images that this process will ask for; all, if left out."""

    def __init__(self, images: ImageSet, seed: int, wanted: Collection[int] | None = None) -> None:
        self.images, self.seed = images, seed
        self.decoded = _decode_all(images, range(len(images)) if wanted is None else sorted(wanted))

    def __getitem__(self, position: Position) -> Any | UserError:
        epoch, index = position
        try:
            # the CPU generator alone, and not torch.manual_seed, for the reason that seed_torch gives
            torch.default_generator.manual_seed(mix(self.seed, Stream.VIEWS, epoch, index))
            return self.at(index)
        except UserError as error:
            return UserError(str(error))  # raised in a loader process, it would arrive as a traceback

    def open(self, index: int) -> Image.Image:
        return self.decoded[index] if index in self.decoded else self.images.open(index)

    def at(self, index: int) -> Any:
        return self.sample(self.open(index), index)

    def sample(self, image: Image.Image, index: int) -> Any:
        raise NotImplementedError


class Views(Samples):
    """(epoch, index) -> (views, index, label). `views` makes them of one image; `views_at`, given instead, opens what
    it needs by index, which may be several images."""

    def __init__(
        self,
        images: ImageSet,
        views: Callable[[Image.Image], dict[str, Tensor]] | None,
        seed: int,
        views_at: Callable[[Callable[..., Image.Image], int], dict[str, Tensor]] | None = None,
        wanted: Collection[int] | None = None,
    ) -> None:
        super().__init__(images, seed, wanted)
        self.views, self.views_at = views, views_at

    def at(self, index: int) -> Sample:
        label = -1 if self.images.labels is None else self.images.labels.values[index]
        if self.views_at:
            return self.views_at(self.any, index), index, label
        assert self.views
        return self.views(self.open(index)), index, label

    def any(self, index: int, kind: str = "") -> Image.Image:
        """An image, or its map of a kind. Numbers go round."""
        place = index % len(self.images)
        return self.images.open_map(kind, place) if kind else self.open(place)


@dataclass(frozen=True)
class TrainOrder:
    """Positions of the batches from `first_step` up to `last_step`; of each batch this process's consecutive share, or
    all of it where it is not `divided`.

    indices: number of an epoch -> its images in order; a random permutation of all, if left out. Its last incomplete
    batch is dropped.
    """

    num_images: int
    batch_size: int
    seed: int
    first_step: int
    last_step: int
    indices: Callable[[int], Tensor] | None = None
    divided: bool = True

    @property
    def steps_per_epoch(self) -> int:
        return self.num_images // self.batch_size

    def __iter__(self) -> Iterator[list[Position]]:
        processes, rank = (distributed.world_size(), distributed.rank()) if self.divided else (1, 0)
        share = self.batch_size // processes
        epoch, order = -1, torch.empty(0)
        for step in range(self.first_step, self.last_step):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = self.indices(epoch) if self.indices else epoch_order(self.num_images, self.seed, epoch)
            start = (step % self.steps_per_epoch) * self.batch_size + rank * share
            yield [(epoch, index) for index in order[start : start + share].tolist()]

    def __len__(self) -> int:
        return self.last_step - self.first_step


def epoch_order(num_images: int, seed: int, epoch: int) -> Tensor:
    """(num_images,) int64, a permutation."""
    return permutation(num_images, order_seed(seed, epoch))


def order_seed(seed: int, epoch: int) -> int:
    """What an epoch's order is drawn from."""
    return mix(seed, Stream.ORDER, epoch)


def check_batch_size(batch_size: int, num_images: int, flag: str = "--recipe.batch-size") -> None:
    """flag: what sets it."""
    if batch_size > num_images:
        raise UserError(f"batch_size {batch_size} is more than the {num_images} images there are; set {flag} lower")
    if batch_size % (processes := distributed.world_size()):
        raise UserError(
            f"batch_size {batch_size} cannot be divided over {processes} processes; set {flag} to a multiple of that"
        )


def batches(dataset: Views, positions: Iterable[list[Position]], workers: int, labels: bool) -> Generator[Batch]:
    """Batches in the order of `positions`; seeds are left at 0 for the engine to set. Raises UserError for an image
    that cannot be read, or views that cannot be stacked, from a loader process too."""
    return in_order(dataset, positions, workers, _Collate(labels))


def one_by_one(count: int) -> list[list[Position]]:
    """The first so many images, each once and in a batch of its own."""
    return [[(0, index)] for index in range(count)]


def in_order(
    dataset: Samples,
    positions: Iterable[list[Position]],
    workers: int,
    collate: Callable[[list[Any]], Any] = list,
) -> Generator[Any]:
    """What `collate` makes of the samples at each list of positions: the plain list, unless told otherwise. Loader
    processes end with the generator. Raises the UserError of a sample that is one, and for loader processes that cannot
    start, cannot hand over what they made, or die."""
    loader = DataLoader(
        dataset,
        batch_sampler=positions,
        num_workers=workers,
        multiprocessing_context=forking() if workers else None,
        collate_fn=_Checked(collate),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_begin,
    )
    for batch in _told(loader):
        if isinstance(batch, UserError):
            raise batch
        yield batch


def _told(loader: DataLoader[Any]) -> Iterator[Any | UserError]:
    """What the loader gives, opened."""
    with lost_loader_told():
        try:
            loaded = iter(loader)
        except OSError as error:
            yield refused(error)
            return
        for batch in loaded:
            yield batch.opened() if isinstance(batch, Parcel) else batch


@dataclass(frozen=True)
class _Checked:
    collate: Callable[[list[Any]], Any]

    def __call__(self, samples: list[Any]) -> Any | UserError:
        batch = next((one for one in samples if isinstance(one, UserError)), None) or self.collate(samples)
        return batch if get_worker_info() is None or isinstance(batch, UserError) else packed(batch)


@dataclass(frozen=True)
class _Collate:
    labels: bool

    def __call__(self, samples: list[Sample]) -> Batch | UserError:
        try:
            views = {name: torch.stack([sample[0][name] for sample in samples]) for name in samples[0][0]}
        except (RuntimeError, TypeError, KeyError) as error:
            return UserError(f"the views of a batch cannot be stacked, image by image: {error}")
        index = torch.tensor([sample[1] for sample in samples])
        given = torch.as_tensor(np.array([sample[2] for sample in samples])) if self.labels else None
        return Batch(views, index, seed=0, labels=given)


def _begin(worker: int) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    heed_parent_alone()
    if not torch.cuda.is_available():
        # where training needs the same cores, a loader that takes one keeps all threads of a step waiting for the last
        os.nice(19)


def _decode_all(images: ImageSet, wanted: Sequence[int]) -> dict[int, Image.Image]:
    """Every image that is wanted decoded, in the parent process so that workers share the memory. Of more than fit, the
    first ones that do; none where a few images tell that these would be a small part."""
    kept: dict[int, Image.Image] = {}
    if not wanted:
        return kept
    tried = [wanted[place] for place in np.linspace(0, len(wanted) - 1, TRIED, dtype=np.int64)]
    if statistics.median(_held_bytes(images.open(index)) for index in tried) * len(wanted) > KEPT_DECODED_BYTES:
        return kept
    left = KEPT_DECODED_BYTES
    for index in wanted:
        image = images.open(index)
        left -= _held_bytes(image)
        if left < 0:
            break
        kept[index] = image
    return kept


def _held_bytes(image: Image.Image) -> int:
    """Pillow keeps four bytes of each RGB pixel, a pointer to each row, and about a kilobyte of objects."""
    return image.height * (4 * image.width + 8) + 1024
