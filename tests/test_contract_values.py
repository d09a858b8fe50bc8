"""Values that a recipe is made of, against formulas written out in float64 and other libraries, and misused."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import correlate
from tiny_methods import FEATURES, PLAYERS, Play, TellApart, Tiny, TinyNetwork, tiny
from torch import Tensor, nn

from benchmark.backbones import architectures
from benchmark.backbones.contract import Backbone, Stage
from benchmark.backbones.resnet import ResNet
from benchmark.backbones.weights import load_backbone, read_facts, save_backbone
from benchmark.core.distributed import GradientAverager
from benchmark.core.errors import UserError
from benchmark.core.optimisation import Optimizer
from benchmark.core.plain import as_plain, flat, from_plain, later, subclasses
from benchmark.engine.players import Player, build_players, kinds_of, optimizer_for, set_rates
from benchmark.recipe import (
    BGR,
    LARS,
    RGB,
    SGD,
    Adam,
    Change,
    Constant,
    Cosine,
    Given,
    Grey,
    InputSpec,
    Lab,
    Lightness,
    Milestones,
    Part,
    RMSprop,
    Sobel,
    Steps,
    Warmup,
    without,
)
from benchmark.recipe.inputs import IMAGENET_MEAN, IMAGENET_STD, Colour
from benchmark.recipe.overrides import override
from benchmark.recipe.scales import at_scale
from benchmark.transfers.features import Mean, Tap, output_tap, tapped

# --- architectures


def test_an_architecture_is_a_value_that_builds_itself_and_comes_back_from_its_file(tmp_path: Path):
    torch.manual_seed(0)
    built = Tiny(channels=4).build(InputSpec(16, Grey()))
    save_backbone(tmp_path / "b", built, {})
    back, facts = load_backbone(tmp_path / "b")
    assert (back.architecture, back.input) == (Tiny(channels=4), InputSpec(16, Grey()))
    assert facts["architecture"] == {"is": "Tiny", "channels": 4, "over": "process"}
    assert back.conv1.weight.shape == (4, 1, 3, 3)  # type: ignore[union-attr]
    torch.testing.assert_close(back.state_dict(), built.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("value", [Tiny(over=32), ResNet(101, 0.5), FEATURES["players"], FEATURES["pools"]], ids=repr)
def test_plain_data_gives_the_value_back(value: Any):
    known = {one.__name__: one for one in _dataclasses_in(value)}
    plain = as_plain(value)
    assert as_plain(from_plain(plain, known)) == plain


def _dataclasses_in(value: Any) -> set[type]:
    if isinstance(value, dict):
        return set().union(*map(_dataclasses_in, value.values()))
    if not dataclasses.is_dataclass(value):
        return set()
    return {type(value)}.union(*(_dataclasses_in(getattr(value, f.name)) for f in dataclasses.fields(value)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plain: plain.update({"is": "Tinier"}), "there is no 'Tinier'; there are: .*ResNet"),
        (lambda plain: plain.update({"is": ["Tiny"]}), "there is no "),
        (lambda plain: plain.pop("channels"), "Tiny lacks channels"),
        (lambda plain: plain.update(depth=3), "unexpected keyword argument 'depth'"),
        (lambda plain: plain.update(channels=0.5), "channels is 0.5, which is not of type int"),
        (lambda plain: plain.update(over="none"), "over is 'none', which is not of type "),
    ],
)
def test_plain_data_that_is_no_architecture_is_refused(change: Callable[[dict[str, Any]], object], said: str):
    plain = as_plain(Tiny())
    change(plain)
    with pytest.raises(UserError, match=said):
        from_plain(plain, architectures())


@dataclasses.dataclass(frozen=True)
class Grown:
    """A value that had one field when its first files were written."""

    sides: int
    stride: int = later(4)


def test_a_field_that_came_later_is_told_only_where_it_is_not_what_there_was():
    first, other = Grown(3), Grown(3, stride=2)
    assert as_plain(first) == {"is": "Grown", "sides": 3}
    assert as_plain(other) == {"is": "Grown", "sides": 3, "stride": 2}
    assert dict(flat(other)) == {"is": "Grown", "sides": 3, "stride": 2}
    for value in (first, other):
        assert from_plain(as_plain(value), {"Grown": Grown}) == value
    with pytest.raises(UserError, match="Grown lacks sides"):
        from_plain({"is": "Grown", "stride": 2}, {"Grown": Grown})
    with pytest.raises(UserError, match="stride is 'wide'"):
        from_plain({"is": "Grown", "sides": 3, "stride": "wide"}, {"Grown": Grown})


# --- input

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 12, 10), dtype=np.uint8)
PIXELS[:, 0, :4] = [[0, 255, 10, 128]] * 3  # greys, near black too


def standardised(x: np.ndarray, mean: Any, std: Any) -> np.ndarray:
    return (x - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))


def lab_by_hand(rgb: np.ndarray) -> np.ndarray:
    """From the definitions: sRGB's primaries and white by their chromaticities (IEC 61966-2-1), CIE 1976 L*a*b*."""
    primaries = np.array([[0.64, 0.30, 0.15], [0.33, 0.60, 0.06], [0.03, 0.10, 0.79]])
    white = np.array([0.3127, 0.3290, 0.3583]) / 0.3290
    to_xyz = primaries * np.linalg.solve(primaries, white)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    t = np.einsum("kc,chw->khw", to_xyz, linear) / white[:, None, None]
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def edges_by_hand(rgb: np.ndarray) -> np.ndarray:
    grey = standardised(rgb, IMAGENET_MEAN, IMAGENET_STD).mean(axis=0)
    across = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    return np.stack([correlate(grey, kernel, mode="constant") for kernel in (across, across.T)])


X = PIXELS.astype(np.float64) / 255
BY_HAND: dict[Colour, tuple[np.ndarray, float]] = {  # what it must give, and how near: white points have five digits
    RGB(): (standardised(X, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), 1e-5),
    RGB((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)): (X, 1e-6),
    BGR(): (PIXELS[::-1].astype(float) - np.reshape([104, 117, 123], (3, 1, 1)), 1e-4),
    Grey(): (np.tensordot([0.299, 0.587, 0.114], X, 1)[None], 1e-6),
    Lab(): (standardised(lab_by_hand(X), [50, 0, 0], [50, 110, 110]), 1e-3),
    Lightness(): (lab_by_hand(X)[:1] - 50, 1e-2),
    Sobel(): (edges_by_hand(X), 1e-4),
}


def test_every_colour_space_is_worked_out_here():
    own = {kind for kind in subclasses(Colour).values() if kind.__module__ == "benchmark.recipe.inputs"}
    assert {type(colour) for colour in BY_HAND} == own


@pytest.mark.parametrize("colour", BY_HAND, ids=repr)
def test_a_colour_space_is_its_formula(colour: Colour):
    wanted, near = BY_HAND[colour]
    spec = InputSpec(12, colour)
    tiles = torch.from_numpy(PIXELS).expand(2, 5, -1, -1, -1)  # any number of axes may stand in front
    x = spec.prepare(tiles)
    assert (x.dtype, x.shape) == (torch.float32, (2, 5, spec.channels, 12, 10))
    np.testing.assert_allclose(x[1, 4].numpy(), wanted, rtol=0, atol=near)
    assert Tiny().build(spec).conv1.weight.shape[1] == spec.channels


@pytest.mark.parametrize("colour", [Lab(), Lightness()], ids=repr)
def test_colours_keep_their_digits_under_autocast(colour: Colour):
    pixels = torch.from_numpy(PIXELS)
    with torch.autocast("cpu", torch.bfloat16):
        found = colour.prepare(pixels)
    assert torch.equal(found, colour.prepare(pixels))


def test_grey_and_lightness_are_what_others_say():
    picture = Image.fromarray(PIXELS.transpose(1, 2, 0))
    ours = Grey().prepare(torch.from_numpy(PIXELS))[0].numpy() * 255
    assert np.abs(ours - np.asarray(picture.convert("L"), dtype=float)).max() <= 0.51  # PIL rounds
    known = {
        (255, 0, 0): (53.24, 80.09, 67.20),
        (0, 255, 0): (87.73, -86.18, 83.18),
        (0, 0, 255): (32.30, 79.19, -107.86),
    }
    for rgb, lab in known.items():  # as printed in tables of sRGB's primaries under D65
        x = Lab((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).prepare(torch.tensor(rgb, dtype=torch.uint8).view(3, 1, 1))
        assert x.flatten().tolist() == pytest.approx(lab, abs=0.02)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: InputSpec(64, "bgr"), r"colour is a value such as BGR\(\), .*not 'bgr'"),
        (lambda: InputSpec(64, BGR), "colour is a value"),
        (lambda: InputSpec(0), "size must be at least 1"),
        (lambda: InputSpec(BGR()), "size must be at least 1, not BGR"),  # type: ignore[arg-type]
        (lambda: RGB(std=0.5), "std must be more than 0 in each channel, not 0.5"),  # type: ignore[arg-type]
        (lambda: RGB(std=(1.0, 0.0, 1.0)), "std must be more than 0"),
        (lambda: Lightness(std=-1.0), "std must be more than 0"),
    ],
)
def test_an_input_that_cannot_be_is_refused(make: Callable[[], object], said: str):
    with pytest.raises(UserError, match=said):
        make()


@pytest.mark.parametrize("colour", [RGB(), BGR(), Grey(), Lab(), Lightness(), Sobel()])
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 4, 8, 8), (8, 8, 3), (8, 8)])
def test_images_of_other_channels_are_refused(colour: Colour, shape: tuple[int, ...]):
    with pytest.raises(UserError, match=re.escape(f"uint8 RGB images (..., 3, H, W), not torch.uint8 {shape}")):
        InputSpec(8, colour).prepare(torch.zeros(shape, dtype=torch.uint8))


def test_images_already_scaled_are_refused():
    with pytest.raises(UserError, match=r"uint8 RGB images .*, not torch\.float32"):
        InputSpec(12).prepare(torch.zeros(3, 12, 12))


# --- stages


class Inner(TinyNetwork):
    """Its output is a map in the middle."""

    output = "conv1"  # type: ignore[assignment]


def test_a_stage_may_be_a_vector_and_the_output_any_stage():
    x = InputSpec(16).prepare(torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8))
    whole, inner = Tiny().build(InputSpec(16)).eval(), Inner(Tiny(), InputSpec(16)).eval()
    assert whole.stages == {"conv1": Stage(8, 2), "code": Stage(16, None)}
    assert (whole.out_channels, whole(x).shape) == (16, (5, 16))
    assert list(whole.forward_stages(x, "conv1")) == ["conv1"]
    taps = (Tap("conv1", Mean()), output_tap(whole))
    assert [tap.name for tap in taps] == ["conv1_average", "code"]
    features = tapped(whole, taps, x)
    torch.testing.assert_close(features["conv1_average"][:, :, 0, 0], inner_of(whole, x))
    assert torch.equal(features["code"][:, :, 0, 0], whole(x))
    assert output_tap(inner) == Tap("conv1", Mean())
    assert (inner.output, inner.out_channels) == ("conv1", 8)
    torch.testing.assert_close(inner(x), inner_of(inner, x))


def inner_of(network: Backbone, x: Tensor) -> Tensor:
    return network.forward_stages(x)["conv1"].flatten(2).mean(dim=2)


def test_what_has_no_parts_cannot_be_taken_apart():
    with pytest.raises(UserError, match="TinyNetwork has no separate stages"):
        Tiny().build(InputSpec(16)).parts("conv1")


# --- hand-off


def changed_stride() -> TinyNetwork:
    network = Tiny().build(InputSpec(16))
    network.stages = {**network.stages, "conv1": Stage(8, 1)}
    return network


def other_stride() -> TinyNetwork:
    """Which no weight's shape tells."""
    network = Tiny().build(InputSpec(16))
    network.conv1.stride = (1, 1)
    return network


def other_weights() -> TinyNetwork:
    network = Tiny().build(InputSpec(16))
    network.fc = nn.Linear(8, 5)
    return network


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: nn.Linear(2, 2), "a Linear is not a Backbone; Method.export must return one"),
        (changed_stride, r"Tiny\(channels=8, over='process'\) builds a different network; these differ: conv1$"),
        (other_stride, r"builds a different network; these differ: conv1 \(Conv2d\)$"),
        (other_weights, r"builds a different network; these differ: fc \(Linear\), fc\.bias, fc\.weight$"),
    ],
)
def test_what_no_architecture_builds_is_not_handed_on(make: Callable[[], Any], said: str, tmp_path: Path):
    with pytest.raises(UserError, match=said):
        save_backbone(tmp_path / "b", make(), {})
    assert not (tmp_path / "b").exists()


def test_a_file_says_which_architecture_it_is(tmp_path: Path):
    save_backbone(tmp_path / "b", ResNet(width=0.0625).build(InputSpec(32)), {})
    assert read_facts(tmp_path / "b")["architecture"]["depth"] == 50


# --- optimizers

LAYERS = ("0.weight", "0.bias", "1.weight", "1.bias")  # a linear layer's and a norm's


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def stepped(values: Optimizer, rates: tuple[float, ...] = (1.0, 0.5, 2.0), scale: float = 1.0) -> dict[str, list[Any]]:
    """Name -> [start, gradient 1, value after it, gradient 2, ...], in float64."""
    model = layers()
    optimizer = optimizer_for(values, list(model.parameters()), kinds_of(model))
    player = Player(list(model.parameters()), optimizer, GradientAverager(model.parameters()), values)
    seen: dict[str, list[Any]] = {name: [p.detach().double().numpy()] for name, p in model.named_parameters()}
    for rate in rates:
        for name, p in model.named_parameters():
            p.grad = scale * torch.randn_like(p)
            seen[name].append(p.grad.double().numpy())
        player.set_rate(rate)
        player.step()
        for name, p in model.named_parameters():
            seen[name].append(p.detach().double().numpy().copy())
    return seen


@pytest.mark.parametrize("values", [SGD(lr=0.1, weight_decay=0.5), SGD(lr=0.1, nesterov=True), Adam(lr=0.1)], ids=str)
def test_a_parameter_whose_first_gradient_comes_late_steps_from_then_on(values: Optimizer):
    """As by torch's unfused optimizers, which take any."""
    models = layers(), layers()
    arguments = {**values.arguments(), "fused": False}
    plain = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam}[type(values).__name__]
    optimizers = (
        optimizer_for(values, [*models[0].parameters()], kinds_of(models[0])),
        plain(models[1].parameters(), weight_decay=values.weight_decay, **arguments),
    )
    for step in range(4):
        for (name, one), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
            late = name == "1.bias"  # the norm's scale, which is in the same group, is not
            one.grad = other.grad = None if late and step < 2 else torch.randn_like(one)
        for optimizer in optimizers:
            optimizer.step()
    for found, expected in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_a_state_without_some_momenta_is_taken_up():
    """Of torch's own SGD, one of whose parameters had no gradient yet."""
    one, other = (layers() for _ in range(2))
    one[1].weight.grad = torch.ones(4)  # its shift, of the same group, has none
    before = torch.optim.SGD(one[1].parameters(), lr=0.1, momentum=0.9)
    before.step()
    optimizer = optimizer_for(SGD(lr=0.1), [*other[1].parameters()], kinds_of(other))
    optimizer.load_state_dict(before.state_dict() | {"param_groups": optimizer.state_dict()["param_groups"]})
    for parameter in other[1].parameters():
        parameter.grad = torch.ones(4)
    optimizer.step()
    torch.testing.assert_close(other[1].weight, torch.full((4,), 1 - 0.1 * 1.9))
    torch.testing.assert_close(other[1].bias, torch.full((4,), -0.1))


def test_lars_is_its_formula():
    """You et al., arXiv:1708.03888, with the rate inside the momentum; what does not decay is not adapted."""
    values, rates = LARS(lr=0.3, momentum=0.9, trust=0.02, weight_decay=0.1, decays="weights"), (1.0, 0.5, 2.0)
    for name, (w, *rest) in stepped(values, rates).items():
        u = np.zeros_like(w)
        for rate, g, after in zip(rates, rest[::2], rest[1::2], strict=True):
            if name == "0.weight":
                d = g + 0.1 * w
                g = 0.02 * math.sqrt((w**2).sum()) / math.sqrt((d**2).sum()) * d
            u = 0.9 * u + 0.3 * rate * g
            w = w - u
            np.testing.assert_allclose(after, w, rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(("decays", "decaying"), [("all", 4), ("not_norms", 2), ("weights", 1)])
def test_what_decays_and_how_fast_biases_learn(decays: Any, decaying: int):
    values = SGD(lr=0.1, momentum=0.0, weight_decay=0.5, decays=decays, bias_rate=2.0)
    for place, (name, (w, g, after)) in enumerate(stepped(values, (1.0,)).items()):
        rate = 0.2 if name == "0.bias" else 0.1
        decay = 0.5 if place < decaying else 0.0
        np.testing.assert_allclose(after, w - rate * (g + decay * w), rtol=1e-5, atol=1e-7, err_msg=name)
    assert tuple(stepped(values)) == LAYERS


@pytest.mark.parametrize(("scale", "is_clipped"), [(10.0, True), (1e-3, False)])
def test_clipping_bounds_the_norm_of_all_gradients_together(scale: float, is_clipped: bool):
    seen = stepped(SGD(lr=1.0, momentum=0.0, clip=0.25), (1.0,), scale).values()
    moved, gradient = (
        math.sqrt(sum((one**2).sum() for one in ones))
        for ones in ([w - a for w, _, a in seen], [g for _, g, _ in seen])
    )
    assert moved == pytest.approx(0.25 if is_clipped else gradient, rel=1e-4)


def test_rmsprop_and_adam_by_their_formulas_with_an_eps_that_counts():
    for name, (w, g, after) in stepped(RMSprop(lr=0.1, alpha=0.75, eps=0.5), (1.0,)).items():
        np.testing.assert_allclose(
            after, w - 0.1 * g / (np.sqrt(0.25 * g**2) + 0.5), rtol=1e-5, atol=1e-7, err_msg=name
        )
    for name, (w, g, after) in stepped(Adam(lr=0.1, eps=0.5), (1.0,)).items():
        np.testing.assert_allclose(after, w - 0.1 * g / (np.abs(g) + 0.5), rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("kind", sorted(subclasses(Optimizer)))
def test_every_optimizer_steps_and_counts_what_it_remembers(kind: str):
    model = layers()
    values = subclasses(Optimizer)[kind](lr=0.1)
    optimizer = optimizer_for(values, list(model.parameters()), kinds_of(model))
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    for p, state in optimizer.state.items():
        assert sum(isinstance(s, Tensor) and s.shape == p.shape for s in state.values()) == values.slots


class Forgotten(Tiny):
    channels: int = 12


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SGD(lr=-0.1), "SGD: lr must be at least 0"),
        (lambda: LARS(lr=1.0, weight_decay=-1e-4), "LARS: weight_decay must be at least 0"),
        (lambda: Adam(lr=1.0, clip=0.0), "Adam: clip must be more than 0"),
        (lambda: Adam(lr=1.0, betas=(0.9, 1.0)), "Adam: betas are from 0 to below 1"),
        (lambda: SGD(lr=1.0, momentum=0.0, nesterov=True), "SGD: nesterov needs a momentum"),
        (lambda: LARS(lr=1.0, momentum=-1), "LARS: momentum must be at least 0"),
        (lambda: Warmup(Steps(1), start_factor=-5), "Warmup: start_factor must be at least 0"),
        (lambda: at_scale(tiny(TellApart, backbone=Tiny), "paper"), "backbone is .*Tiny.*, which is not of type Arch"),
        (
            lambda: at_scale(tiny(TellApart, backbone=Forgotten()), "paper"),
            "channels is not a field of Forgotten: deco",
        ),
        (lambda: at_scale(tiny(TellApart, optimizers={"main": SGD(0.1, decays="some")}), "paper"), "decays is 'some'"),
        (lambda: at_scale(tiny(TellApart, input=InputSpec(16, RGB("mean"))), "paper"), "input.colour.mean is 'mean'"),
        (lambda: at_scale(tiny(TellApart, data="imagenet"), "paper"), "data is 'imagenet'"),
    ],
)
def test_values_that_cannot_be_are_refused(make: Callable[[], object], said: str):
    with pytest.raises(UserError, match=said):
        make()


def test_flags_take_what_a_choice_or_a_number_may_be():
    recipe = dataclasses.replace(FEATURES["one loss"], backbone=ResNet())
    for key, text, value in (
        ("depth", "101", 101),
        ("over", "all", "all"),
        ("over", "32", 32),
        ("norm", "group", "group"),
    ):
        changed = at_scale(override(recipe, [(f"backbone.{key}", text)], "paper"), "paper")
        assert getattr(changed.backbone, key) == value
    with pytest.raises(UserError, match="takes 14 or 50 or 101 or 152"):
        override(recipe, [("backbone.depth", "51")], "paper")


# --- schedules


def test_each_player_has_its_schedule():
    recipe = tiny(
        Play,
        optimizers=PLAYERS,
        schedule={
            "trunk": Milestones(at=(Part(0.5),), gamma=0.5),
            "head": Constant(warmup=Warmup(Part(0.25), 0.0)),
            "critic": Cosine(),
        },
    )
    players = build_players(recipe.method.build(Tiny().build(recipe.input), Given(48)), recipe)
    seen = []
    for step in range(8):
        set_rates(players, recipe, step, 8, 3)
        seen.append([player.optimizer.param_groups[0]["lr"] / player.values.lr for player in players.values()])
    cosine = [0.5 * (1 + math.cos(math.pi * step / 7)) for step in range(8)]
    assert [row[0] for row in seen] == [1.0] * 4 + [0.5] * 4
    assert [row[1] for row in seen] == [0.0, 0.5] + [1.0] * 6
    assert [row[2] for row in seen] == pytest.approx(cosine)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"schedule": {"main": Constant()}},
            r"schedules for \['main'\], the method has players \['trunk', 'head', 'critic'\]",
        ),
        ({"optimizers": {"trunk": SGD(0.1)}}, r"optimizers for \['trunk'\], the method has players"),
    ],
)
def test_players_that_the_method_does_not_have_are_told(changes: dict[str, Any], said: str):
    recipe = dataclasses.replace(FEATURES["players"], **changes)
    with pytest.raises(UserError, match=said):
        build_players(recipe.method.build(Tiny().build(recipe.input), Given(48)), recipe)


@pytest.mark.parametrize("part", [-0.1, 1.5])
def test_a_part_of_the_run_is_0_to_1(part: float):
    with pytest.raises(UserError, match="of_run must be 0 to 1"):
        Part(part)


def test_a_part_stays_right_when_the_length_changes():
    drops = Milestones(at=(Part(0.6), Part(0.8)))
    for length in (Steps(100).steps(7), Steps(1000).steps(7)):
        factors = [drops.factor(step, length, 7) for step in range(length)]
        assert [factors.count(pytest.approx(f)) / length for f in (1.0, 0.1, 0.01)] == [0.6, 0.2, 0.2]


# --- changes of a scale


def test_changes_are_left_out_by_key_wherever_they_stand():
    changes = [Change(key, value, "small") for key, value in (("method.K", 4), ("length", 1), ("method.K", 2))]
    assert without(changes, "method.K") == (changes[1],)
    assert without(changes, "length", "method.K") == ()
    assert without(changes) == tuple(changes)
    with pytest.raises(UserError, match=r"no change of 'method\.k' to leave out; .* changes of: length, method\.K"):
        without(changes, "length", "method.k")
