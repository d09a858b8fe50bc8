"""What the engine feeds a method: the batches of each epoch, and all images at once where a method asks for them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmark.core import distributed
from benchmark.core.draws import mix, seed_torch
from benchmark.core.errors import UserError
from benchmark.core.mixed_precision import autocast
from benchmark.core.streams import Stream
from benchmark.data.batch import Batch
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes
from benchmark.data.loader import Position, TrainOrder, Views, batches, check_batch_size, epoch_order, order_seed
from benchmark.method import EmbedAll, Method
from benchmark.recipe.contract import OpenImage, Recipe, Settings
from benchmark.recipe.inputs import InputSpec
from benchmark.recipe.pools import Assigned, Given, Known, Pool

BEFORE_TRAINING = -1  # the "epoch" of views that no training step sees


def given_of(images: Mapping[str, ImageSet], backbones: Mapping[str, Any]) -> Given:
    """What a method is built from, of the pools as they lie there."""
    known = {name: known_of(one) for name, one in images.items()}
    first = next(iter(known.values()))
    return Given(first.num_images, first.num_classes, known, backbones)


def known_of(images: ImageSet) -> Known:
    per_image = () if images.labels is None else images.labels.values.shape[1:]
    return Known(len(images), len(images.classes), per_image)


def seen_images(pool: Pool, images: ImageSet) -> ImageSet:
    """What a method is given of a pool: labels and maps only where its recipe says so."""
    shown = replace(images, maps={kind: map_of for kind, map_of in images.maps.items() if kind in pool.maps})
    return shown if pool.labels else shown.without_labels()


class Feed:
    """Batches as a function of position. An epoch is one of the first pool; the other pools go round beside it."""

    def __init__(self, recipe: Recipe, images: Mapping[str, ImageSet], workers: int, total: int) -> None:
        self.recipe, self.workers, self.total = recipe, workers, total
        self.main = next(iter(images))
        self.sets = {}
        for number, (name, pool) in enumerate(recipe.pools.items()):
            _check(name, pool, images[name], recipe)
            # a seed of its own, or rows of equal index in two pools would have the same crops
            seed = mix(recipe.seed, Stream.POOL, number) if number else recipe.seed
            views_at = partial(sampled, recipe.method, pool.views, recipe.input)
            self.sets[name] = Views(images[name], None, seed, views_at)
        self.streams: dict[str, Generator[Batch]] = {}

    @property
    def steps_per_epoch(self) -> int:
        return len(self.sets[self.main].images) // self.recipe.batch_of(self.main)

    def epoch(self, first_step: int, method: Method) -> Iterator[Batch]:
        """The batches from `first_step` to the end of its epoch, or of the run."""
        number = first_step // self.steps_per_epoch
        last = min((number + 1) * self.steps_per_epoch, self.total)
        if isinstance(self.recipe.order, Assigned):
            count = len(self.sets[self.main].images)
            torch.manual_seed(order_seed(self.recipe.seed, number))  # the same order when a run resumes in this epoch
            indices = _checked(method.order(number), self.steps_per_epoch * self.recipe.batch_of(self.main), count)
            self.streams[self.main] = self._stream(self.main, first_step, last, lambda epoch: indices)
        for name in self.sets:
            if name not in self.streams:
                own = self._ordered if name == self.main else None
                self.streams[name] = self._stream(name, first_step, self.total, own)
        for _ in range(first_step, last):
            yield with_pools({name: next(self.streams[name]) for name in self.sets}, self.main)

    def close(self) -> None:
        """End the loader processes. Where the garbage collector has to, it waits five seconds for each in vain."""
        for stream in self.streams.values():
            stream.close()

    def _stream(self, name: str, first: int, last: int, indices: Callable[[int], Tensor] | None) -> Generator[Batch]:
        dataset, batch_size = self.sets[name], self.recipe.batch_of(name)
        order = TrainOrder(len(dataset.images), batch_size, dataset.seed, first, last, indices)
        return batches(dataset, order, self.workers, self.recipe.pools[name].labels)

    def _ordered(self, epoch: int) -> Tensor:
        images, batch_size = self.sets[self.main].images, self.recipe.batch_of(self.main)
        seed = order_seed(self.recipe.seed, epoch)
        classes = images.labels.values if isinstance(images.labels, Classes) else None
        return self.recipe.order.indices(classes, len(images), batch_size, seed)

    def embed_all(self, method: Method, device: torch.device, epoch: int) -> EmbedAll:
        recipe, dataset = self.recipe, self.sets[self.main]
        count, batch_size = len(dataset.images), recipe.batch_of(self.main)

        def run(embed: Callable[[Batch], Tensor], still: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
            # a random order, since a method may use the batch's statistics and files often lie class by class
            order = epoch_order(count, recipe.seed, BEFORE_TRAINING)
            seen = _still(dataset, recipe) if still else dataset
            loaded = batches(seen, _full_batches(order, batch_size), self.workers, labels=False)
            for number, start in enumerate(range(0, count, batch_size)):
                # what is drawn between and after these batches does not depend on them
                with torch.random.fork_rng([device] if device.type == "cuda" else []):
                    batch = next(loaded).to(device)
                    seed_torch(mix(recipe.seed, Stream.EMBED, epoch, number, distributed.rank()))
                    features = embedded(embed, batch)
                last = count - start
                yield distributed.gather(batch.index)[:last], distributed.gather(features)[:last]

        def embedded(embed: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
            method.eval()
            with torch.no_grad(), autocast(device.type, recipe.precision):
                features = embed(batch)
            method.train()
            if not isinstance(features, Tensor) or features.shape[:1] != batch.index.shape:
                got = tuple(features.shape) if isinstance(features, Tensor) else f"a {type(features).__name__}"
                raise UserError(f"{type(method).__name__} embedded {len(batch)} images as {got}")
            return features.float()

        return run


def check_order(method: Method, recipe: Recipe) -> None:
    """Raises UserError where the method gives an order that its recipe does not ask for, or the other way round."""
    gives, asks = type(method).order is not Method.order, isinstance(recipe.order, Assigned)
    if gives and not asks:
        raise UserError(f"{type(method).__name__} gives an order; its recipe must say order=Assigned()")
    if asks and not gives:
        raise UserError(f"{type(method).__name__} has no order(epoch), which its recipe's order=Assigned() needs")


def _check(name: str, pool: Pool, images: ImageSet, recipe: Recipe) -> None:
    check_batch_size(recipe.batch_of(name), len(images), _batch_flag(name, pool, recipe))
    if pool.labels and images.labels is None:
        raise UserError(f"pool {name!r} needs labels; {images.name} has none")
    if missing := [kind for kind in pool.maps if kind not in images.maps]:
        raise UserError(f"pool {name!r} needs maps of {', '.join(missing)}; {images.name} has none")
    if not hasattr(recipe.method, pool.views):
        raise UserError(
            f"pool {name!r} needs views by {type(recipe.method).__name__}.{pool.views}, which does not exist"
        )


def _batch_flag(name: str, pool: Pool, recipe: Recipe) -> str:
    if pool.batch_size is None:
        return "--recipe.batch-size"
    return "--recipe.data.batch-size" if isinstance(recipe.data, Pool) else f"--recipe.data.{name}.batch-size"


def sampled(settings: Settings, views: str, spec: InputSpec, open_image: OpenImage, index: int) -> dict[str, Any]:
    if views == "views":
        return settings.sample(open_image, index, spec)
    return getattr(settings, views)(open_image(index), spec)


def _still(dataset: Views, recipe: Recipe) -> Views:
    """The same images, decoded once for both."""
    seen = copy.copy(dataset)
    seen.views_at = partial(sampled, recipe.method, "still", recipe.input)
    return seen


def with_pools(found: dict[str, Batch], main: str) -> Batch:
    batch = found[main]
    if len(found) > 1:
        batch.pools = {name: copy.copy(one) for name, one in found.items()}
    return batch


def _checked(indices: Tensor, wanted: int, num_images: int) -> Tensor:
    is_tensor = isinstance(indices, Tensor)
    if not is_tensor or indices.dtype != torch.int64 or indices.ndim != 1 or len(indices) < wanted:
        got = f"{indices.dtype} {tuple(indices.shape)}" if is_tensor else f"a {type(indices).__name__}"
        raise UserError(f"Method.order gave {got}; an epoch takes int64, {wanted} or more in a row")
    least, most = int(indices.min()), int(indices.max())
    if least < 0 or most >= num_images:
        raise UserError(f"Method.order gave {least} to {most}; the images are 0 to {num_images - 1}")
    return indices.cpu()


def _full_batches(order: Tensor, batch_size: int) -> Iterator[list[Position]]:
    """This process's share of each batch. The last batch is filled up from the beginning of the order: one image alone,
    or a few, would have no statistics to be normalised by."""
    share = batch_size // distributed.world_size()
    first = distributed.rank() * share
    for start in range(first, first + len(order), batch_size):
        places = torch.arange(start, start + share) % len(order)
        yield [(BEFORE_TRAINING, index) for index in order[places].tolist()]
