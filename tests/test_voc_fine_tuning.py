"""Fine-tuning on VOC2007: the network that trains, what its windows are, its loss, its rates and its AP, each against a
formula or a library by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from benchmark.backbones.alexnet import CAFFENET, CONTEXT_FREE, DEEPCLUSTER, ROTNET, AlexNet, AlexNetwork
from benchmark.backbones.alexnet_surgery import caffenets_convolutions
from benchmark.backbones.resnet import ResNet
from benchmark.core.draws import mix
from benchmark.core.errors import UserError
from benchmark.core.optimisation import Constant, Steps
from benchmark.core.streams import Stream
from benchmark.data.datasets import open_dataset
from benchmark.data.labels import Presence
from benchmark.recipe.inputs import BGR, InputSpec
from benchmark.toyland import build_world
from benchmark.transfers import find_transfers
from benchmark.transfers.contract import Context
from benchmark.transfers.features import as_input
from benchmark.transfers.metrics import area_ap, step_ap
from benchmark.transfers.preprocessing import drawn_ten_times, scale_place_and_flip
from benchmark.transfers.training import Course, build_optimizer, fit_together
from benchmark.transfers.voc_fine_tuning import (
    PresenceClassifier,
    VocFineTuning,
    _scores,
    ap_with_ties_against,
    presence_loss,
)
from benchmark.transfers.whole_alexnet import begun_anew, whole_alexnet

ALL, TOP = (
    cast(VocFineTuning, find_transfers()[name]) for name in ("voc07_cls_krahenbuhl", "voc07_cls_fc6_8_krahenbuhl")
)
TRAINVAL = 5_011
SIDE = 20


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_world(tmp_path_factory.mktemp("world"), "smoke", datasets=["voc2007"], progress=False)


def small(architecture: AlexNet = CAFFENET, spec: InputSpec | None = None) -> AlexNetwork:
    """Whose BatchNorm, if it has any, has seen something."""
    torch.manual_seed(0)
    network = replace(architecture, width=0.0625).build(spec or InputSpec(64, BGR()))
    assert isinstance(network, AlexNetwork)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for numbers in (module.running_mean, module.running_var, module.weight):
                assert numbers is not None
                nn.init.uniform_(numbers, 0.5, 1.5)
    return network.eval()


def here(world: Path, workspace: Path) -> Context:
    return Context(world, "smoke", 3, workspace, torch.device("cpu"), 0, lambda *_: None)


# The network


@pytest.mark.parametrize("architecture", [CAFFENET, ROTNET, DEEPCLUSTER], ids=["caffenet", "rotnet", "deepcluster"])
def test_a_network_that_has_all_layers_computes_the_same_without_its_norms(architecture: AlexNet):
    network = small(architecture).double()
    whole = whole_alexnet(network, seed=0)
    assert begun_anew(network) == ()
    assert not [one for one in whole.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    x = 50 * torch.randn(3, 3, 64, 64, dtype=torch.float64)
    ours, theirs = whole.forward_stages(x), network.forward_stages(x)
    assert ours.keys() == theirs.keys()
    for name, one in ours.items():
        torch.testing.assert_close(one, theirs[name], msg=name)
    for name in ("fc6", "fc7"):
        assert [type(one) for one in whole.layers[name]][-3:] == [nn.Linear, nn.ReLU, nn.Dropout]


def of_patches() -> AlexNetwork:
    return caffenets_convolutions(small(CONTEXT_FREE), 64)


def test_a_network_of_patches_begins_fc6_and_fc7_by_the_seed():
    network = of_patches()
    drawn = torch.get_rng_state()
    first, again, other = (whole_alexnet(network, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert begun_anew(network) == ("fc6", "fc7")
    for name, one in network.state_dict().items():
        assert torch.equal(first.state_dict()[name], one), name
    new = first.state_dict().keys() - network.state_dict().keys()
    assert {name.split(".")[1] for name in new} == {"fc6", "fc7"}
    for name in new:
        assert torch.equal(first.state_dict()[name], again.state_dict()[name])
        assert name.endswith("bias") or not torch.equal(first.state_dict()[name], other.state_dict()[name])
    quarter = cast(AlexNetwork, replace(CAFFENET, units=(), width=0.25).build(InputSpec(227, BGR())))
    whole = whole_alexnet(quarter, seed=0)
    for name, inputs in (("fc6", 9216 // 4), ("fc7", 4096 // 4)):
        (linear,) = (one for one in whole.layers[name] if isinstance(one, nn.Linear))
        assert linear.weight.shape == (1024, inputs)
        assert linear.weight.std().item() == pytest.approx(0.005 * 2, rel=0.01)  # CaffeNet's, of four times the inputs
        assert set(linear.bias.tolist()) == {1.0}


@pytest.mark.parametrize("cells", [1, 3, 6])
@pytest.mark.parametrize("architecture", [CAFFENET, ROTNET, DEEPCLUSTER], ids=["caffenet", "rotnet", "deepcluster"])
def test_fc6_takes_as_many_cells_as_it_is_told(architecture: AlexNet, cells: int):
    network = small(architecture)
    whole = whole_alexnet(network, seed=0, cells=cells)
    assert begun_anew(network, cells) == ("fc6", "fc7")
    (fc6,) = (one for one in whole.layers["fc6"] if isinstance(one, nn.Linear))
    assert fc6.in_features == network.stages["conv5"].channels * cells**2
    conv1 = next(one for one in whole.layers["conv1"] if isinstance(one, nn.Conv2d))
    assert torch.equal(conv1.weight, whole_alexnet(network, seed=0).layers["conv1"][0].weight)


def test_other_networks_are_refused():
    with pytest.raises(UserError, match="not an AlexNet"):
        whole_alexnet(ResNet(width=0.0625).build(InputSpec(32)), seed=0)
    with pytest.raises(UserError, match="GroupNorm has no statistics"):
        whole_alexnet(small(replace(ROTNET, norm="group")), seed=0)


def test_the_new_classifier_starts_as_in_the_released_code():
    model = PresenceClassifier(whole_alexnet(small(), 0), 20, True, seed=0)
    assert model.fc8.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert model.fc8.bias.tolist() == pytest.approx([0.1] * 20)


# Training


@pytest.mark.parametrize(("transfer", "fixed"), [(ALL, 0), (TOP, 10)], ids=["all", "fc6-8"])
def test_what_trains(transfer: VocFineTuning, fixed: int):
    model = PresenceClassifier(whole_alexnet(small(), 0), 20, transfer.trains_convolutions, seed=0)
    kept = {name for name, one in model.named_parameters() if not one.requires_grad}
    assert len(kept) == fixed
    assert all(name.startswith("network.layers.conv") for name in kept)
    presence_loss(model.train()(torch.randn(2, 3, 64, 64)), torch.ones(2, 20)).backward()
    assert {name for name, one in model.named_parameters() if one.grad is None} == kept


def test_the_convolutions_keep_every_bit_or_move(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    network, models, train = small(), [], VocFineTuning._train

    def kept(self: VocFineTuning, model: PresenceClassifier, *rest: Any) -> None:
        models.append(model)
        train(self, model, *rest)

    monkeypatch.setattr(VocFineTuning, "_train", kept)
    for transfer, moves in ((ALL, True), (TOP, False)):
        transfer.run(network, here(world, tmp_path / transfer.card.id))
        before, after = network.state_dict(), models[-1].network.state_dict()
        for name in before:
            assert torch.equal(before[name], after[name]) == (not moves and ".conv" in name), name


def test_paper_values():
    for transfer in (ALL, TOP):
        values = transfer.values["paper"]
        assert (values.course.steps_total(TRAINVAL), values.course.batch(TRAINVAL)) == (80_000, 16)
        steps = (0, 9_999, 10_000, 19_999, 20_000, 79_999)
        assert [values.course.factor(step, TRAINVAL) for step in steps] == [1, 1, 1 / 2, 1 / 2, 1 / 4, 1 / 128]
        model = nn.Linear(2, 3)
        weight, bias = build_optimizer([(model.parameters(), values.optimizer)]).param_groups
        assert (weight["params"], bias["params"]) == ([model.weight], [model.bias])
        assert (weight["lr"], bias["lr"]) == (1e-3, 2e-3)
        assert {one["weight_decay"] for one in (weight, bias)} == {1e-6}
        assert {(one["momentum"], one["nesterov"]) for one in (weight, bias)} == {(0.9, False)}
        assert values.optimizer.clip == 10


@pytest.mark.parametrize("clip", [None, 10.0, 0.5])
def test_the_norm_of_all_gradients_together_is_clipped(clip: float | None, world: Path, tmp_path: Path):
    model = nn.Linear(3, 2)
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    x = torch.tensor([[3.0, 0.0, 4.0]])

    def source(order: object) -> Iterator[tuple[Tensor, Tensor]]:
        yield x, torch.empty(0)

    images = open_dataset(world, "voc2007", "trainval")
    fit_together(
        model,
        torch.optim.SGD([{"params": model.parameters(), "lr": 1.0, "initial_lr": 1.0}]),
        lambda inputs, _: model(inputs).sum(),
        Course(Steps(1), 1, Constant()),
        images,
        source,
        tmp_path / "none.pt",
        here(world, tmp_path),
        clip=clip,
    )
    gradient = {"weight": x.repeat(2, 1), "bias": torch.ones(2)}
    norm = math.sqrt(2 * 25 + 2)
    factor = min(clip / norm, 1) if clip else 1
    for name, one in model.named_parameters():
        torch.testing.assert_close(before[name] - one.detach(), factor * gradient[name])


def test_the_loss_is_the_formula_and_forgets_what_is_ignored():
    scores = (3 * torch.randn(6, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).requires_grad_()
    codes = torch.randint(-1, 2, (6, 20), generator=torch.Generator().manual_seed(1))
    loss = presence_loss(scores, codes)
    wanted = 0.0
    for score, code in zip(scores.flatten().tolist(), codes.flatten().tolist(), strict=True):
        likely = 1 / (1 + math.exp(-score))
        wanted -= {1: math.log(likely), 0: math.log(1 - likely), -1: 0.0}[code]
    assert loss.item() == pytest.approx(wanted / 6, rel=1e-12)
    loss.backward()
    assert scores.grad is not None
    assert torch.equal(scores.grad == 0, codes == -1)
    nothing = presence_loss(scores, torch.full_like(codes, -1))
    assert nothing.item() == 0


# Windows


def ramp(width: int, height: int) -> Image.Image:
    """Red says how far right a pixel lies, green how far down."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, :, 0], pixels[:, :, 1] = np.arange(width), np.arange(height)[:, None]
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("width", "height"), [(200, 120), (30, 55), (9, 14)], ids=["large", "medium", "tiny"])
def test_windows_are_of_half_to_twice_the_side_and_lie_anywhere(width: int, height: int):
    torch.manual_seed(0)
    view, image = scale_place_and_flip(SIDE), ramp(width, height)
    steps, lefts, tops, mirrored = [], [], [], []
    for _ in range(400):
        red, green, blue = view.transform(image).double()
        assert (red == red[0]).all()
        assert (green == green[:, :1]).all()
        across, down = ((line[-1] - line[0]).item() / (SIDE - 1) for line in (red[0], green[:, 0]))
        assert abs(across) == pytest.approx(down, abs=2 / (SIDE - 1))  # a square
        steps.append(down)
        mirrored.append(across < 0)
        lefts.append(min(red[0, 0], red[0, -1]).item() + 0.5 - down / 2)
        tops.append(green[0, 0].item() + 0.5 - down / 2)
        assert blue.max() == 0  # nothing beyond the image
    fits = min(width, height) / SIDE
    low, high = min(0.5, fits), min(2.0, fits)
    assert low - 0.06 <= min(steps) <= low + 0.1
    assert high - 0.1 <= max(steps) <= high + 0.06
    assert np.mean(steps) == pytest.approx((low + high) / 2, abs=0.06)
    assert 0.4 < np.mean(mirrored) < 0.6
    smallest = SIDE * low
    for starts, length in ((lefts, width), (tops, height)):
        assert min(starts) >= -1
        assert max(starts) <= length - smallest + 1
        assert max(starts) >= 0.8 * (length - smallest) - 1


def test_nothing_is_smoothed():
    """Columns of black and white, halved: an average would be grey everywhere."""
    pixels = np.zeros((40, 40, 3), dtype=np.uint8)
    pixels[:, ::2] = 255
    torch.manual_seed(0)
    spread = [scale_place_and_flip(SIDE).transform(Image.fromarray(pixels)).double().std().item() for _ in range(50)]
    assert np.mean(spread) > 20


def test_ten_draws_are_summed(world: Path, tmp_path: Path):
    """Each image's ten windows drawn again by hand, and the network asked about one after the other in float64."""
    network = small()
    model = PresenceClassifier(whole_alexnet(network, 0), 20, True, seed=0).eval()
    with torch.no_grad():
        model.fc8.weight.mul_(1000)
    context, images = here(world, tmp_path), open_dataset(world, "voc2007", "test")
    found = _scores(model, images, context)
    assert found.shape == (len(images), 20)
    assert found.dtype == np.float64
    model, view = model.double(), scale_place_and_flip(64)
    for index in (0, 7, len(images) - 1):
        torch.manual_seed(mix(context.seed, Stream.VIEWS, 0, index))
        crops = [view.transform(images.open(index)) for _ in range(10)]
        assert not torch.equal(crops[0], crops[1])
        with torch.no_grad():
            each = [model(as_input(network, crop[None], context.device).double())[0] for crop in crops]
        np.testing.assert_allclose(found[index], torch.stack(each).sum(dim=0).numpy(), rtol=1e-4, atol=1e-4)
    assert drawn_ten_times(view).transform(images.open(0)).shape == (10, 3, 64, 64)


# The AP

SOME = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=40)


@given(SOME.filter(lambda pairs: any(is_positive for _, is_positive in pairs)))
def test_the_ap_is_scikit_learns(pairs: list[tuple[int, bool]]):
    scores, positive = np.array([score / 3 for score, _ in pairs]), np.array([one for _, one in pairs])
    assert step_ap(scores, positive) == pytest.approx(100 * average_precision_score(positive, scores), abs=1e-9)
    lowered = scores - 1e-5 * positive
    wanted = 100 * average_precision_score(positive, lowered)
    assert ap_with_ties_against(scores, positive) == pytest.approx(wanted, abs=1e-9)
    assert ap_with_ties_against(scores, positive) <= step_ap(scores, positive) + 1e-9


def test_the_ap_in_numbers():
    scores, positive = np.array([5.0, 4.0, 3.0, 2.0]), np.array([True, False, False, True])
    assert step_ap(scores, positive) == pytest.approx(100 * (1 / 1 + 2 / 4) / 2)
    envelope = np.array([False, True, True, False])
    assert step_ap(scores, envelope) == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)
    assert area_ap(scores, envelope) == pytest.approx(100 * 2 / 3)
    alike = np.zeros(4)
    assert ap_with_ties_against(alike, positive) == pytest.approx(100 * (1 / 2) * (2 / 4) * 2)
    assert ap_with_ties_against(alike, np.array([True, False, False, False])) == pytest.approx(25)


def test_the_map_is_the_mean_over_classes_of_the_images_that_count(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    images = open_dataset(world, "voc2007", "test")
    codes = images.labelled(Presence).values
    assert (codes == -1).any()
    drawn = np.random.default_rng(0).standard_normal(codes.shape)
    monkeypatch.setattr("benchmark.transfers.voc_fine_tuning._scores", lambda *_: drawn)
    monkeypatch.setattr(VocFineTuning, "_train", lambda *_: None)
    found = ALL.run(small(), here(world, tmp_path))
    trained = open_dataset(world, "voc2007", "trainval").labelled(Presence).values
    wanted = {}
    for at, name in enumerate(images.classes):
        if (codes[:, at] == 1).any() and (trained[:, at] == 1).any():
            judged = codes[:, at] != -1
            truth, scores = codes[judged, at] == 1, drawn[judged, at]
            wanted[name] = 100 * average_precision_score(truth, scores - 1e-5 * truth)
    assert found.detail["per_class"] == pytest.approx(wanted)
    assert found.metrics == {"map": pytest.approx(np.mean(list(wanted.values())))}
    assert {*found.detail["classes_without_a_positive"], *wanted} == {*images.classes}
