"""MoCo and its rivals against the paper's formulas, a plain model of its queue, and its own self on two processes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shares import numbers_of
from small_runs import RECIPES, Processes, drawn_images, on_cpu, run
from tiny_methods import Tiny
from torch import Tensor
from torchvision.transforms import v2

from benchmark.backbones.contract import Backbone, Stage
from benchmark.backbones.norms import without_groups
from benchmark.backbones.resnet import ResNet
from benchmark.blocks.queue import KeyQueue
from benchmark.core import distributed
from benchmark.core.errors import UserError
from benchmark.core.optimisation import SGD, Cosine, Epochs, Milestones, Steps
from benchmark.data.batch import Batch
from benchmark.data.image_set import ImageSet
from benchmark.engine import train
from benchmark.engine.players import build_players
from benchmark.engine.train import build_method, train_step
from benchmark.method import Method
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Architecture, Recipe
from benchmark.recipe.inputs import InputSpec
from benchmark.recipe.pools import Given
from recipes.moco import MoCo
from recipes.moco_end_to_end import EndToEnd
from recipes.moco_memory_bank import FromMemory

IMAGES, SIDE, DIM, K, TAU, M = 8, 2, 5, 20, 0.2, 0.9
RATE = 0.3


@dataclass(frozen=True)
class Pixels(Architecture):
    """No network at all: what the head gets is the image."""

    def build(self, spec: InputSpec) -> Backbone:
        return PixelValues(self, spec)


class PixelValues(Backbone):
    def __init__(self, architecture: Architecture, spec: InputSpec) -> None:
        super().__init__(architecture, spec)
        self.stages = {"pixels": Stage(3 * spec.size**2, None)}

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        return {"pixels": x.flatten(1).double()}


def on_pixels(settings: Any) -> Recipe:
    return replace(
        RECIPES["moco"],
        method=settings,
        backbone=Pixels(),
        input=InputSpec(SIDE),
        optimizers={"main": SGD(lr=RATE, momentum=0.0)},
        precision="fp32",
    )


def pixels(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    drawn = torch.randint(0, 256, (2, IMAGES, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    return {"x_q": drawn[0], "x_k": drawn[1]}


def features(view: Tensor) -> np.ndarray:
    return InputSpec(SIDE).prepare(view).flatten(1).double().numpy()


def share_of(views: dict[str, Tensor], step: int) -> Batch:
    """This process's rows of a batch."""
    own = distributed.own_share(torch.arange(IMAGES))
    return Batch({name: view[own] for name, view in views.items()}, own, seed=step)


# --- the formula, by hand ---------------------------------------------------------------------------------------------


def unit(z: np.ndarray) -> np.ndarray:
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def info_nce_by_hand(q: np.ndarray, keys: list[np.ndarray], tau: float) -> tuple[float, np.ndarray]:
    """Equation 1, query by query; keys: of each its candidates, the positive first. And the derivative: with P the
    softmax over the candidates, dL/dq = (sum over them of P c - c+) / tau."""
    loss, dq = 0.0, np.zeros_like(q)
    for i, candidates in enumerate(keys):
        e = np.exp(candidates @ q[i] / tau)
        loss -= np.log(e[0] / e.sum()) / len(q)
        dq[i] = (e / e.sum() @ candidates - candidates[0]) / tau / len(q)
    return loss, dq


def through_unit(dq: np.ndarray, z: np.ndarray) -> np.ndarray:
    """From the derivative by unit(z) to that by z."""
    q = unit(z)
    return (dq - (dq * q).sum(axis=1, keepdims=True) * q) / np.linalg.norm(z, axis=1, keepdims=True)


@dataclass
class AlgorithmOne:
    """The paper's Algorithm 1 in NumPy for a linear encoder, with plain SGD."""

    W_q: np.ndarray
    W_k: np.ndarray
    queue: deque[np.ndarray]

    def step(self, views: dict[str, Tensor]) -> tuple[float, np.ndarray]:
        x = features(views["x_q"])
        q, k = unit(x @ self.W_q.T), unit(features(views["x_k"]) @ self.W_k.T)
        loss, dq = info_nce_by_hand(q, [np.stack([own, *self.queue]) for own in k], TAU)
        gradient = through_unit(dq, x @ self.W_q.T).T @ x
        self.W_q = self.W_q - RATE * gradient
        self.W_k = M * self.W_k + (1 - M) * self.W_q
        self.queue.extend(k)
        return loss, gradient


def algorithm_one(method: Any) -> AlgorithmOne:
    weights = (head[0].weight.detach().numpy().copy() for head in (method.head, method.head_k))
    return AlgorithmOne(*weights, deque(method.queue.keys.numpy().copy(), maxlen=K))


def linear_moco() -> tuple[Recipe, Any]:
    recipe = on_pixels(MoCo(K=K, m=M, tau=TAU, dim=DIM))
    method: Any = build_method(recipe, Given(IMAGES))
    for head in (method.head, method.head_k):
        head[0].bias.requires_grad_(False).zero_()
    W_k = method.head_k[0].weight
    W_k += torch.linspace(-0.1, 0.1, W_k.numel()).view_as(W_k)
    return recipe, method


STEPS = 9  # of 8 keys: the queue of 20 is overwritten three times and a half


def steps_of_moco() -> list[dict[str, np.ndarray]]:
    recipe, method = linear_moco()
    players, seen = build_players(method, recipe), []
    for step in range(STEPS):
        figures = train_step(method, share_of(pixels(step), step), players, "fp32")
        found = {
            "loss": figures["loss/main"],
            "gradient": method.head[0].weight.grad,
            "W_q": method.head[0].weight.detach(),
        }
        found |= {"W_k": method.head_k[0].weight, "queue": method.queue.keys.roll(-int(method.queue.oldest), 0)}
        seen.append({name: value.numpy().copy() for name, value in found.items()})
    return seen


@pytest.mark.parametrize("processes", [1, 2])
def test_each_step_is_algorithm_1s(processes: int, alone: Processes, pair: Processes):
    """Loss, gradient, both encoders and the queue from its oldest key on, after every step."""
    outcomes = (alone if processes == 1 else pair).run(steps_and_model)
    for outcome in outcomes:
        assert outcome.error is None, outcome.error
        ours, theirs = outcome.value
        for step, (found, wanted) in enumerate(zip(ours, theirs, strict=True)):
            for name, value in wanted.items():
                worst = np.abs(found[name] - value).max() / np.abs(value).max()
                assert worst <= 1e-6, (step, name, worst)


def steps_and_model() -> tuple[list[dict[str, np.ndarray]], list[dict[str, Any]]]:
    with numbers_of(torch.float64):
        model, wanted = algorithm_one(linear_moco()[1]), []
        for step in range(STEPS):
            loss, gradient = model.step(pixels(step))
            queue = np.stack(model.queue)
            wanted.append({"loss": loss, "gradient": gradient, "W_q": model.W_q, "W_k": model.W_k, "queue": queue})
        return steps_of_moco(), wanted


# --- the rivals -------------------------------------------------------------------------------------------------------


def first_step(settings: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What a rival's first step gives on this process's share, and what the formula gives on all images."""
    with numbers_of(torch.float64):
        recipe = on_pixels(settings)
        method: Any = build_method(recipe, Given(IMAGES))
        method.head[0].bias.requires_grad_(False).zero_()
        W, views = method.head[0].weight.detach().numpy().copy(), pixels(0)
        by_hand = end_to_end_by_hand if isinstance(settings, EndToEnd) else memory_bank_by_hand
        loss, gradient, bank = by_hand(method, W, *(features(views[name]) for name in ("x_q", "x_k")))
        figures = train_step(method, share_of(views, 0), build_players(method, recipe), "fp32")
        found = {"loss": figures["loss/main"].numpy(), "gradient": method.head[0].weight.grad.numpy()}
        found |= {"bank": method.bank.rows.numpy()} if bank is not None else {}
        return found, {"loss": loss, "gradient": gradient, **({} if bank is None else {"bank": bank})}


def end_to_end_by_hand(_: Any, W: np.ndarray, x: np.ndarray, x_k: np.ndarray) -> tuple[float, np.ndarray, None]:
    """Each query among the keys of the batch. With P its softmax over them, a key's own derivative is the sum over the
    queries of (P - [it is theirs]) q / tau."""
    q, k = unit(x @ W.T), unit(x_k @ W.T)
    loss, dq = info_nce_by_hand(q, [np.stack([k[i], *np.delete(k, i, axis=0)]) for i in range(IMAGES)], TAU)
    e = np.exp(q @ k.T / TAU)
    dk = (e / e.sum(axis=1, keepdims=True) - np.eye(IMAGES)).T @ q / TAU / IMAGES
    return loss, through_unit(dq, x @ W.T).T @ x + through_unit(dk, x_k @ W.T).T @ x_k, None


def memory_bank_by_hand(
    method: Any, W: np.ndarray, x: np.ndarray, _: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Each query among its own image's row of the bank and those of K others; then the rows' moving average."""
    rows, q = method.bank.rows.numpy().copy(), unit(x @ W.T)
    others = method.bank.negatives(torch.arange(IMAGES), K, 0).numpy()
    assert all(place not in drawn for place, drawn in enumerate(others))
    loss, dq = info_nce_by_hand(q, [np.stack([rows[i], *rows[others[i]]]) for i in range(IMAGES)], TAU)
    return loss, through_unit(dq, x @ W.T).T @ x, unit(0.5 * rows + 0.5 * q)


RIVALS = [EndToEnd(tau=TAU, dim=DIM), FromMemory(K=K, tau=TAU, dim=DIM)]


@pytest.mark.parametrize("settings", RIVALS, ids=lambda settings: type(settings).__name__)
@pytest.mark.parametrize("processes", [1, 2])
def test_a_rivals_step_is_the_formulas(settings: Any, processes: int, alone: Processes, pair: Processes):
    for outcome in (alone if processes == 1 else pair).run(first_step, settings):
        assert outcome.error is None, outcome.error
        found, wanted = outcome.value
        for name, value in wanted.items():
            assert np.abs(found[name] - value).max() <= 1e-6 * np.abs(value).max(), name


# --- the queue --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [6, 16, 20])  # less than a batch, two batches, and what no batch divides
@pytest.mark.parametrize("processes", [1, 2])
def test_a_queue_is_first_in_first_out(size: int, processes: int, alone: Processes, pair: Processes):
    for outcome in (alone if processes == 1 else pair).run(filled, size):
        assert outcome.error is None, outcome.error
        first, states = outcome.value
        model, number = deque(first, maxlen=size), 0
        for state in states:
            for _ in range(IMAGES):
                model.append(np.full(3, float(number)))
                number += 1
            assert np.array_equal(state, np.stack(model))
        assert number > 4 * size


def filled(size: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """What was in it at first, and after each batch, from the oldest key on."""
    torch.manual_seed(0)
    queue, states = KeyQueue(size, 3), []
    first = queue.keys.numpy().copy()
    for step in range(4 * size // IMAGES + 2):
        numbers = torch.arange(step * IMAGES, (step + 1) * IMAGES).float()[:, None].expand(-1, 3)
        queue.put(distributed.own_share(numbers))
        states.append(queue.keys.roll(-int(queue.oldest), 0).numpy().copy())
    return first, states


def test_a_queue_begins_with_unit_vectors_and_scores_all_of_them():
    torch.manual_seed(0)
    queue = KeyQueue(7, 4)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(7))
    q = torch.randn(2, 4, requires_grad=True)
    torch.testing.assert_close(queue.scores(q), torch.stack([queue.keys @ row for row in q]))
    assert not queue.keys.requires_grad


# --- groups -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return drawn_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_one_process_with_two_groups_is_two_processes(
    dtype: torch.dtype, most: float, alone: Processes, pair: Processes, images: ImageSet, tmp_path: Path
):
    """Twenty steps by the paper's optimizer: the losses, and the queue. On two layers: on fifty, or with a norm after
    the head, float32 makes 3e-3 of the last bits by then. Those are held to the same in float64, as every recipe is."""
    recipe = replace(
        RECIPES["moco"],
        method=replace(RECIPES["moco"].method, head_norm=False),
        backbone=Tiny(over=8),
        input=InputSpec(16),
        length=Steps(20),
        precision="fp32",
        optimizers={"main": SGD(lr=0.03, momentum=0.9)},
    )
    seen = {}
    for processes in (alone, pair):
        for outcome in processes.run(losses_and_queue, recipe, images, tmp_path / str(processes.count), dtype):
            assert outcome.error is None, outcome.error
            seen[processes.count] = outcome.value
    (one, queue), (two, theirs) = seen[1], seen[2]
    assert len(set(one)) == len(one) == 20
    assert np.abs(np.array(one) - np.array(two)).max() <= most
    assert np.abs(queue - theirs).max() <= most
    whole = replace(recipe, backbone=Tiny(over="process"))
    [outcome] = alone.run(losses_and_queue, whole, images, tmp_path / "whole", dtype)
    assert np.abs(np.array(outcome.value[0]) - np.array(one)).max() > 1e-3, "groups make no difference"


def test_a_protocol_that_trains_the_network_on_sees_no_groups():
    """Its batches need not be a number of them."""
    made = {}
    for over in (8, "process"):
        torch.manual_seed(0)
        network = Tiny(over=over).build(InputSpec(16)).train()
        without_groups(network)
        made[over] = network(torch.randn(13, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(made[8], made["process"])
    with pytest.raises(UserError, match=r"divisible by 8, not 13; set --recipe\.batch-size"):
        Tiny(over=8).build(InputSpec(16)).train()(torch.zeros(13, 3, 16, 16))


def losses_and_queue(
    recipe: Recipe, images: ImageSet, folder: Path, dtype: torch.dtype
) -> tuple[list[float], np.ndarray]:
    losses, methods, step = [], [], train.train_step

    def noted(method: Method, *arguments: Any) -> Any:
        figures = step(method, *arguments)
        losses.append(float(figures["loss/main"]))
        methods.append(method)
        return figures

    with numbers_of(dtype), pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "train_step", noted)
        run(recipe, images, folder, on_cpu(checkpoint_seconds=60))
    return losses, methods[-1].get_buffer("queue.keys").numpy().copy()


# --- the papers' values -----------------------------------------------------------------------------------------------

PAPER = find_recipes()


def test_both_have_the_papers_values():
    moco, moco_v2 = PAPER["moco"], PAPER["moco_v2"]
    for recipe, tau in ((moco, 0.07), (moco_v2, 0.2)):
        settings: Any = recipe.method
        assert (settings.tau, settings.K, settings.m, settings.dim) == (tau, 65_536, 0.999, 128)
        assert (settings.crop_area, settings.grey, settings.chunk) == ((0.2, 1.0), 0.2, None)
        assert (recipe.batch_size, recipe.length, recipe.backbone) == (256, Epochs(200), ResNet(over=32))
        assert recipe.optimizers == {"main": SGD(lr=0.03, momentum=0.9, weight_decay=1e-4)}
    assert moco.schedule == Milestones(at=(Epochs(120), Epochs(160)), gamma=0.1)
    assert isinstance(moco_v2.schedule, Cosine)
    assert PAPER["moco_v2_800ep"].length == Epochs(800)
    assert moco.method.jitter == (0.4, 0.4, 0.4, 0.4)
    assert (moco_v2.method.jitter, moco_v2.method.jittered) == ((0.4, 0.4, 0.4, 0.1), 0.8)
    assert (moco_v2.method.blurred, moco_v2.method.blur) == (0.5, (0.1, 2.0))
    heads = [[tuple(p.shape) for p in one.method.head(2048).parameters() if p.ndim == 2] for one in (moco, moco_v2)]
    assert heads == [[(128, 2048)], [(2048, 2048), (128, 2048)]]


DRAWS, COLOUR = 600, (200, 100, 50)


def drawn(settings: Any) -> Tensor:
    """(600, 3): the first pixel of each view of an image of one colour."""
    torch.manual_seed(0)
    image = Image.new("RGB", (40, 40), COLOUR)
    found = [settings.views(image, InputSpec(32)) for _ in range(DRAWS // 2)]
    return torch.stack([view[:, 0, 0] for views in found for view in views.values()])


def assert_as_often(count: int, p: float) -> None:
    """Within four standard deviations of a binomial."""
    assert abs(count - DRAWS * p) <= 4 * (DRAWS * p * (1 - p)) ** 0.5, count / DRAWS


@pytest.mark.parametrize(("name", "jittered", "blurred"), [("moco", 1.0, 0.0), ("moco_v2", 0.8, 0.5)])
def test_views_change_as_often_as_the_paper_says(
    name: str, jittered: float, blurred: float, monkeypatch: pytest.MonkeyPatch
):
    blurs = []

    class Noted(v2.GaussianBlur):
        def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
            found = super().make_params(flat_inputs)
            blurs.append((self.kernel_size[0], found["sigma"][0]))
            return found

    monkeypatch.setattr(v2, "GaussianBlur", Noted)
    settings: Any = PAPER[name].method
    assert_as_often(int((drawn(replace(settings, grey=0.0)) != torch.tensor(COLOUR)).any(dim=1).sum()), jittered)
    assert_as_often(len(blurs), blurred)
    grey = drawn(replace(settings, jitter=(0.0, 0.0, 0.0, 0.0)))
    assert_as_often(int((grey[:, 0] == grey[:, 2]).sum()), 0.2)
    if blurred:
        sigmas = [sigma for _, sigma in blurs]
        assert 0.1 <= min(sigmas) < 0.15 < 1.95 < max(sigmas) <= 2.0
        replace(settings, blurred=1.0).view(Image.new("RGB", (40, 40)), 224)
        assert blurs[-1][0] == 23, "a tenth of 224, odd"
