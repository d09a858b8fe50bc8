"""What the engine promises a method, by methods of a few lines that need it, and others that misuse it and are told.

Much of it is also held to a kill at any point and to several processes, in test_engine_resume.py and
test_engine_processes.py, by the methods of tiny_methods.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import handmade
import numpy as np
import pytest
import torch
from PIL.Image import Image
from shares import one_against_two
from small_runs import Processes, drawn_images, in_processes, on_cpu, pools_of, run, run_and_stop
from tiny_methods import FEATURES, Cluster, Contrast, ContrastDetached, Play, Small, TellApart, Tiny, tiny
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor

from benchmark.backbones.contract import Backbone
from benchmark.backbones.norms import BatchNorm1d, BatchNorm2d, Over
from benchmark.backbones.weights import load_backbone, read_facts
from benchmark.blocks.shuffle import encoded_in_other_order
from benchmark.core import distributed
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.data.image_set import ImageSet
from benchmark.data.labels import Classes, Factors, Labels, Presence
from benchmark.engine import train
from benchmark.engine.feed import Feed, check_order
from benchmark.engine.players import build_players
from benchmark.engine.train import pretrain
from benchmark.method import EmbedAll, Method
from benchmark.recipe import SGD, Assigned, Balanced, Given, InputSpec, Pool, Recipe, Steps
from benchmark.recipe.catalogue import get_recipe
from benchmark.runs.current import is_pretrained
from benchmark.runs.run import Run, pretraining_images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return drawn_images(tmp_path_factory.mktemp("images"))


def checked(alone: Processes, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns that trains; its assertions are the test's."""
    [outcome] = alone.run(function, *arguments)
    assert outcome.error is None, outcome.error
    return outcome.value


def told(alone: Processes, recipe: Recipe, images: ImageSet, folder: Path) -> str:
    """What one is told who trains what cannot be trained."""
    [outcome] = alone.run(run, recipe, images, folder, on_cpu())
    assert outcome.error_type == "UserError", outcome
    return str(outcome.error)


@dataclass(frozen=True)
class Here(Small):
    """Small, of the methods in this file."""

    def build(self, backbone: Backbone, given: Given) -> Method:
        return globals()[self.method](self, backbone, given)


def here(kind: type[Method], settings: type[Here] = Here, **changes: Any) -> Recipe:
    return tiny(kind, method=settings(kind.__name__), **changes)


def batches(recipe: Recipe, images: ImageSet, workers: int = 0, first: int = 0) -> list[Batch]:
    """All batches from the `first` step to the end, as a method sees them."""
    seen: list[Batch] = []
    with closing(Feed(recipe, pools_of(recipe, images), workers, recipe.length.steps(3))) as source:
        while first + len(seen) < source.total:
            seen += source.epoch(first + len(seen), Method())
    return seen


def numbers(seen: list[Batch]) -> list[np.ndarray]:
    """All that is in the batches, in order."""
    found = []
    for batch in seen:
        labels = [] if batch.labels is None else [batch.labels]
        found += [one.numpy() for one in (batch.index, *labels, *batch.views.values())]
        found += numbers(list(batch.pools.values()))
    return found


def assert_same(one: list[Batch], two: list[Batch]) -> None:
    for a, b in zip(numbers(one), numbers(two), strict=True):
        assert np.array_equal(a, b)


# --- architectures: one's own, in a recipe file

OWN = """
from dataclasses import dataclass
from tiny_methods import TellApart, Tiny, TinyNetwork, tiny

@dataclass(frozen=True)
class Wider(Tiny):
    def build(self, spec):
        return TinyNetwork(self, spec)

own = tiny(TellApart, backbone=Wider(12))
"""


def test_an_architecture_of_ones_own_stands_in_the_recipe_file(images: ImageSet, tmp_path: Path):
    (tmp_path / "own.py").write_text(OWN)
    [made] = in_processes(1, train_from_file, tmp_path, images)
    assert made.error is None
    path = tmp_path / "run/backbone.safetensors"
    [unknown] = in_processes(1, load_backbone, path)  # by a process that has not read the recipe file
    assert f"{path}: its architecture or input does not fit this version of sslbench: there is no 'Wider'" in str(
        unknown.error
    )
    [known] = in_processes(1, channels_of_file, tmp_path, path)
    assert known.value == 24


def train_from_file(folder: Path, images: ImageSet) -> None:
    run(get_recipe("own", folder), images, folder / "run", on_cpu())


def channels_of_file(recipes: Path, path: Path) -> int:
    get_recipe("own", recipes)
    return load_backbone(path)[0].out_channels


# --- hand-off


def test_what_is_exported_is_what_the_file_holds(alone: Processes, images: ImageSet, tmp_path: Path):
    for name in ("export", "one loss"):
        checked(alone, run, FEATURES[name], images, tmp_path / name, on_cpu())
    (half, facts), (whole, _) = (
        load_backbone(tmp_path / name / "backbone.safetensors") for name in ("export", "one loss")
    )
    assert facts["architecture"] == {"is": "Tiny", "channels": 4, "over": "process"}
    assert torch.equal(half.get_parameter("conv1.weight"), whole.get_parameter("conv1.weight")[:4])


class NoBackbone(TellApart):
    def export(self) -> Backbone:
        return nn.Sequential(self.backbone, self.head)  # type: ignore[return-value]


def test_what_is_no_backbone_is_not_exported(alone: Processes, images: ImageSet, tmp_path: Path):
    assert "a Sequential is not a Backbone; Method.export must return one" in told(
        alone, here(NoBackbone), images, tmp_path
    )
    assert not (tmp_path / "backbone.safetensors").exists()


# --- samples


@dataclass(frozen=True)
class Pairs(Here):
    """An image and the next."""

    def sample(self, open_image: Callable[[int], Image], index: int, spec: InputSpec) -> dict[str, Tensor]:
        places = {"image": index, "next": index + 1}
        return {name: self.middle(open_image(place), spec)["image"] for name, place in places.items()}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_may_be_of_several_images(images: ImageSet, workers: int):
    shown = [center_crop(pil_to_tensor(images.open(place)), [16, 16]) for place in range(48)]
    seen = 0
    for batch in batches(here(TellApart, Pairs), images, workers):
        both = zip(batch.views["image"], batch.views["next"], strict=True)
        for place, (image, following) in zip(batch.index.tolist(), both, strict=True):
            assert torch.equal(image, shown[place])
            assert torch.equal(following, shown[(place + 1) % 48])
            seen += 1
    assert seen == 7 * 16


@dataclass(frozen=True)
class Ragged(Here):
    def sample(self, open_image: Callable[[int], Image], index: int, spec: InputSpec) -> dict[str, Tensor]:
        return {"image": pil_to_tensor(open_image(index))[:, : 16 + index % 2]}


@dataclass(frozen=True)
class NoTensors(Here):
    def sample(self, open_image: Callable[[int], Image], index: int, spec: InputSpec) -> dict[str, Tensor]:
        return {"image": open_image(index)}  # type: ignore[dict-item]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("kind", "said"), [(Ragged, "got \\[3, 1[67], 40\\] at"), (NoTensors, "but got Image")])
def test_views_that_make_no_batch_are_told(kind: type[Here], said: str, workers: int, images: ImageSet):
    with pytest.raises(UserError, match=f"^the views of a batch cannot be stacked, image by image: .*{said}"):
        batches(here(TellApart, kind), images, workers)


# --- order

LABELLED = Pool("drawn", labels=True)


def test_balanced_batches_hold_so_many_of_so_many_classes(images: ImageSet):
    uneven = replace(images, labels=Classes(np.array([0] * 30 + [1] * 12 + [2] * 5 + [3]), images.classes))
    recipe = tiny(TellApart, data=LABELLED, order=Balanced(2))
    seen = batches(recipe, uneven)
    for batch in seen:
        assert batch.labels is not None
        assert sorted(Counter(batch.labels.tolist()).values()) == [8, 8]
        for label in batch.labels.unique():
            places = Counter(batch.index[batch.labels == label].tolist())
            there = int((uneven.labels.values == int(label)).sum())
            assert max(places.values()) == -(-8 // there), "one comes again before another came"
    assert_same(seen, batches(recipe, uneven, workers=1))
    assert_same(seen[4:], batches(recipe, uneven, first=4))
    orders = {tuple(batch.index.tolist()) for batch in (*seen, *batches(replace(recipe, seed=1), uneven))}
    assert len(orders) == 14  # another in each step, and for each seed


@pytest.mark.parametrize(
    ("data", "classes", "said"),
    [
        (Pool("drawn"), 2, "Balanced draws by class: the recipe's pool needs labels=True, and one class an image"),
        (LABELLED, 3, "a batch of 16 cannot be divided over 3 classes"),
        (LABELLED, 8, "8 classes a batch, but there are 4"),
    ],
)
def test_what_cannot_be_balanced_is_told(data: Pool, classes: int, said: str, images: ImageSet):
    recipe = tiny(TellApart, data=data, order=Balanced(classes))
    with pytest.raises(UserError, match=said):
        batches(replace(recipe, data=data), images if data.labels else images.without_labels())


def test_an_assigned_order_is_the_methods_own(alone: Processes, images: ImageSet, tmp_path: Path):
    """47 images: the method gives as many places, of which an epoch takes two batches."""
    some = images.subset(range(47), "47")
    seen, given = checked(alone, _orders, tiny(Cluster, order=Assigned()), some, tmp_path)
    assert len(given) == 4
    assert seen == [order[start : start + 16] for order in given for start in (0, 16)][:7]
    assert len({tuple(order) for order in given}) == 4


def _orders(recipe: Recipe, images: ImageSet, folder: Path) -> tuple[list[list[int]], list[list[int]]]:
    seen, given, order = [], [], Cluster.order

    def noted(method: Cluster, epoch: int) -> Tensor:
        given.append(order(method, epoch).tolist())
        return order(method, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cluster, "order", noted)
        watch(patch, lambda batch: seen.append(batch.index.tolist()))
        run(recipe, images, folder, on_cpu())
    return seen, given


def watch(patch: pytest.MonkeyPatch, note: Callable[[Batch], object]) -> None:
    """Call note(batch) at each step."""
    step = train.train_step

    def noted(method: Method, batch: Batch, *rest: Any) -> Any:
        note(batch)
        return step(method, batch, *rest)

    patch.setattr(train, "train_step", noted)


def test_an_order_that_the_recipe_does_not_ask_for_is_told():
    for kind, changes, said in (
        (Cluster, {}, "Cluster gives an order; its recipe must say order=Assigned()"),
        (TellApart, {"order": Assigned()}, "TellApart has no order(epoch), which its recipe's order=Assigned() needs"),
    ):
        recipe = tiny(kind, **changes)
        with pytest.raises(UserError, match=re.escape(said)):
            check_order(recipe.method.build(Tiny().build(recipe.input), Given(48)), recipe)
    with pytest.raises(UserError, match="classes must be at least 1"):
        Balanced(0)


class TooShort(Cluster):
    def order(self, epoch: int) -> Tensor:
        return super().order(epoch)[:40]


class TooFar(Cluster):
    def order(self, epoch: int) -> Tensor:
        return super().order(epoch) + 1000


class InFloats(Cluster):
    def order(self, epoch: int) -> Tensor:
        return super().order(epoch).float()


class AList(Cluster):
    def order(self, epoch: int) -> Tensor:
        return super().order(epoch).tolist()  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (AList, "Method.order gave a list; an epoch takes int64, 48 or more in a row"),
        (TooShort, "Method.order gave torch.int64 (40,); an epoch takes int64, 48 or more in a row"),
        (TooFar, "; the images are 0 to 47"),
        (InFloats, "Method.order gave torch.float32 (48,); an epoch takes int64"),
    ],
)
def test_an_order_that_is_none_is_told(
    kind: type[Method], said: str, alone: Processes, images: ImageSet, tmp_path: Path
):
    assert said in told(alone, here(kind, order=Assigned()), images, tmp_path)


# --- pools

TWO_POOLS = {"all": Pool("drawn"), "few": Pool("drawn", percent=25, labels=True, batch_size=6, views="middle")}


def test_pools_go_round_side_by_side_each_in_its_own_batches(images: ImageSet):
    recipe = tiny(TellApart, data=TWO_POOLS)
    seen = batches(recipe, images)
    assert len(seen) == 7
    for batch in seen:
        few = batch.pools["few"]
        assert (len(batch), len(batch.pools["all"]), len(few)) == (16, 16, 6)
        assert (batch.labels, batch.pools["all"].labels) == (None, None)
        assert few.labels is not None
        assert few.labels.tolist() == [images.labels.values[place] for place in few.index.tolist()]  # type: ignore[index]
        assert list(few.views) == ["image"]  # its own views, of which there is one
    twice = [sorted(one.pools["few"].index.tolist() + two.pools["few"].index.tolist()) for one, two in
             zip(seen[:6:2], seen[1:6:2], strict=True)]  # fmt: skip
    assert twice == [[*range(12)]] * 3  # two batches are a pass
    assert_same(seen, batches(recipe, images, workers=1))
    for first in (2, 3, 4):
        assert_same(seen[first:], batches(recipe, images, first=first))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"views": "weak"}, "pool 'few' needs views by Small.weak, which does not exist"),
        ({"batch_size": 13}, "batch_size 13 is more than the 12 images there are"),
    ],
)
def test_a_pool_that_cannot_be_is_told(change: dict[str, Any], said: str, images: ImageSet):
    few = images.subset(range(12), "few")
    recipe = tiny(TellApart, data={**TWO_POOLS, "few": replace(TWO_POOLS["few"], **change)})
    with pytest.raises(UserError, match=said):
        Feed(recipe, {"all": images, "few": few}, 0, 7)


def test_labels_that_are_not_there_are_told(images: ImageSet):
    unlabelled = {"all": images, "few": images.without_labels()}
    with pytest.raises(UserError, match="pool 'few' needs labels; drawn/train has none"):
        Feed(tiny(TellApart, data=TWO_POOLS), unlabelled, 0, 7)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"batch_size": 0}, "batch_size must be at least 1"), ({"percent": 0.0}, "percent must be more")],
)
def test_a_pool_of_nothing_is_told(change: dict[str, Any], said: str):
    with pytest.raises(UserError, match=said):
        Pool("drawn", **change)


# --- labels


class Measure(TellApart):
    """What an image was made from, e.g. the turn of an object."""

    def __init__(self, settings: Any, backbone: Backbone, given: Given) -> None:
        super().__init__(settings, backbone, given)
        assert given.pools["main"].per_image == (given.num_classes,)
        self.head = nn.Linear(backbone.out_channels, given.num_classes)

    def loss(self, batch: Batch) -> Tensor:
        assert batch.labels is not None
        return mse_loss(self.head(self.embed(batch)), batch.labels.float())


class Spot(Measure):
    """Which classes an image shows; some are not to be judged."""

    def loss(self, batch: Batch) -> Tensor:
        assert batch.labels is not None
        judged = batch.labels >= 0
        return binary_cross_entropy_with_logits(self.head(self.embed(batch))[judged], batch.labels[judged].float())


def labelled_by(images: ImageSet, kind: type[Labels], dtype: str) -> ImageSet:
    least = -1 if kind is Presence else 0
    values = np.random.default_rng(0).integers(least, 2, (len(images), 3)).astype(dtype)
    return replace(images, labels=kind(values, ("one", "two", "three")))


@pytest.mark.parametrize(
    ("method", "kind", "dtype"), [(Measure, Factors, "int64"), (Measure, Factors, "float32"), (Spot, Presence, "int64")]
)
def test_labels_may_be_of_several_factors_or_classes(
    method: type[Method], kind: type[Labels], dtype: str, alone: Processes, images: ImageSet, tmp_path: Path
):
    some = labelled_by(images, kind, dtype)
    checked(alone, run, here(method, data=LABELLED), some, tmp_path, on_cpu())
    for workers in (0, 1):
        for batch in batches(here(method, data=LABELLED), some, workers):
            assert batch.labels is not None
            assert np.array_equal(batch.labels.numpy(), some.labelled(kind).values[batch.index])
            assert batch.labels.numpy().dtype == dtype


def test_labels_of_another_kind_are_told(images: ImageSet):
    presence = labelled_by(images, Presence, "int64")
    wanted = "what reads it needs one class an image, (N,)"
    for some, has in ((presence, "has labels of presence of each class, (N, classes)"),
                      (images.without_labels(), "has no labels")):  # fmt: skip
        with pytest.raises(UserError, match=re.escape(f"drawn/train {has}; {wanted}")):
            some.labelled(Classes)
    with pytest.raises(UserError, match="one class an image"):
        batches(tiny(TellApart, data=LABELLED, order=Balanced(2)), presence)


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (Classes, np.zeros((4, 2), np.int64), "int64 (4, 2) does not fit 2 names"),
        (Classes, np.zeros(4), "float64 (4,) does not fit 2 names"),
        (Presence, np.zeros((4, 3), np.int64), "int64 (4, 3) does not fit 2 names"),
        (Factors, np.zeros((4, 2), np.float16), "Factors are values of each factor, (N, factors), int64 or float32; "),
        (Classes, [0, 1], "list (2,) does not fit 2 names"),
        (Classes, np.array([0, 2]), "Classes: values from 0 to 2 mean nothing for 2 names"),
        (Classes, np.array([0, -1]), "Classes: values from -1 to 0 mean nothing for 2 names"),
        (Presence, np.array([[0, 5]]), "Presence: values from 0 to 5 mean nothing for 2 names"),
        (Factors, np.array([[0, -1]]), "Factors: values from -1 to 0 mean nothing for 2 names"),
        (Factors, np.array([[0, np.nan]], np.float32), "Factors: values from nan to nan mean nothing for 2 names"),
    ],
)
def test_labels_that_fit_no_names_are_told(kind: type[Labels], values: np.ndarray, said: str):
    with pytest.raises(UserError, match=re.escape(said)):
        kind(values, ("a", "b"))


# --- losses


class LeavesOneOut(Play):
    """The critic has no part in it."""

    def losses(self, batch: Batch) -> Iterator[tuple[tuple[str, ...], Tensor]]:
        yield ("trunk", "head"), super().loss(batch) + self.critic(self.embed(batch)).mean()


def test_players_named_together_step_by_one_backward_pass_and_no_other(alone: Processes, images: ImageSet):
    recipe = FEATURES["players"]
    assert checked(alone, _one_step, recipe, images) == (2, {"trunk", "head", "critic"})
    assert checked(alone, _one_step, replace(recipe, method=Here("LeavesOneOut")), images) == (1, {"trunk", "head"})


def _one_step(recipe: Recipe, images: ImageSet) -> tuple[int, set[str]]:
    """(number of backward passes in a step, the players that it moved)"""
    passes, backward = 0, Tensor.backward

    def counted(*arguments: Any, **options: Any) -> None:
        nonlocal passes
        passes += 1
        backward(*arguments, **options)

    method = recipe.method.build(recipe.backbone.build(recipe.input), Given(len(images)))
    before = {name: [p.detach().clone() for p in own] for name, own in method.players().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "backward", counted)
        train.train_step(method, batches(recipe, images)[0], build_players(method, recipe), "fp32")
    after = method.players()
    return passes, {name for name in before if not all(map(torch.equal, before[name], after[name]))}


def losing(yielded: Callable[[Play, Batch], Any]) -> type[Play]:
    """Play with other losses."""

    class Losing(Play):
        def losses(self, batch: Batch) -> Iterator[Any]:
            yield from yielded(self, batch)

    return Losing


def score_of(method: Play, batch: Batch) -> Tensor:
    return method.critic(method.embed(batch)).mean()


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (lambda m, b: [(("trunk", "nobody"), score_of(m, b))], "a loss for player 'nobody'; its players are trunk, "),
        (
            lambda m, b: [(("trunk", "trunk"), score_of(m, b))],
            "or several different ones, before the loss; it gave ('tr",
        ),
        (lambda m, b: [((), score_of(m, b))], "or several different ones, before the loss; it gave ()"),
        (
            lambda m, b: [score_of(m, b)],
            "must yield pairs of a player, or a tuple of players, and a loss; it gave a tens",
        ),
        (lambda m, b: [(score_of(m, b), "trunk")], "must name a player, or several different ones, before the loss"),
        (
            lambda m, b: [("trunk", 1.0)],
            "must give a scalar that depends on what trains, for player trunk; it gave a flo",
        ),
        (lambda m, b: [("trunk", m.embed(b))], "it gave a tensor of shape (16, 16)"),
        (lambda m, b: [("trunk", score_of(m, b).detach())], "it gave a tensor of shape () without a gradient"),
        (lambda m, b: [], "Losing.losses gave no loss for a batch"),
    ],
)
def test_losses_that_are_none_are_told(losses: Callable[[Play, Batch], Any], said: str, images: ImageSet):
    recipe = FEATURES["players"]
    method = losing(losses)(recipe.method, Tiny().build(recipe.input), Given(48))
    with pytest.raises(UserError, match=re.escape(said)):
        train.train_step(method, batches(recipe, images)[0], build_players(method, recipe), "fp32")


class NeverJudged(Play):
    """Its critic learns nothing."""

    def losses(self, batch: Batch) -> Iterator[tuple[tuple[str, ...], Tensor]]:
        yield ("trunk", "head"), super().loss(batch)


def test_a_player_that_never_steps_is_told(alone: Processes, images: ImageSet, tmp_path: Path):
    said = told(alone, replace(FEATURES["players"], method=Here("NeverJudged")), images, tmp_path)
    assert said == "NeverJudged.losses gave no loss for player 'critic' in the whole run"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda parts: {**parts, "head": parts["head"] + parts["critic"]}, "'head' and 'critic' share a parameter"),
        (lambda parts: {**parts, "head": [nn.Linear(2, 2)]}, "'head' must be a list of parameters, not of Linear"),
        (
            lambda parts: {**parts, "critic": []},
            "the recipe has optimizers for ['trunk', 'head', 'critic'], the method",
        ),
    ],
)
def test_players_that_are_none_are_told(change: Callable[[dict[str, Any]], Any], said: str):
    recipe = FEATURES["players"]
    method = Play(recipe.method, Tiny().build(recipe.input), Given(48))
    method.players = lambda: change(Play.players(method))  # type: ignore[method-assign]
    with pytest.raises(UserError, match=re.escape(said)):
        build_players(method, recipe)


# --- position


def test_a_batch_knows_where_in_the_run_it_stands(alone: Processes, images: ImageSet, tmp_path: Path):
    seen = checked(alone, _positions, FEATURES["pools"], images, tmp_path)
    assert [epoch for epoch, *_ in seen] == [0, 0, 0, 1, 1, 1, 2]
    assert [done for _, done, *_ in seen] == pytest.approx([step / 7 for step in range(7)])
    assert all(seeds == {seed} for *_, seed, seeds in seen)
    assert len({seed for *_, seed, _ in seen}) == 7


def _positions(recipe: Recipe, images: ImageSet, folder: Path) -> list[tuple[int, float, int, set[int]]]:
    seen = []

    def note(batch: Batch) -> None:
        assert {(one.epoch, one.done) for one in batch.pools.values()} == {(batch.epoch, batch.done)}
        seen.append((batch.epoch, batch.done, batch.seed, {one.seed for one in batch.pools.values()}))

    with pytest.MonkeyPatch.context() as patch:
        watch(patch, note)
        run_and_stop(recipe, images, folder, on_cpu(), 4)
        run(recipe, images, folder, on_cpu())
    return seen


# --- looks at all images


class Looks(TellApart):
    """Notes when it was asked, and what it saw."""

    asked: list[object] = []  # noqa: RUF012 - the test's, and no state of the method

    def prepare(self, embed_all: EmbedAll) -> None:
        for still in (True, False):
            passes = [self.looked(embed_all, still) for _ in range(2)]
            self.asked.append(("prepare", still, passes[0]))
            assert torch.equal(*passes)  # each pass of the same epoch is the same

    def on_epoch_start(self, epoch: int, embed_all: EmbedAll) -> None:
        self.asked.append((epoch, self.looked(embed_all, still=True)))

    def looked(self, embed_all: EmbedAll, still: bool) -> Tensor:
        pixels = torch.zeros(48, 3 * 16 * 16)
        for index, seen in embed_all(lambda batch: batch.views["image"].flatten(1), still=still):
            pixels[index] = seen
        return pixels


def test_all_images_are_looked_at_once_and_still_views_are_still(alone: Processes, images: ImageSet, tmp_path: Path):
    asked = checked(alone, _looks, here(Looks), images, tmp_path / "0")
    other = checked(alone, _looks, here(Looks, seed=1), images, tmp_path / "1")
    assert [entry[0] for entry in asked] == ["prepare", "prepare", 0, 1, 2]
    still = torch.stack([here(Looks).method.still(images.open(place), InputSpec(16))["image"] for place in range(48)])
    assert all(torch.equal(entry[-1], still.flatten(1)) for entry in (asked[0], *asked[2:], other[0]))
    assert not torch.equal(asked[1][-1], other[1][-1])


def _looks(recipe: Recipe, images: ImageSet, folder: Path) -> list[Any]:
    """With a stop inside of the second epoch."""
    Looks.asked.clear()
    run_and_stop(recipe, images, folder, on_cpu(), 4)
    run(recipe, images, folder, on_cpu())
    return list(Looks.asked)


class ForgetsRows(TellApart):
    def prepare(self, embed_all: EmbedAll) -> None:
        list(embed_all(lambda batch: self.embed(batch).mean()))


class ForgetsReturn(TellApart):
    def prepare(self, embed_all: EmbedAll) -> None:
        list(embed_all(lambda batch: None))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(("kind", "seen"), [(ForgetsRows, "()"), (ForgetsReturn, "a NoneType")])
def test_an_embedding_without_a_row_for_each_image_is_told(
    kind: type[Method], seen: str, alone: Processes, images: ImageSet, tmp_path: Path
):
    assert told(alone, here(kind), images, tmp_path) == f"{kind.__name__} embedded 16 images as {seen}"


# --- processes


@pytest.mark.parametrize("kind", [Contrast, ContrastDetached])
def test_gradients_of_gathered_rows_are_those_of_one_process(kind: type[Method], alone: Processes, pair: Processes):
    (one,), two = (processes.run(_gradient, kind, 8 // processes.count) for processes in (alone, pair))
    assert [outcome.error for outcome in (one, *two)] == [None] * 3
    assert np.array_equal(two[0].value, two[1].value)
    relative = np.abs(two[0].value - one.value).max() / np.abs(one.value).max()
    assert relative <= 1e-6 if kind is Contrast else relative > 0.01


def _gradient(kind: type[Contrast], share: int) -> np.ndarray:
    """Of the head, where every process has its share of eight images."""
    torch.manual_seed(0)
    method = kind(Small(kind.__name__), Tiny(over="all").build(InputSpec(16)), Given(8)).double()
    own = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    codes = torch.randn(2, 8, method.backbone.out_channels, dtype=torch.float64)[:, own]
    method.embed = lambda batch, view="image": codes[int(view == "other")]  # type: ignore[method-assign, assignment, misc]
    method.loss(Batch({}, torch.arange(8)[own], seed=0)).backward()
    assert method.head.weight.grad is not None
    return distributed.mean_over_processes(method.head.weight.grad).numpy()


class Local(ContrastDetached):
    """Its loss is local by definition."""

    local = "negatives are the images of the same process, by the paper"


@pytest.mark.parametrize("kind", [Contrast, ContrastDetached, Local])
def test_every_recipes_check_tells_who_forgets_the_gradient(
    kind: type[Method], alone: Processes, pair: Processes, images: ImageSet, tmp_path: Path
):
    """With one step of plain SGD: what it moves by is the gradient."""
    recipe = here(kind, backbone=Tiny(over="all"), length=Steps(1), optimizers={"main": SGD(0.1, momentum=0.0)})
    found = one_against_two(alone, pair, recipe, images, tmp_path)
    if kind is ContrastDetached:
        [fault] = found.faults()
        assert fault.startswith("two processes and one differ by ")
    else:
        assert found.faults() == []
    assert (found.difference <= 1e-6 * found.moved) is (kind is Contrast)


class Forgets(TellApart):
    """Gathers what needs a gradient, and would lose it."""

    def loss(self, batch: Batch) -> Tensor:
        return distributed.gather(self.code(batch)).square().mean()


def test_a_gather_that_would_lose_a_gradient_is_refused_on_one_process_too(
    alone: Processes, pair: Processes, images: ImageSet, tmp_path: Path
):
    for processes in (alone, pair):
        for outcome in processes.run(run, here(Forgets), images, tmp_path / str(processes.count), on_cpu()):
            assert "gather would lose the gradient of these rows: gather(x, gradient=True)" in str(outcome.error)


ROWS = 12


@pytest.mark.parametrize("norm", [BatchNorm1d, BatchNorm2d])
def test_batch_norm_over_all_sees_the_batch_of_all_processes(
    norm: type[BatchNorm1d | BatchNorm2d], alone: Processes, pair: Processes
):
    (one,), two = (
        processes.run(_normed, norm, "process" if processes is alone else "all") for processes in (alone, pair)
    )
    assert_same_norms(one.value, [outcome.value for outcome in two])


@pytest.mark.parametrize("norm", [BatchNorm1d, BatchNorm2d])
def test_batch_norm_over_groups_is_that_of_as_many_processes(
    norm: type[BatchNorm1d | BatchNorm2d], alone: Processes, pair: Processes
):
    (one,), two = (
        processes.run(_normed, norm, ROWS // 2 if processes is alone else "process") for processes in (alone, pair)
    )
    assert_same_norms(one.value, [outcome.value for outcome in two])


def assert_same_norms(one: Mapping[str, np.ndarray], two: list[Mapping[str, np.ndarray]]) -> None:
    for key, value in one.items():
        parts = [each[key] for each in two]
        found = np.concatenate(parts) if key in ("y", "dx") else parts[0]
        np.testing.assert_allclose(found, value, rtol=1e-12, atol=1e-12, err_msg=key)


def _normed(norm: type[BatchNorm1d | BatchNorm2d], over: Over) -> dict[str, np.ndarray]:
    """What comes out, the gradients, and what is remembered after two steps, in float64."""
    generator = torch.Generator().manual_seed(0)
    layer, share = norm(3, over=over).double(), ROWS // distributed.world_size()
    own = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    shape = (ROWS, 3) if norm is BatchNorm1d else (ROWS, 3, 4, 5)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, -0.5]))
    for _ in range(2):
        layer.zero_grad()
        x, weights = (torch.randn(shape, generator=generator, dtype=torch.float64)[own] for _ in range(2))
        x = (3 * x + 1).requires_grad_()
        y = layer(x)
        (weights * y.square()).mean().backward()
        for statistics in distributed.running_statistics(layer):
            statistics.copy_(distributed.mean_over_processes(statistics))
    parameters = {
        f"d{name}": distributed.mean_over_processes(p.grad)
        for name, p in layer.named_parameters()
        if p.grad is not None
    }
    found = {"y": y.detach(), "dx": x.grad / distributed.world_size(), **parameters, **dict(layer.named_buffers())}
    return {key: value.numpy() for key, value in found.items()}


@pytest.mark.parametrize("over", [0, 1, -4, "each", 1.5])
def test_groups_that_have_no_statistics_are_refused(over: Any):
    with pytest.raises(UserError, match='over is "process", "all" or an integer of at least 2'):
        BatchNorm2d(3, over=over)


def test_a_batch_that_is_no_number_of_groups_is_told():
    with pytest.raises(UserError, match="over groups of 5 needs a per-process batch divisible by 5, not 12"):
        BatchNorm1d(3, over=5)(torch.zeros(12, 3))


# --- shuffled BatchNorm


class Shuffle(TellApart):
    """Keys by the same network, among other images than the queries."""

    def keys(self, batch: Batch) -> Tensor:
        def encode(pixels: Tensor) -> Tensor:
            return self.backbone(self.backbone.input.prepare(pixels))

        return encoded_in_other_order(encode, batch.views["other"], batch.seed)

    def loss(self, batch: Batch) -> Tensor:
        return mse_loss(self.embed(batch), self.keys(batch))


def test_keys_of_two_processes_are_those_of_two_groups_of_one(
    alone: Processes, pair: Processes, images: ImageSet, tmp_path: Path
):
    """A step moves both alike; and it is no shuffle that leaves every key where it was."""
    made = {}
    for processes, over in ((alone, 8), (pair, "process")):
        folder = tmp_path / str(processes.count)
        recipe = here(Shuffle, backbone=Tiny(over=over), length=Steps(1), optimizers={"main": SGD(0.1, momentum=0.0)})
        for outcome in processes.run(run, recipe, images, folder, on_cpu()):
            assert outcome.error is None, outcome.error
        made[over] = load_backbone(folder / "backbone.safetensors")[0].state_dict()
    for name, value in made[8].items():
        torch.testing.assert_close(made["process"][name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_keys_come_back_in_their_own_places_and_among_others():
    torch.manual_seed(0)
    x = torch.arange(16.0)[:, None].requires_grad_()
    seen: list[Tensor] = []

    def encode(rows: Tensor) -> Tensor:
        seen.append(rows)
        return 2 * rows

    for seed in (1, 2):
        k = encoded_in_other_order(encode, x.detach(), seed)
        assert torch.equal(k, 2 * x)
        assert not k.requires_grad
    assert not torch.equal(seen[0], x)
    assert not torch.equal(seen[0], seen[1])
    grouped = BatchNorm1d(1, over=8)
    assert not torch.allclose(encoded_in_other_order(grouped, x.detach(), 1), grouped(x))


def test_a_shuffle_without_a_row_for_each_row_is_told():
    with pytest.raises(ValueError, match=r"one output row per input row: 4 images were encoded as \(1, 3\)"):
        encoded_in_other_order(lambda rows: rows.mean(0, keepdim=True), torch.zeros(4, 3), 0)


# --- recipes after recipes


@dataclass(frozen=True)
class Rows:
    """A teacher and its student in one folder of runs, untrained: nothing here depends on what they learn."""

    teacher: Run
    student: Run

    def pretrain(self, run: Run, recipe: Recipe) -> None:
        made = run.resolved(recipe)
        pretrain(made, run.name, pretraining_images(made, run.data_root), run.folder, on_cpu(), run.after(made))


TEACHER = tiny(TellApart, data=Pool("imagenet"), batch_size=4, length=Steps(0))
STUDENT = replace(TEACHER, after={"teacher": "teacher"}, method=Small("Learn"))


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    handmade.imagenet(tmp_path, flat=False)
    return Rows(*(Run(name, "paper", 0, tmp_path, tmp_path / "runs") for name in ("teacher", "student")))


def test_what_a_recipe_comes_after_is_a_part_of_what_it_is(rows: Rows):
    with pytest.raises(
        UserError, match=r"the backbone of teacher is not there \(.*teacher.*\); pretrain teacher first"
    ):
        rows.pretrain(rows.student, STUDENT)
    rows.pretrain(rows.teacher, TEACHER)
    rows.pretrain(rows.student, STUDENT)
    assert is_pretrained(rows.student, rows.student.resolved(STUDENT))
    first = read_facts(rows.student.backbone)["origin"]["after"]
    assert list(first) == ["teacher"]

    rows.teacher.backbone.unlink()
    assert not is_pretrained(rows.student, rows.student.resolved(STUDENT))
    rows.pretrain(rows.teacher, replace(TEACHER, optimizers={"main": SGD(lr=0.5)}))
    assert not is_pretrained(rows.student, rows.student.resolved(STUDENT))
    with pytest.raises(UserError, match=r"belongs to another run \(after\.teacher was"):
        rows.pretrain(rows.student, STUDENT)
    rows.student.backbone.unlink()
    rows.pretrain(rows.student, STUDENT)
    assert is_pretrained(rows.student, rows.student.resolved(STUDENT))
    assert read_facts(rows.student.backbone)["origin"]["after"] != first


def test_a_recipe_after_another_is_given_its_backbone_by_the_recipes_name_for_it(rows: Rows):
    rows.pretrain(rows.teacher, TEACHER)
    for after, said in (({}, "no file was given"), ({"other": rows.teacher.backbone}, "no file was given")):
        made = rows.student.resolved(STUDENT)
        with pytest.raises(UserError, match=said):
            pretrain(
                made, "student", pretraining_images(made, rows.student.data_root), rows.student.folder, on_cpu(), after
            )
