"""CPC and CPC v2 against their formulas: what a context may know, each offset's loss, the patches, and the networks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import RECIPES, Processes
from torch import Tensor, nn

from benchmark.backbones.patch_grid import PatchGrid, cut, seen_in_patches
from benchmark.backbones.resnet_v2 import PreactivationBlock, ResNetV2
from benchmark.backbones.weights import load_backbone, save_backbone
from benchmark.blocks.patch_rows import RowContext, row_info_nce, rows_below
from benchmark.core import distributed
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.engine.train import build_method
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.inputs import Grey, InputSpec
from benchmark.recipe.pools import Given
from recipes.cpc import shifted
from recipes.cpc_v2 import one_colour

PAPER = find_recipes()
BOTH = ("cpc", "cpc_v2")
GRIDS = {"cpc": {"patch": 16, "stride": 8}, "cpc_v2": {"patch": 19, "stride": 9}}  # as many patches as the papers have
SMALL = {
    name: replace(RECIPES[name], method=replace(PAPER[name].method, hidden=16, **grid))  # type: ignore[arg-type]
    for name, grid in GRIDS.items()
}
IMAGES, INPUTS, DIM, ROWS, COLUMNS = 4, 5, 3, 4, 3


# --- the loss of an offset


def log_sum_exp(scores: np.ndarray) -> float:
    return float(scores.max() + math.log(np.exp(scores - scores.max()).sum()))


def loss_by_hand(predicted: np.ndarray, z: np.ndarray, k: int) -> tuple[float, np.ndarray, np.ndarray]:
    """-log of the softmax of each cell's own row, cell by cell, and its derivatives by what was predicted and by z."""
    images, _, rows, columns = z.shape
    places = [(b, i, j) for b in range(images) for i in range(rows) for j in range(columns)]
    told = [(b, i, j) for b, i, j in places if i + k < rows]
    loss, d_predicted, d_z = 0.0, np.zeros_like(predicted), np.zeros_like(z)
    for b, i, j in told:
        scores = np.array([predicted[b, :, i, j] @ z[c, :, m, n] for c, m, n in places])
        total = log_sum_exp(scores)
        loss += (total - scores[places.index((b, i + k, j))]) / len(told)
        for (c, m, n), score in zip(places, scores, strict=True):
            weight = (math.exp(score - total) - ((c, m, n) == (b, i + k, j))) / len(told)
            d_predicted[b, :, i, j] += weight * z[c, :, m, n]
            d_z[c, :, m, n] += weight * predicted[b, :, i, j]
    return loss, d_predicted, d_z


def layers_and_images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    encodes, predicts = rng.normal(size=(2, DIM, INPUTS))
    return encodes, predicts, rng.normal(size=(IMAGES, INPUTS, ROWS, COLUMNS))


def loss_and_gradients(processes: int, k: int) -> list[np.ndarray]:
    """Of two linear layers, one that encodes and one that predicts, the means over processes that share the images."""
    encodes, predicts, x = (torch.from_numpy(one) for one in layers_and_images())
    share = IMAGES // processes
    own = x[distributed.rank() * share :][:share]
    encodes.requires_grad_(True)
    predicts.requires_grad_(True)
    z, predicted = (torch.einsum("di,bihw->bdhw", layer, own) for layer in (encodes, predicts))
    loss, _ = row_info_nce(predicted, z, k)
    loss.backward()
    assert encodes.grad is not None
    assert predicts.grad is not None
    found = (loss.detach(), encodes.grad, predicts.grad)
    return [distributed.mean_over_processes(one).numpy() for one in found]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_loss_of_an_offset_and_its_gradient_are_those_of_the_formula(
    processes: int, k: int, alone: Processes, pair: Processes
):
    encodes, predicts, x = layers_and_images()
    z, predicted = (np.einsum("di,bihw->bdhw", layer, x) for layer in (encodes, predicts))
    loss, d_predicted, d_z = loss_by_hand(predicted, z, k)
    wanted = [np.array(loss), *(np.einsum("bdhw,bihw->di", d, x) for d in (d_z, d_predicted))]
    for outcome in (alone if processes == 1 else pair).run(loss_and_gradients, processes, k):
        assert outcome.error is None, outcome.error
        for found, right in zip(outcome.value, wanted, strict=True):
            assert np.abs(found - right).max() <= 1e-12 * np.abs(right).max()


def test_it_is_as_exact_under_autocast():
    encodes, predicts, x = (torch.from_numpy(one).float() for one in layers_and_images())
    z, predicted = (torch.einsum("di,bihw->bdhw", layer, x) for layer in (encodes, predicts))
    with torch.autocast("cpu", torch.bfloat16):
        told, _ = row_info_nce(predicted, z, 2)
    assert float(told) == pytest.approx(loss_by_hand(predicted.double().numpy(), z.double().numpy(), 2)[0], rel=1e-6)


def with_grid(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Tensor]:
    """The method in float64, and the grid that it is made to see."""
    method = build_method(SMALL[name], Given(8)).double()
    torch.manual_seed(1)
    z = torch.randn(2, method.backbone.out_channels, method.rows, method.rows, dtype=torch.float64)
    monkeypatch.setattr(method, "encoded", lambda batch: z)
    return method, z


def told(method: Any) -> float:
    return float(method.loss(Batch({}, torch.arange(2), seed=0)).detach())


def linear(layer: nn.Conv2d, x: np.ndarray) -> np.ndarray:
    made = np.einsum("di,bihw->bdhw", layer.weight.detach().numpy()[:, :, 0, 0], x)
    return made if layer.bias is None else made + layer.bias.detach().numpy()[:, None, None]


def test_cpc_is_the_mean_over_five_offsets(monkeypatch: pytest.MonkeyPatch):
    method, z = with_grid("cpc", monkeypatch)
    c = method.context(z).detach().numpy()
    losses = [loss_by_hand(linear(W, c), z.numpy(), k)[0] for k, W in zip(range(2, 7), method.W, strict=True)]
    assert told(method) == pytest.approx(np.mean(losses), rel=1e-6)


def test_cpc_v2_is_the_mean_over_four_directions_of_scaled_predictions(monkeypatch: pytest.MonkeyPatch):
    method, z = with_grid("cpc_v2", monkeypatch)
    losses = []
    for turns, part in enumerate(method.directions):
        turned = z.rot90(turns, dims=(2, 3))
        (W,) = part.W
        predicted = 0.1 * linear(W, part.context(turned).detach().numpy())
        losses.append(loss_by_hand(predicted, linear(part.target, turned.numpy()), 3)[0])
    assert told(method) == pytest.approx(np.mean(losses), rel=1e-6)


def test_offsets_that_leave_the_grid_are_told():
    assert list(rows_below(2, 6, 7)) == [2, 3, 4, 5, 6]
    for first, last in ((2, 7), (3, 2)):
        with pytest.raises(UserError, match=f"{first} to {last} rows below, and the grid has 7 rows"):
            rows_below(first, last, 7)


# --- what a context may know


def seen_by(context: nn.Module, z: Tensor, cell: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: the cells that the context of one depends on."""
    z = z.clone().requires_grad_(True)
    context(z)[:, :, *cell].sum().backward()
    assert z.grad is not None
    return (z.grad.abs().sum(dim=(0, 1)) > 0).numpy()


@pytest.mark.parametrize("name", BOTH)
def test_a_context_depends_on_no_cell_that_it_predicts(name: str):
    method: Any = build_method(SMALL[name], Given(8)).double()
    rows = method.rows
    contexts = [method.context] if name == "cpc" else [part.context for part in method.directions]
    assert len(contexts) == {"cpc": 1, "cpc_v2": 4}[name]
    z = torch.randn(1, method.backbone.out_channels, rows, rows, dtype=torch.float64)
    for context in contexts:
        for i in range(rows - method.ks[0]):  # those that predict something
            for j in range(rows):
                seen = seen_by(context, z, (i, j))
                assert not any(seen[i + k].any() for k in method.ks if i + k < rows)
                assert not seen[i + 1 :].any(), "nothing below its own row"
                assert seen[i, j]
                assert seen[0, j], "as far up as the grid goes: as many layers as five rows need"
                assert seen[: i + 1].sum() >= i + 2, "and to the sides"


def test_the_four_directions_of_cpc_v2_predict_four_sides(monkeypatch: pytest.MonkeyPatch):
    """Each is given a grid whose cells say where they are, and takes those so many rows further down as its targets."""
    method, _ = with_grid("cpc_v2", monkeypatch)
    places = torch.stack(torch.meshgrid(*[torch.arange(float(method.rows))] * 2, indexing="ij"))[None]
    monkeypatch.setattr(method, "encoded", lambda batch: places)
    sides = []

    def noted(x: Tensor) -> tuple[Tensor, Tensor]:
        (k,) = method.ks
        sides.append({tuple(step) for step in (x[0, :, k:] - x[0, :, :-k]).flatten(1).T.tolist()})
        return x.sum(), x.sum()

    for part in method.directions:
        assert part.ks == method.ks
        monkeypatch.setattr(part, "forward", noted)
    told(method)
    assert all(len(one) == 1 for one in sides)
    assert set().union(*sides) == {(3, 0), (-3, 0), (0, 3), (0, -3)}


@pytest.mark.parametrize("name", BOTH)
def test_a_patchs_vector_depends_on_no_other_patch(name: str):
    """In training mode, and whatever norm there is: a batch's statistics would tell."""
    recipe = replace(SMALL[name], backbone=replace(SMALL[name].backbone, zero_init_residual=False))
    recipe = replace(recipe, input=replace(recipe.input))  # whose `prepare` no other test has
    method: Any = build_method(recipe, Given(8)).train()
    patches = torch.rand(2, method.rows**2, 3, method.patch, method.patch)
    x = patches.flatten(0, 1)[:, : method.backbone.input.channels].clone().requires_grad_(True)
    object.__setattr__(method.backbone.input, "prepare", lambda images: x)
    z = method.encoded(Batch({"patches": patches}, torch.arange(2), seed=0))
    row, column = 1, 2
    z[1, :, row, column].sum().backward()
    assert x.grad is not None
    own = method.rows**2 + row * method.rows + column
    assert x.grad.flatten(1).abs().sum(dim=1).nonzero().flatten().tolist() == [own]


# --- patches

PLAIN = {"operations": 0, "distorted": 0.0, "jittered": 0.0, "grey": 0.0, "dropped": 0.0}


def map_of_places(side: int) -> Image.Image:
    """Red tells where a pixel is from left to right, green from top to bottom."""
    y, x = np.mgrid[:side, :side].astype(np.uint8)
    return Image.fromarray(np.stack([x, y, x], axis=2))


def corners(patches: Tensor, rows: int) -> Tensor:
    """(rows, rows, 2): y and x of each patch's first pixel."""
    return patches[:, [1, 0], 0, 0].int().unflatten(0, (rows, rows))


@pytest.mark.parametrize(("name", "rows", "patch", "stride"), [("cpc", 7, 64, 32), ("cpc_v2", 6, 80, 36)])
def test_patches_lie_in_a_grid_anywhere_in_the_image(name: str, rows: int, patch: int, stride: int):
    paper = PAPER[name]
    plain: Any = replace(paper.method, whole=255)
    still = {"shift": 0} if name == "cpc" else PLAIN
    spec = replace(paper.input, size=(rows - 1) * 8 + patch)
    starts, turned = set(), 0
    for seed in range(12):
        torch.manual_seed(seed)
        patches = replace(plain, stride=8, **still).views(map_of_places(255), spec)["patches"]
        assert patches.shape == (rows**2, 3, patch, patch)
        flipped = patches[:, 0, 0, 0] > patches[:, 0, 0, -1]
        upright = torch.where(flipped[:, None, None, None], patches.flip(-1), patches)
        place = corners(upright, rows)
        if name == "cpc" and bool(flipped[0]):  # the whole image was mirrored
            place = place.flip(1)
        steps = 8 * torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(rows), indexing="ij"), dim=2)
        assert torch.equal(place - place[0, 0], steps)
        starts.add(tuple(place[0, 0].tolist()))
        turned += int(flipped.sum())
        assert name == "cpc_v2" or len({*flipped.tolist()}) == 1
    assert len(starts) > 6
    assert 0.2 < turned / (12 * rows**2) < 0.8
    assert (paper.method.whole, paper.method.patch, paper.method.stride) == (300, patch, stride)  # type: ignore[attr-defined]


def test_a_patch_is_shifted_by_itself_and_padded_with_black():
    torch.manual_seed(0)
    patch = torch.arange(100, 164, dtype=torch.uint8).expand(3, 64, 64)
    found = shifted(patch.expand(200, 3, 64, 64), 4)
    assert found.shape == (200, 3, 64, 64)
    inner, border = found[..., 2:62, 2:62], found.clone()
    border[..., 2:62, 2:62] = 0
    assert border.max() == 0
    starts = inner[:, 0, 0, 0] - 100
    assert sorted(set(starts.tolist())) == [0, 1, 2, 3, 4]
    assert torch.equal(inner[:, 0, 0] - inner[:, 0, 0, :1], torch.arange(60, dtype=torch.uint8).expand(200, 60))
    with pytest.raises(UserError, match="shifted by up to 64, show nothing"):
        shifted(patch[None], 64)


def test_cpc_sees_grey_patches():
    x = PAPER["cpc"].input.prepare(torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 8, 8))
    assert x.shape == (1, 1, 8, 8)
    torch.testing.assert_close(x.mean(), torch.tensor((0.299 - 0.5) / 0.5))


def colours(settings: Any, image: Image.Image, count: int = 12) -> Tensor:
    """(patches, 3, 8, 8) of many images."""
    torch.manual_seed(0)
    small = replace(settings, whole=32, patch=8, stride=4, elastic=1.0, smoothness=1.0)
    return torch.cat([small.views(image, InputSpec(28))["patches"] for _ in range(count)])


def test_each_of_cpc_v2s_changes_comes_as_often_as_it_should():
    paper: Any = PAPER["cpc_v2"].method
    flat = Image.new("RGB", (40, 40), (200, 120, 40))
    of = torch.tensor([200, 120, 40], dtype=torch.uint8).view(1, 3, 1, 1)

    def share(image: Image.Image, **changes: Any) -> float:
        """Of patches that are not as they were."""
        found = colours(replace(paper, **(PLAIN | changes)), image)
        assert len(found) == 12 * 36
        return float((found != of).flatten(1).any(dim=1).float().mean())

    assert share(flat) == 0
    assert 0.73 < share(flat, jittered=0.8) < 0.87
    assert 0.18 < share(flat, grey=0.25) < 0.32
    assert 0.42 < share(flat, dropped=0.5) < 0.58
    grey = colours(replace(paper, **(PLAIN | {"grey": 1.0})), flat)
    assert (grey[:, 0] == grey[:, 1]).all()
    assert (grey[:, 1] == grey[:, 2]).all()
    kept = colours(replace(paper, **(PLAIN | {"dropped": 1.0})), flat)[:, :, 0, 0]
    assert {tuple(each) for each in kept.tolist()} == {(200,) * 3, (120,) * 3, (40,) * 3}

    noise = Image.effect_noise((40, 40), 90).convert("RGB")
    plain, bent = (colours(replace(paper, **(PLAIN | {"distorted": p})), noise).float() for p in (0.0, 0.2))
    assert not plain.equal(bent)
    operated = colours(replace(paper, **(PLAIN | {"operations": 2})), noise)
    assert len({one.numpy().tobytes() for one in operated}) > 360, "patches of an image are changed one by one"


def test_one_colour_takes_the_place_of_all():
    stack = torch.randint(256, (60, 3, 4, 4), dtype=torch.uint8)
    found = one_colour(stack)
    assert all(torch.equal(a, b) for a, b in zip(found[:, 0], found[:, 1], strict=True))
    which = [int((stack[n] == found[n, 0]).flatten(1).all(dim=1).nonzero()[0]) for n in range(60)]
    assert {*which} == {0, 1, 2}


# --- networks


@pytest.mark.parametrize(
    ("name", "parameters", "printed", "channels", "rows"),
    [
        # MoCo's Table 1 prints 28 M and 303 M, CPC v2's own 28 M and 305 M, which may count a head
        ("cpc", 27_487_744, (28,), 1024, 7),
        ("cpc_v2", 303_642_176, (303, 305), 4096, 6),
        ("cpc_v2_resnet50", 23_500_352, (24,), 2048, 6),
    ],
)
def test_the_papers_networks_have_as_many_parameters_as_they_print(
    name: str, parameters: int, printed: tuple[int, ...], channels: int, rows: int
):
    paper = PAPER[name]
    with torch.device("meta"):
        encoder = paper.backbone.build(paper.input)
        method: Any = paper.method.build(encoder, Given(8))
        whole = method.export()
    found = sum(p.numel() for p in encoder.parameters())
    assert found == parameters
    assert all(abs(found / 1e6 - millions) < max(0.005 * millions, 0.6) for millions in printed)
    assert encoder.out_channels == whole.out_channels == channels
    assert method.rows == rows
    assert sum(p.numel() for p in whole.parameters()) == found
    with torch.device("meta"):
        grid = whole.forward_stages(torch.zeros(1, paper.input.channels, paper.input.size, paper.input.size))["patches"]
    assert grid.shape == (1, channels, rows, rows)


def test_resnet_161_is_a_resnet_101_with_a_larger_third_stage():
    with torch.device("meta"):
        small, large = (ResNetV2(depth, norm="layer", stages=3).build(InputSpec()) for depth in (101, 161))  # type: ignore[arg-type]
    assert [len(layer) for layer in large.layers] == [3, 4, 46]  # type: ignore[union-attr, arg-type]
    in_a_row = [name for name, one in large.named_modules() if isinstance(one, nn.Conv2d) and "shortcut" not in name]
    assert len(in_a_row) + 1 == 161  # and a classifier
    (widths,) = {(block.conv2.in_channels, block.conv3.out_channels) for block in large.layers[2]}
    assert widths == (512, 4096)
    kept = [
        {key: t.shape for key, t in one.state_dict().items() if key.startswith(("layers.0.", "layers.1."))}
        for one in (small, large)
    ]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_a_network_of_either_norm_looks_at_each_image_by_itself(norm: Any):
    torch.manual_seed(0)
    network = ResNetV2(width=0.0625, norm=norm, stages=3).build(InputSpec(32)).train()
    assert list(network.stages) == ["conv1", "res2", "res3", "res4"]
    biased = [one.bias is not None for one in network.modules() if isinstance(one, nn.Conv2d)]
    assert set(biased) == {norm == "none"}
    x = torch.randn(4, 3, 32, 32)
    together, alone = network(x), torch.cat([network(one[None]) for one in x])
    torch.testing.assert_close(together, alone)
    assert network.forward_stages(x)["res4"].min() == 0  # after the last ReLU
    if norm == "layer":
        maps = []
        network.norm[0].register_forward_hook(lambda module, given, made: maps.append(made.clone()))  # type: ignore[union-attr, index, operator]
        network(x)
        torch.testing.assert_close(maps[0].mean(dim=(1, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
        torch.testing.assert_close(maps[0].var(dim=(1, 2, 3), correction=0), torch.ones(4), atol=1e-3, rtol=0)


def test_a_block_without_norms_adds_its_input_as_it_came():
    torch.manual_seed(0)
    block = PreactivationBlock(16, 4, 1, lambda channels: nn.Identity(), bias=True)
    x = torch.randn(2, 16, 8, 8)
    y = block.conv2(block.conv1(x.clamp(min=0)).clamp(min=0)).clamp(min=0)
    torch.testing.assert_close(block(x.clone()), x + block.conv3(y))


def test_a_grid_gives_what_the_encoder_makes_of_each_patch(tmp_path):
    torch.manual_seed(0)
    spec = InputSpec(20, Grey())
    encoder = ResNetV2(width=0.0625, norm="layer", stages=3).build(replace(spec, size=8)).eval()
    whole = seen_in_patches(encoder, spec, patch=8, stride=4).eval()
    assert whole.architecture == PatchGrid(encoder.architecture, 8, 4)
    x = torch.randn(2, 1, 20, 22)
    grid = whole.forward_stages(x)["patches"]
    assert grid.shape == (2, whole.out_channels, 4, 4)  # two pixels on the right fill no patch
    for row in range(4):
        for column in range(4):
            patch = x[:, :, 4 * row : 4 * row + 8, 4 * column : 4 * column + 8]
            torch.testing.assert_close(grid[:, :, row, column], encoder(patch))
    torch.testing.assert_close(whole(x), grid.mean(dim=(2, 3)))
    assert torch.equal(cut(x, 8, 4)[1, 2, 3], x[1, :, 8:16, 12:20])

    save_backbone(tmp_path / "backbone.safetensors", whole, {"recipe": "x"})
    again, _ = load_backbone(tmp_path / "backbone.safetensors")
    assert torch.equal(again(x), whole(x))
    with pytest.raises(UserError, match="patches of 21 pixels do not fit images of 20"):
        PatchGrid(encoder.architecture, 21, 4).build(spec)


def test_a_context_is_what_the_appendix_prints():
    """Five residual layers of 256 channels: 1 x 1, along the row, down from the row above, 1 x 1; a ReLU at the end."""
    for name in BOTH:
        assert (PAPER[name].method.hidden, PAPER[name].method.layers) == (256, 5)  # type: ignore[attr-defined]
    torch.manual_seed(0)
    context = RowContext(3, 4, 2).double()
    z = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    c = z.numpy()[0]
    for layer in context.layers:
        into, along, down, out = (
            (part.weight.detach().numpy(), part.bias.detach().numpy())  # type: ignore[union-attr]
            for part in (layer.into, layer.along, layer.down, layer.out)
        )
        made = np.zeros_like(c)
        first = np.maximum(np.einsum("oi,ihw->ohw", into[0][:, :, 0, 0], c) + into[1][:, None, None], 0)
        rows = np.zeros_like(first)
        for i in range(4):
            for j in range(5):
                for step in (-1, 0, 1):
                    if 0 <= j + step < 5:
                        rows[:, i, j] += along[0][:, :, 0, step + 1] @ first[:, i, j + step]
                rows[:, i, j] += along[1]
        for i in range(4):
            for j in range(5):
                above = rows[:, i - 1, j] if i else np.zeros(4)
                second = np.maximum(down[0][:, :, 0, 0] @ above + down[0][:, :, 1, 0] @ rows[:, i, j] + down[1], 0)
                made[:, i, j] = out[0][:, :, 0, 0] @ second + out[1]
        c = c + made
    np.testing.assert_allclose(context(z).detach().numpy()[0], np.maximum(c, 0), atol=1e-12)
