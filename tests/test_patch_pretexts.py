"""Context prediction and AlexNet's puzzles: where patches lie, what is left of their colours, what the loss is, that
each guard against a shortcut opens by itself, and what transfers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmark.backbones.contract import Backbone, Stage
from benchmark.blocks.permutations import permutation_set
from benchmark.blocks.puzzles import PuzzleHead, standardised_each
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.recipe import BGR, InputSpec, Recipe
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Architecture, recipe_hash
from benchmark.recipe.overrides import override
from benchmark.recipe.pools import Given
from benchmark.recipe.scales import at_scale
from recipes import context_prediction

RECIPES = find_recipes()
CONTEXT, PUZZLE, HARDER = (RECIPES[name] for name in ("context_prediction", "jigsaw_alexnet", "jigsaw_pp"))
PATCHES, TILES = InputSpec(96, BGR()), InputSpec(64, BGR())
EXPORTED = ("context_prediction", "jigsaw_alexnet", "jigsaw_pp")


def map_of_places(width: int, height: int) -> Image.Image:
    """Red tells where a pixel is from left to right, green from top to bottom, up to 255. Blue is as red."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return Image.fromarray(np.stack([x, y, x], axis=2))


class Trunk(Backbone):
    """Gives three means of an image for its code, and keeps what it was given."""

    def __init__(self, spec: InputSpec) -> None:
        super().__init__(Architecture(), spec)
        self.stages = {"fc6": Stage(3, None)}
        self.seen = torch.zeros(0)

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        self.seen = x
        means = [part.mean((1, 2, 3)) for part in (x[..., :5, :], x[..., 5:], x[:, 1:2])]
        return {"fc6": torch.stack(means, dim=1)}


# Context prediction


def blocks_of(settings: Any, image: Image.Image, seed: int = 0) -> Tensor:
    """(blocks, 4, 3, 96, 96) of an image that is not resized, with all its colours."""
    torch.manual_seed(seed)
    area = float(image.width * image.height)
    plain = replace(settings, pixels=(area, area), coarse=0.0, colour="keep")
    return plain.views(image, PATCHES)["patches"].unflatten(0, (-1, 4))


def corners(blocks: Tensor) -> Tensor:
    """(blocks, 4, 2): y and x of each patch's first pixel."""
    return blocks[:, :, [1, 0], 0, 0].int()


def test_patches_lie_in_blocks_with_gaps_and_are_moved_a_little():
    image = map_of_places(256, 250)
    still = corners(blocks_of(replace(CONTEXT.method, jitter=0, blocks=50), image))
    wanted = torch.tensor([[0, 0], [0, 144], [144, 0], [144, 144]])
    assert torch.equal(still - still[:, :1], wanted.expand(50, 4, 2))
    assert {tuple(place) for place in still[:, 0].tolist()} <= {(y, x) for y in range(11) for x in range(17)}
    assert len({*still[:, 0, 1].tolist()}) > 8, "the block is anywhere"
    touching = corners(blocks_of(replace(CONTEXT.method, jitter=0, gap=0), image))
    assert torch.equal(touching - touching[:, :1], wanted.clamp(max=96).expand(4, 4, 2))
    moved = corners(blocks_of(replace(CONTEXT.method, blocks=50), image))
    off = moved - moved[:, :1] - wanted
    assert off.abs().max() <= 14
    assert {*range(-7, 8)} <= {*off.flatten().tolist()}
    assert (moved >= 0).all()
    assert (moved <= torch.tensor([250 - 96, 256 - 96])).all()


def test_images_have_150_to_450_thousand_pixels_and_room_for_a_block():
    for size in ((500, 375), (96, 96), (2000, 300)):
        for seed in range(20):
            torch.manual_seed(seed)
            resized = CONTEXT.method.resized(Image.new("RGB", size), 96)
            assert min(resized.size) >= 240
            assert resized.width / resized.height == pytest.approx(size[0] / size[1], rel=0.01)
            if size != (2000, 300):
                assert 150e3 <= resized.width * resized.height <= 452e3


def test_coarse_patches_are_what_interpolation_makes_of_few_pixels():
    x = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8)
    settings = replace(CONTEXT.method, coarse=1.0)
    spread = []
    for seed in range(40):
        torch.manual_seed(seed)
        spread.append(float(settings.coarsened(x).float().diff(dim=2).abs().mean()))
    assert max(spread) < 0.9 * x.float().diff(dim=2).abs().mean()
    assert min(spread) < 0.35 * max(spread)
    assert torch.equal(replace(settings, coarse=0.0).coarsened(x), x)


def test_a_coarse_patchs_area_is_uniform(monkeypatch: pytest.MonkeyPatch):
    """From 10 x 10 to 95 x 95 pixels: a quarter of all have less than 48 on a side, and half less than 68."""
    sides: list[int] = []
    resized = context_prediction.interpolate

    def noted(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
        sides.append(size[0])
        return resized(x, size=size, mode=mode)

    monkeypatch.setattr(context_prediction, "interpolate", noted)
    torch.manual_seed(0)
    for _ in range(400):
        replace(CONTEXT.method, coarse=1.0).coarsened(torch.zeros(3, 96, 96, dtype=torch.uint8))
    down, up = np.array(sides[::2]), np.array(sides[1::2])
    assert (up == 96).all()
    assert 10 <= down.min() < 25
    assert 90 < down.max() <= 95
    assert np.quantile(down, [0.25, 0.5, 0.75]) == pytest.approx([48, 68, 82.5], abs=4)


@pytest.fixture
def any_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Context prediction takes a trunk that it could not export: these tests train nothing."""
    monkeypatch.setattr("recipes.context_prediction.check_foldable", lambda network: network)


def seen_by_the_trunk(recipe: Recipe, views: dict[str, Tensor], **settings: Any) -> Tensor:
    torch.manual_seed(0)
    trunk = Trunk(recipe.input)
    method = replace(recipe.method, **settings).build(trunk, Given(2))
    method.loss(Batch({name: view[None] for name, view in views.items()}, torch.arange(1), seed=0))
    return trunk.seen


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (20, 26, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((520, 400), Image.Resampling.BICUBIC)


@pytest.mark.usefixtures("any_trunk")
def test_of_each_patch_one_colour_is_left(photograph: Image.Image):
    """Against the released code's arithmetic, in numpy: the kept colour less its mean, noise of -0.5 ... 0.5, all over
    the root mean square, times 50."""
    torch.manual_seed(1)
    views = CONTEXT.method.views(photograph, PATCHES)
    torch.manual_seed(1)
    plain = replace(CONTEXT.method, colour="keep").views(photograph, PATCHES)["patches"].numpy()
    seen = seen_by_the_trunk(CONTEXT, views).numpy()
    kept = views["kept"].tolist()
    assert {*kept} == {0, 1, 2}
    for patch, raw, whole, c in zip(seen, views["patches"].numpy(), plain, kept, strict=True):
        assert np.array_equal(raw[c], whole[c])
        wanted = raw.astype(float) / 255 - 0.5
        wanted[c] = whole[c].astype(float) - whole[c].mean()
        wanted *= 50 / np.sqrt(np.square(wanted).mean())
        np.testing.assert_allclose(patch, wanted[::-1], atol=1e-3)
        for other in {0, 1, 2} - {c}:
            assert np.abs(np.corrcoef(raw[other].ravel(), whole[other].ravel())[0, 1]) < 0.05, "noise tells nothing"
            assert raw[other].std() == pytest.approx(256 / 12**0.5, rel=0.03)


@pytest.mark.usefixtures("any_trunk")
def test_green_and_magenta_are_one_after_projection(photograph: Image.Image):
    views = replace(CONTEXT.method, colour="project").views(photograph, PATCHES)
    seen = seen_by_the_trunk(CONTEXT, views, colour="project", normalised=False)
    blue, green, red = seen.unbind(1)
    torch.testing.assert_close(2 * green, blue + red, atol=1e-3, rtol=1e-4)
    kept = seen_by_the_trunk(CONTEXT, views, colour="keep", normalised=False)
    torch.testing.assert_close((red - blue), kept[:, 2] - kept[:, 0], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(seen.sum(1), kept.sum(1), atol=1e-3, rtol=1e-4)


def test_projected_colours_are_as_exact_in_bf16():
    """Or rounding would leave something of the difference that the guard takes away."""
    x = 100 * torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        blue, green, red = context_prediction.without_green_and_magenta(x).unbind(1)
    torch.testing.assert_close(2 * green - blue - red, torch.zeros(2, 8, 8), atol=1e-4, rtol=0)


@pytest.mark.usefixtures("any_trunk")
def test_opened_guards_leave_pixels_as_they_are(photograph: Image.Image):
    views = replace(CONTEXT.method, colour="keep").views(photograph, PATCHES)
    seen = seen_by_the_trunk(CONTEXT, views, colour="keep", normalised=False)
    assert torch.equal(seen, PATCHES.prepare(views["patches"]))
    rms = seen_by_the_trunk(CONTEXT, views, colour="keep").square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(rms, torch.full((16,), 50.0))


@pytest.mark.usefixtures("any_trunk")
def test_every_pair_of_a_block_is_asked_for_its_direction(monkeypatch: pytest.MonkeyPatch):
    """Pair by pair, from where the patches lie: the loss, its gradient and the share of right answers."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    image = map_of_places(256, 250)
    torch.manual_seed(0)
    trunk = Trunk(PATCHES)
    method = replace(CONTEXT.method, colour="keep", fc7=16, fc8=8).build(trunk, Given(2)).double()
    blocks = torch.stack([blocks_of(replace(CONTEXT.method, blocks=2), image, seed) for seed in range(3)]).flatten(1, 2)
    loss = method.loss(Batch({"patches": blocks, "kept": torch.zeros(3, 8)}, torch.arange(3), seed=0))
    found = torch.autograd.grad(loss, list(method.head.parameters()))

    codes = trunk(trunk.seen).reshape(6, 4, 3)
    places = blocks.unflatten(1, (2, 4)).flatten(0, 1)[:, :, [1, 0], 0, 0].int()
    names = ["above left", "above", "above right", "left", "right", "below left", "below", "below right"]
    rows, wanted = [], []
    for block in range(6):
        for a in range(4):
            for b in range(4):
                if a != b:
                    (dy, dx) = (places[block, b] - places[block, a]).tolist()
                    vertical = "above" if dy < -90 else "below" if dy > 90 else ""
                    sideways = "left" if dx < -90 else "right" if dx > 90 else ""
                    rows.append(torch.cat([codes[block, a], codes[block, b]]))
                    wanted.append(names.index(f"{vertical} {sideways}".strip()))
    y = torch.tensor(wanted)
    assert torch.bincount(y).tolist() == [6, 12, 6, 12, 12, 6, 12, 6]
    scores = method.head(torch.stack(rows))
    by_hand = -(scores - scores.logsumexp(1, keepdim=True))[torch.arange(72), y].sum() / 72
    torch.testing.assert_close(loss, by_hand)
    for ours, theirs in zip(found, torch.autograd.grad(by_hand, list(method.head.parameters())), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert method.scalars()["accuracy"] == pytest.approx((scores.argmax(1) == y).double().mean().item())


# Puzzles


def puzzle(seed: int, image: Image.Image, spec: InputSpec = TILES, **settings: Any) -> Tensor:
    """The tiles, where they were in the image."""
    torch.manual_seed(seed)
    method = replace(PUZZLE.method, P=20, **settings)
    views = method.views(image, spec)
    order = torch.from_numpy(permutation_set(20)[int(views["S"])]).long()
    return views["tiles"][order.argsort()]


def test_tiles_lie_in_cells_of_75_pixels_of_the_middle_of_an_image():
    """Of an image whose shorter side is 256 already."""
    gaps = set()
    for seed in range(40):
        tiles = puzzle(seed, map_of_places(300, 256), channel_shift=0, grey=0.0)
        assert tiles.shape == (9, 3, 64, 64)
        y = tiles[:, 1, 0, 0].int().reshape(3, 3)
        gaps |= {*y.diff(dim=0).sub(64).flatten().tolist()}
    assert {0, 22} <= gaps <= {*range(23)}


def test_without_a_gap_the_tiles_are_the_image():
    tiles = puzzle(0, map_of_places(256, 256), channel_shift=0, grey=0.0, gap=0)
    whole = tiles.unflatten(0, (3, 3)).permute(2, 0, 3, 1, 4).reshape(3, 192, 192).int()
    assert torch.equal(whole[0, 0].diff(), torch.ones(191, dtype=torch.int32))
    assert torch.equal(whole[1, :, 0].diff(), torch.ones(191, dtype=torch.int32))


@pytest.mark.parametrize("shift", [0, 1])
def test_colours_are_shifted_alike_wherever_a_tile_lies(shift: int):
    """Red and blue show the same here, so they differ by how far the one is from the other."""
    seen: dict[int, set[int]] = {tile: set() for tile in range(9)}
    for seed in range(60):
        tiles = puzzle(seed, map_of_places(256, 256), channel_shift=shift, grey=0.0, gap=11).int()
        apart = (tiles[:, 2] - tiles[:, 0]).flatten(1)
        assert torch.equal(apart.amin(1), apart.amax(1)), "one shift for all of a tile"
        for tile, value in enumerate(apart[:, 0].tolist()):
            seen[tile].add(value)
    assert all(values == {*range(-2 * shift, 2 * shift + 1)} for values in seen.values())


def test_grey_puzzles_have_one_colour_and_no_shift(photograph: Image.Image):
    grey = [puzzle(seed, photograph)[:, :2].diff(dim=1).any().logical_not() for seed in range(100)]
    assert 15 < sum(map(int, grey)) < 45
    assert not puzzle(0, photograph, grey=1.0).diff(dim=1).any()


def test_tiles_have_equal_light_and_contrast_unless_opened(photograph: Image.Image):
    views = replace(PUZZLE.method, P=20).views(photograph, TILES)
    seen = seen_by_the_trunk(PUZZLE, views, P=20).flatten(1)
    torch.testing.assert_close(seen.mean(1), torch.zeros(9), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen.std(1, correction=0), torch.full((9,), 50.0))
    opened = seen_by_the_trunk(PUZZLE, views, P=20, normalised=False)
    assert torch.equal(opened, TILES.prepare(views["tiles"]))
    assert not standardised_each(torch.full((1, 3, 4, 4), 7.0)).any(), "a tile of one colour is not divided by zero"


def test_the_puzzles_loss_by_hand(photograph: Image.Image):
    views = [replace(PUZZLE.method, P=20).views(photograph, TILES) for _ in range(3)]
    torch.manual_seed(0)
    trunk = Trunk(TILES)
    method = replace(PUZZLE.method, P=20, fc7=16, dropout=0.0).build(trunk, Given(3))
    batch = Batch({name: torch.stack([view[name] for view in views]) for name in views[0]}, torch.arange(3), seed=0)
    loss, seen = method.loss(batch), trunk.seen
    fc7, fc8 = (layer.double() for layer in (method.head.fc7, method.head.fc8))
    logs = []
    for each, view in enumerate(views):
        codes = trunk(seen[9 * each : 9 * each + 9]).double().flatten()
        scores = fc8(fc7(codes).clamp_min(0))
        logs.append(scores[int(view["S"])] - scores.logsumexp(0))
    assert loss.item() == pytest.approx(-torch.stack(logs).mean().item(), rel=1e-5)


def test_the_layers_above_the_tiles_start_as_the_papers():
    torch.manual_seed(0)
    head = PuzzleHead(1024, 4096, 1000, 0.5)
    assert head.fc7.weight.shape == (4096, 9216)
    assert head.fc8.weight.shape == (1000, 4096)
    assert float(head.fc7.weight.detach().std()) == pytest.approx(0.0060, rel=0.01)
    assert float(head.fc8.weight.detach().std()) == pytest.approx(0.0090, rel=0.01)
    assert head.fc7.bias.eq(1).all()
    assert head.fc8.bias.eq(0).all()


# Puzzles with tiles of another image


def test_the_tiles_of_a_harder_puzzle_lie_where_its_permutation_says():
    """Read off the pixels, of puzzles of one image alone and of those with tiles of another, which is upside down."""
    image = map_of_places(256, 256)
    other = image.rotate(180)
    settings = replace(HARDER.method, grey=0.0, channel_shift=0)
    order_of = permutation_set(701, least_distance=3)
    chosen, lost, taken = set(), [], []
    for seed in range(60):
        torch.manual_seed(seed)
        made = settings.sample(lambda i: image if i == 5 else other, 5, TILES)
        tiles = made["tiles"][np.argsort(order_of[int(made["S"])])]  # where they were in the image
        foreign = [place for place, tile in enumerate(tiles) if tile[0, 0, 1] < tile[0, 0, 0]]
        for place, tile in enumerate(tiles):
            if place not in foreign:
                (y, x) = tile[[1, 0], 0, 0].tolist()
                assert 85 * (place // 3) <= y <= 85 * (place // 3) + 21
                assert 85 * (place % 3) <= x <= 85 * (place % 3) + 21
        theirs = [(int(255 - tiles[place][1, 0, 0]) // 85, int(255 - tiles[place][0, 0, 0]) // 85) for place in foreign]
        assert len({*theirs}) == len(theirs), "no tile of the other image comes twice"
        chosen.add(int(made["S"]))
        lost += foreign
        taken += theirs
    assert len(chosen) > 50
    assert {*lost} == {*range(9)}, "any tile may be lost"
    assert len({*taken}) == 9, "any tile of the other image may come"


def test_tiles_of_another_image_are_grey_where_the_puzzle_is():
    """One grey tile among others would be known for foreign without a look at what it shows."""
    grey = []
    for seed in range(60):
        torch.manual_seed(seed)
        made = HARDER.method.sample(lambda i: Image.new("RGB", (256, 256), "crimson" if i == 7 else "navy"), 7, TILES)
        grey += {not tile.float().std(dim=0).any() for tile in made["tiles"]}
    assert len(grey) == 60, "all tiles of a puzzle, or none"
    assert 30 < sum(grey) < 54


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("jigsaw_alexnet", {"gap": 30}, "cut from 286 pixels, and images are resized to 256: set method.gap"),
        ("jigsaw_alexnet", {"short_side": 200}, "or method.short_side higher"),
        ("jigsaw_pp", {"crop_size": 300}, "300 pixels cannot be cropped from images resized to 256"),
        ("jigsaw_pp", {"crop_size": 180}, "patches of 64 pixels do not fit 180 pixels"),
    ],
)
def test_what_leaves_no_room_for_a_puzzle_is_told(name: str, values: dict[str, int], told: str):
    settings = replace(RECIPES[name].method, P=10, grey=1.0, **values)
    with pytest.raises(UserError, match=told):
        settings.sample(lambda _: Image.new("RGB", (400, 300)), 0, TILES)


# All


@pytest.mark.parametrize("scale", ["paper", "desk", "smoke"])
@pytest.mark.parametrize(
    ("name", "key", "text"),
    [
        ("context_prediction", "gap", "0"),
        ("context_prediction", "jitter", "0"),
        ("context_prediction", "coarse", "0"),
        ("context_prediction", "colour", "keep"),
        ("context_prediction", "colour", "project"),
        ("context_prediction", "normalised", "False"),
        ("jigsaw_alexnet", "gap", "0"),
        ("jigsaw_alexnet", "normalised", "False"),
        ("jigsaw_alexnet", "channel_shift", "0"),
        ("jigsaw_alexnet", "grey", "0"),
    ],
)
def test_each_guard_opens_by_itself(name: str, key: str, text: str, scale: Any):
    recipe = RECIPES[name]
    opened = at_scale(override(recipe, [(f"method.{key}", text)], scale), scale)
    assert recipe_hash(opened) != recipe_hash(at_scale(recipe, scale))
    if scale != "paper":
        torch.manual_seed(0)  # a puzzle with colours, whose shift needs room in a grid without gaps too
        views = opened.method.views(map_of_places(96, 96), opened.input)
        assert {view.shape[-1] for view in views.values() if view.ndim == 4} == {opened.input.size}


def test_a_norm_that_could_not_be_exported_is_refused_before_the_training():
    recipe = at_scale(override(CONTEXT, [("backbone.norm", "group")], "smoke"), "smoke")
    backbone = recipe.backbone.build(recipe.input)
    with pytest.raises(UserError, match=r'set backbone\.norm to "batch"'):
        recipe.method.build(backbone, Given(8))


@pytest.mark.parametrize("name", EXPORTED)
def test_what_transfers_is_caffenets_convolutions_with_the_trained_weights(name: str):
    recipe = at_scale(RECIPES[name], "smoke")
    method = recipe.method.build(recipe.backbone.build(recipe.input), Given(8)).eval()
    before = torch.get_rng_state()
    exported = method.export()
    assert torch.equal(torch.get_rng_state(), before), "a run that goes on must come to the same file"
    assert exported.input == InputSpec(64, BGR())
    assert {name: stage.stride for name, stage in exported.stages.items()} == dict(
        zip(("conv1", "conv2", "conv3", "conv4", "conv5"), (4, 8, 16, 16, 16), strict=True)
    )
    assert not [one for one in exported.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    theirs = dict(method.backbone.named_parameters())
    for key, weight in exported.named_parameters():
        if key.startswith(("layers.conv1", "layers.conv2")):  # which no BatchNorm follows in any of them
            assert torch.equal(weight, theirs[key]), key
    paper = RECIPES[name]
    with torch.device("meta"):
        trunk = paper.backbone.build(paper.input)
    assert trunk.out_channels == {"context_prediction": 4096}.get(name, 1024)
    assert paper.method.transfer_size == 227  # type: ignore[attr-defined]
