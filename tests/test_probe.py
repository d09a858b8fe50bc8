"""The figures of `--probe-every` against their formulas written out in float64, on cases whose answer is known, and on
a network whose features are computed here by other means."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import RECIPES, TRAINED, drawn_images, on_cpu, pools_of, untrained_before
from tiny_methods import Tiny
from torchvision.transforms import v2

from benchmark.backbones.weights import load_backbone
from benchmark.core.optimisation import Steps
from benchmark.data.image_set import ImageSet
from benchmark.engine.feed import given_of
from benchmark.engine.train import build_method
from benchmark.engine.watch import Watch
from benchmark.recipe import InputSpec
from benchmark.runs import probe
from benchmark.runs.probe import TrainingImagesProbe
from benchmark.runs.representation import alignment, collapsed_share, rank_me, uniformity

SIDE = 16


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageSet:
    return drawn_images(tmp_path_factory.mktemp("images"))


def drawn(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1.0, 2.0, (rows, columns))


def rank_by_hand(z: np.ndarray) -> float:
    sigma = np.sqrt(np.maximum(np.linalg.eigvalsh(z @ z.T if len(z) < z.shape[1] else z.T @ z), 0))
    return math.exp(-sum((s / sigma.sum() + 1e-7) * math.log(s / sigma.sum() + 1e-7) for s in sigma))


def on_sphere(z: np.ndarray) -> np.ndarray:
    return np.stack([row / math.sqrt(sum(value * value for value in row)) for row in z])


def alignment_by_hand(x: np.ndarray, y: np.ndarray) -> float:
    pairs = zip(on_sphere(x), on_sphere(y), strict=True)
    return sum(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) for one, other in pairs) / len(x)


def uniformity_by_hand(z: np.ndarray) -> float:
    z = on_sphere(z)
    potentials = [math.exp(-2 * ((z[i] - z[j]) ** 2).sum()) for i in range(len(z)) for j in range(i)]
    return math.log(sum(potentials) / len(potentials))


def collapsed_by_hand(z: np.ndarray) -> float:
    """By another decomposition: of the covariance itself."""
    variances = np.sort(np.linalg.eigvalsh(np.cov(z.T)))[::-1][: min(len(z) - 1, z.shape[1])]
    return float(np.mean([value <= 1e-6 * variances[0] for value in variances]))


@pytest.mark.parametrize("shape", [(40, 7), (9, 25)])
def test_the_formulas_as_published(shape: tuple[int, int]):
    x, y = drawn(*shape), drawn(*shape, seed=1)
    given, other = torch.from_numpy(x), torch.from_numpy(y)
    assert rank_me(given) == pytest.approx(rank_by_hand(x), rel=1e-6)
    assert alignment(given, other) == pytest.approx(alignment_by_hand(x, y), rel=1e-12)
    assert uniformity(given) == pytest.approx(uniformity_by_hand(x), rel=1e-12)
    assert collapsed_share(given) == pytest.approx(collapsed_by_hand(x), abs=0)
    flat = x @ drawn(shape[1], 3) @ drawn(3, 12)
    assert collapsed_share(torch.from_numpy(flat)) == pytest.approx(collapsed_by_hand(flat), abs=0)


def test_cases_whose_answer_is_known():
    eye, ones = torch.eye(6), torch.ones(6, 4)
    assert rank_me(eye) == pytest.approx(6, rel=1e-5)
    assert rank_me(ones) == pytest.approx(1, rel=1e-4)
    assert rank_me(torch.zeros(6, 4)) == 0
    assert alignment(eye, 3 * eye) == 0
    assert alignment(eye, -eye) == 4
    assert uniformity(ones) == 0
    assert uniformity(torch.tensor([[1.0, 0.0], [-5.0, 0.0]])) == pytest.approx(-8)
    assert collapsed_share(ones) == 1
    assert collapsed_share(torch.from_numpy(drawn(50, 3) @ drawn(3, 12))) == pytest.approx(9 / 12)
    assert collapsed_share(torch.from_numpy(drawn(50, 12))) == 0


def votes_by_hand(query: np.ndarray, database: np.ndarray, labels: np.ndarray) -> int:
    """Every image votes, for there are fewer than 200."""
    ballots = [0.0] * (labels.max() + 1)
    for feature, label in zip(database, labels, strict=True):
        ballots[label] += math.exp(float(query @ feature) / 0.07)
    return int(np.argmax(ballots))


def test_the_figures_of_a_network_by_other_means(images: ImageSet):
    torch.manual_seed(0)
    network = Tiny().build(InputSpec(SIDE)).eval()
    asked = TrainingImagesProbe({"drawn": images}, seed=3, machine=on_cpu())
    found = asked(network)

    def features(part: ImageSet) -> np.ndarray:
        resize, crop = v2.Resize(round(SIDE * 256 / 224)), v2.CenterCrop(SIDE)
        pixels = [v2.functional.pil_to_tensor(crop(resize(Image.open(part.root / name)))) for name in part.files]
        with torch.no_grad():
            return network(network.input.prepare(torch.stack(pixels))).double().numpy()

    voting, held = (features(part) for part in (asked.voting, asked.held))
    labels, truth = (np.asarray(part.labels.values) for part in (asked.voting, asked.held))
    right = [
        votes_by_hand(one, on_sphere(voting), labels) == label
        for one, label in zip(on_sphere(held), truth, strict=True)
    ]
    assert found["knn_top1_percent"] == pytest.approx(100 * np.mean(right))
    every = np.concatenate([voting, held])
    assert found["rankme"] == pytest.approx(rank_by_hand(every), rel=1e-4)
    assert found["uniformity"] == pytest.approx(uniformity_by_hand(held), rel=1e-4)
    assert found["collapsed_percent"] == pytest.approx(100 * collapsed_by_hand(every))
    assert 0 < found["alignment"] < 4
    assert found == asked(network), "the same crops every time"
    assert found["alignment"] != TrainingImagesProbe({"drawn": images}, 4, on_cpu())(network)["alignment"]


def test_a_network_that_tells_the_classes_is_seen_to(tmp_path: Path):
    images = drawn_images(tmp_path)
    for name, label in zip(images.files, images.labels.values, strict=True):
        Image.new("RGB", (40, 40), (60 * int(label), 200, 255 - 60 * int(label))).save(tmp_path / name)
    torch.manual_seed(0)
    assert TrainingImagesProbe({"drawn": images}, 0, on_cpu())(Tiny().build(InputSpec(SIDE)))["knn_top1_percent"] == 100


def test_it_looks_at_training_images_alone_and_at_each_once(images: ImageSet, monkeypatch: pytest.MonkeyPatch):
    asked = TrainingImagesProbe({"drawn": images}, 0, on_cpu())
    assert len(asked.held) == pytest.approx(len(images) / 5, abs=4)
    assert sorted([*asked.voting.files, *asked.held.files]) == sorted(images.files)
    monkeypatch.setattr(probe, "MOST_IMAGES", 20)
    for some in (images, images.without_labels()):
        few = TrainingImagesProbe({"drawn": some}, 0, on_cpu())
        names = [*few.voting.files, *few.held.files]
        assert (len(names), len(set(names))) == (20, 20)
        assert set(names) <= set(images.files)
        assert len(few.held) == 4


def test_without_labels_there_is_no_accuracy(images: ImageSet):
    torch.manual_seed(0)
    found = TrainingImagesProbe({"drawn": images.without_labels()}, 0, on_cpu())(Tiny().build(InputSpec(SIDE)))
    assert list(found) == ["rankme", "alignment", "uniformity", "collapsed_percent"]


def test_the_network_is_left_as_it_was(images: ImageSet):
    network = Tiny().build(InputSpec(SIDE)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    TrainingImagesProbe({"drawn": images}, 0, on_cpu())(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(module.training for module in network.modules())


# Those whose runs leave behind something made of the network that trains, one of each method.
EXPORTING = {
    type(recipe.method): name
    for name, recipe in TRAINED.items()
    if "def export" in inspect.getsource(inspect.getmodule(type(recipe.method)))
}


@pytest.mark.parametrize("name", EXPORTING.values())
def test_what_a_method_exports_is_probed_and_the_method_is_left_as_it_was(name: str, images: ImageSet):
    recipe = RECIPES[name]
    before = {key: load_backbone(path)[0] for key, path in untrained_before(recipe, images).items()}
    method = build_method(recipe, given_of(pools_of(recipe, images), before)).train()
    state = {key: value.clone() for key, value in method.state_dict().items()}
    training = [module.training for module in method.modules()]
    watch = Watch(TrainingImagesProbe({"drawn": images}, 0, on_cpu()), Steps(1))
    drawn_next = torch.get_rng_state()
    assert watch.probed(method, torch.device("cpu")).keys() == {
        *("knn_top1_percent", "rankme", "alignment", "uniformity", "collapsed_percent")
    }
    assert torch.equal(torch.get_rng_state(), drawn_next)
    assert all(torch.equal(value, state[key]) for key, value in method.state_dict().items())
    assert [module.training for module in method.modules()] == training
