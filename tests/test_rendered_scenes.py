"""Rendered scenes: where their maps lie, what is drawn in their place, and what is learned of them."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import handmade
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import conv2d

from benchmark.backbones.alexnet import CAFFENET, AlexNetwork
from benchmark.backbones.alexnet_surgery import folded
from benchmark.core.draws import mix, uniform_integers
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.data.datasets import open_dataset
from benchmark.data.doctor import examine
from benchmark.data.findings import BadData, Finding
from benchmark.data.image_set import ImageSet
from benchmark.data.unreadable import UNREADABLE
from benchmark.engine.feed import seen_images
from benchmark.engine.players import build_players
from benchmark.engine.train import train_step
from benchmark.method import Method
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Recipe
from benchmark.recipe.inputs import InputSpec
from benchmark.recipe.pools import Given, Pool
from benchmark.recipe.scales import at_scale
from benchmark.toyland import build_world, drawn_for, rooms
from benchmark.toyland.catalogue import OBJECTS
from benchmark.toyland.rng import generator
from benchmark.toyland.rooms import SAMPLE, Rendered, rendered_room
from benchmark.transfers.whole_alexnet import begun_anew
from recipes.ren_lee import Earlier, contour_loss, depth_loss

RECIPE = find_recipes()["ren_lee"]
SMOKE = at_scale(RECIPE, "smoke")


# --- the list and the maps


def opened(root: Path) -> ImageSet:
    return open_dataset(root, "suncg_scenenet", "train", lambda _: None)


def test_every_scene_has_its_maps_with_all_their_bits(tmp_path: Path) -> None:
    handmade.suncg_scenenet(tmp_path)
    images = opened(tmp_path)
    assert [*images.files] == [
        "suncg_image256/mlt/eaf9f8af/000005_256.png",
        "scenenet5m/train/2/2751/photo/5400.jpg",
        "suncg_image256/mlt/074dc0ff/000006_256.png",
    ]
    for number in range(3):
        for kind, values in handmade.scene_maps(number).items():
            assert np.array_equal(np.asarray(images.open_map(kind, number)), values), (kind, number)
    part = images.subset([2], "one")
    assert np.array_equal(np.asarray(part.open_map("edge", 0)), handmade.scene_maps(2)["edge"])
    with pytest.raises(UserError, match="no maps of 'mask'; it has depth, normal, edge"):
        images.open_map("mask", 0)


BROKEN = {
    "no source": ("ade 5/6", "line 2: 'ade 5/6' is neither 'suncg ROOM/VIEW' nor 'scenenet TRAJECTORY FRAME'"),
    "no frame": ("scenenet train/2/2751", "line 2: .* is neither"),
    "no view": ("suncg", "line 2: .* is neither"),
    "outside": ("suncg ../../x", "line 2: .* points outside"),
    "not there": ("suncg 0/1", "line 2: .*mlt/0/1_256.png is not in .*1 of 3 entries"),
    "twice": ("suncg eaf9f8af/000005", "line 2: .* is listed twice"),
}


@pytest.mark.parametrize("way", BROKEN)
def test_a_list_that_is_broken_is_refused_by_its_line(tmp_path: Path, way: str) -> None:
    line, words = BROKEN[way]
    path = handmade.suncg_scenenet(tmp_path) / "train_1m_shuffle.txt"
    first, _, last = path.read_text().splitlines()
    path.write_text(f"{first}\n{line}\n{last}\n")
    with pytest.raises(BadData, match=words):
        opened(tmp_path)


@pytest.mark.parametrize("kind", ["depth", "normal", "edge"])
def test_a_map_that_is_missing_is_named(tmp_path: Path, kind: str) -> None:
    home = handmade.suncg_scenenet(tmp_path)
    (home / f"scenenet5m/train/2/2751/{kind}/5400.png").unlink()
    with pytest.raises(BadData, match=rf"line 2: .*{kind}/5400.png is not in"):
        opened(tmp_path)


def faults(root: Path, deep: bool = False) -> list[Finding]:
    return [one for one in examine(root, deep, progress=False) if one.level != "note"]


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("depth", np.ones((8, 10), np.uint8), "has 8 bits; depths are millimetres, of 16"),
        ("depth", np.ones((4, 10), np.uint16), "is of 10 x 4 pixels, its picture of 10 x 8"),
        ("normal", np.ones((8, 10), np.uint8), "has 1 channels; a map of normal has 3"),
        ("edge", np.ones((8, 10, 3), np.uint8), "has 3 channels; a map of edge has 1"),
    ],
)
def test_the_doctor_looks_at_the_maps(tmp_path: Path, kind: str, values: np.ndarray, said: str) -> None:
    path = handmade.suncg_scenenet(tmp_path) / f"suncg_image256/{kind}/074dc0ff/000006_256.png"
    assert faults(tmp_path) == []
    Image.fromarray(values).save(path)
    (found,) = faults(tmp_path)
    assert (found.level, found.path, found.message) == ("error", str(path), said)


def test_a_scene_whose_map_is_unreadable_is_left_out(tmp_path: Path) -> None:
    home = handmade.suncg_scenenet(tmp_path)
    before = opened(tmp_path)
    broken = home / "scenenet5m/train/2/2751/normal/5400.png"
    broken.write_bytes(broken.read_bytes()[:60])
    (found,) = faults(tmp_path, deep=True)
    assert found.message.startswith("1 of 3 images cannot be decoded: scenenet5m/train/2/2751/photo/5400.jpg")
    assert "its map of normal: " in (home / UNREADABLE).read_text()
    after = opened(tmp_path)
    assert [*after.files] == [before.files[0], before.files[2]]
    assert np.array_equal(np.asarray(after.open_map("depth", 1)), handmade.scene_maps(2)["depth"])


def test_maps_reach_those_alone_who_ask(tmp_path: Path) -> None:
    home = handmade.suncg_scenenet(tmp_path)
    images = opened(tmp_path)
    assert [*seen_images(Pool("suncg_scenenet"), images).maps] == []
    seen = seen_images(Pool("suncg_scenenet", maps=("depth",)), images)
    assert [*seen.maps] == ["depth"]
    before, plain = seen.fingerprint(), seen_images(Pool("suncg_scenenet"), images).fingerprint()
    Image.fromarray(np.zeros((8, 10), np.uint16)).save(home / "suncg_image256/depth/074dc0ff/000006_256.png")
    assert seen.fingerprint() != before
    assert seen_images(Pool("suncg_scenenet"), images).fingerprint() == plain


def test_places365_is_read_by_its_folders(tmp_path: Path) -> None:
    home = handmade.places365(tmp_path)
    (home / "train/airfield/notes.txt").write_text("x")
    for split, first in (("train", "00000001.jpg"), ("val", "Places365_val_00000001.jpg")):
        images = open_dataset(tmp_path, "places365", split, lambda _: None)
        assert images.classes == ("airfield", "arena-hockey", "zen_garden")
        assert images.files[2] == f"{split}/arena-hockey/{first}"
        assert images.labels is not None
        assert images.labels.values.tolist() == [0, 0, 1, 1, 2, 2]
        assert len(images.skipped) == (split == "train")
    for file in (home / "train/zen_garden").iterdir():
        file.unlink()
    with pytest.raises(BadData, match="zen_garden: the class folder contains no images"):
        open_dataset(tmp_path, "places365", "train")


@pytest.mark.parametrize(("lacking", "split"), [("train", "train"), ("train", "val"), ("val", "train"), ("val", "val")])
def test_places365s_splits_have_the_same_classes(tmp_path: Path, lacking: str, split: str) -> None:
    """Without arena-hockey, zen_garden would be class 1 of one of them and class 2 of the other."""
    home = handmade.places365(tmp_path)
    shutil.rmtree(home / lacking / "arena-hockey")
    with pytest.raises(BadData, match=rf"{lacking}: 1 class folder.* the other split has are missing: arena-hockey"):
        open_dataset(tmp_path, "places365", split)
    shutil.rmtree(home / lacking)
    if split != lacking:
        assert len(open_dataset(tmp_path, "places365", split, lambda _: None).classes) == 3


# --- the stand-in


def points_of(rendered: Rendered, focal: float) -> np.ndarray:
    """(H, W, 3): where in space each pixel's middle lies; x right, y up, z towards the camera."""
    height, width = rendered.depth.shape
    y, x = np.mgrid[0:height, 0:width] + SAMPLE
    rays = np.stack([(x - width / 2) / focal, (height / 2 - y) / focal, -np.ones(x.shape)], axis=2)
    return rays * rendered.depth[..., None]


def test_an_empty_room_by_hand() -> None:
    """The back wall is 4 m away, the floor 1.5 m below, the left wall 2 m to the side."""
    view = rooms._view(np.random.default_rng(0), 72, 72)
    view.focal = 36.0  # the picture's edges are 45 degrees off
    rooms._faces(view, rooms._Walls(-2.0, 2.0, -1.5, 1.0, 4.0))
    found = view.rendered()
    assert found.depth[36, 36] == pytest.approx(4.0)
    assert found.normals[36, 36].tolist() == [0, 0, 1]
    for row, column, distance, normal in ((71, 36, 1.5 * 36 / 35.25, [0, 1, 0]), (0, 36, 36 / 35.75, [0, -1, 0])):
        assert found.depth[row, column] == pytest.approx(distance)
        assert found.normals[row, column].tolist() == normal
    assert found.depth[36, 0] == pytest.approx(2 * 36 / 35.75)
    assert found.normals[36, 0].tolist() == [1, 0, 0]
    assert found.normals[36, 71].tolist() == [-1, 0, 0]
    # a wall 4 m away and 2 m to the left and to the right is 36 pixels wide
    wall = found.normals[36, :, 2] == 1
    assert wall.sum() == pytest.approx(36, abs=1)


def test_depths_normals_and_contours_say_the_same_of_every_room() -> None:
    """Two pixels beside each other lie in one plane where neither a contour nor another normal parts them; where a
    contour does, they do not, but for things that touch."""
    apart_at_contours = []
    for seed in range(40):
        rendered, focal = drawn_with_focal(seed)
        points, normals, contours = points_of(rendered, focal), rendered.normals, rendered.contours
        assert np.linalg.norm(normals, axis=2) == pytest.approx(1.0)
        assert rendered.depth.min() > 0.5
        assert rendered.depth.max() < 9
        facing = (normals * points).sum(axis=2)
        assert (facing < 0).all(), "what is seen faces the camera"
        for here, beside in (((slice(None), slice(-1)), (slice(None), slice(1, None))),
                             ((slice(-1), slice(None)), (slice(1, None), slice(None)))):  # fmt: skip
            off = np.abs(((points[beside] - points[here]) * normals[here]).sum(axis=2))
            same = ~contours[here] & (normals[here] == normals[beside]).all(axis=2)
            assert off[same].max() < 1e-9
            apart = rendered.things[here] != rendered.things[beside]
            assert (contours[here] >= apart).all()
            apart_at_contours.append((off[apart] > 1e-3).mean())
    assert np.mean(apart_at_contours) > 0.9


def drawn_with_focal(seed: int) -> tuple[Rendered, float]:
    """A room, and the focal length that it was drawn with."""
    rng = generator(seed, "a room")
    state = rng.bit_generator.state
    rooms._Walls.draw(rng)
    focal = rooms._view(rng, 96, 72).focal
    rng.bit_generator.state = state
    return rendered_room(rng, 96, 72), focal


def test_what_is_drawn_lies_in_the_plane_that_its_depth_is_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """The corners of walls, patches and boxes; and the bricks of a turned figure, all of a size where the plane is
    right: of 0.92 cells each way, of 0.22 to 0.34 m, stretched by up to 5 %."""
    seen = []
    monkeypatch.setattr(
        rooms._View, "face", lambda view, corners, normal, value, thing: seen.append(np.ptp(corners @ normal))
    )
    for seed in range(20):
        rng = generator(seed, "faces")
        rooms._faces(rooms._view(rng, 72, 72), rooms._Walls.draw(rng))
        rooms._box(rooms._view(rng, 72, 72), np.array([rng.uniform(-1, 1), -1.4, 3.0]), 5)
    monkeypatch.undo()
    assert len(seen) > 150
    assert max(seen) < 1e-9
    for seed in range(20):
        view = rooms._view(generator(seed, "figure"), 200, 200)
        rooms._faces(view, rooms._Walls(-3.0, 3.0, -1.5, 2.0, 6.0))
        rooms._figure(view, OBJECTS["castle"], np.array([0.0, -0.8, 3.0]), 5)
        found, shown = view.rendered(), view.scene.canvas.regions()
        rays = points_of(found, view.focal) / found.depth[..., None]
        area = (found.depth / view.focal) ** 2 / np.abs((found.normals * rays).sum(axis=2))  # of a pixel, in its plane
        bricks = [area[shown == number].sum() for number, thing in enumerate(view.things) if thing == 5]
        assert len(bricks) == 8
        assert max(bricks) < 1.2 * min(bricks)
        assert 0.9 * (0.92 * 0.22) ** 2 < np.mean(bricks) < 1.15 * (0.92 * 0.34) ** 2


def test_there_is_more_to_see_than_contours() -> None:
    """Brightness changes where nothing ends, and things end where brightness hardly changes: contours are no edges."""
    inside, faint = [], []
    for seed in range(20):
        rendered = rendered_room(generator(seed, "a room"), 72, 72)
        grey = np.asarray(rendered.picture.convert("L")).astype(float)
        step = np.abs(np.diff(grey, axis=1))
        apart = np.diff(rendered.things, axis=1) != 0
        near = apart.copy()
        near[:, 1:] |= apart[:, :-1]
        near[:, :-1] |= apart[:, 1:]
        inside.append((step[~near] > 15).mean())
        faint.append((step[apart] < 10).mean())
    assert np.mean(inside) > 0.005
    assert np.mean(faint) > 0.1


def test_it_is_drawn_for_who_asks_for_it_and_kept_to_the_bit(tmp_path: Path) -> None:
    assert {"suncg_scenenet", "places365"}.isdisjoint(drawn_for(["imagenet"]))
    build_world(tmp_path, "smoke", datasets=["suncg_scenenet", "places365"], progress=False)
    assert faults(tmp_path, deep=True) == []
    images = opened(tmp_path)
    assert len(images) == 48
    for index, width in ((0, 72), (1, 96), (46, 72), (47, 96)):
        wanted = rendered_room(generator(0, "suncg_scenenet", "train", index), width, 72)
        depth = np.asarray(images.open_map("depth", index)) / 1000
        normals = np.asarray(images.open_map("normal", index)) / 127.5 - 1
        assert np.abs(depth - wanted.depth).max() <= 0.0005 + 1e-9
        assert np.abs(normals - wanted.normals).max() <= 0.5 / 127.5 + 1e-9
        assert np.array_equal(np.asarray(images.open_map("edge", index)) > 0, wanted.contours)
        if width == 72:
            assert np.array_equal(np.asarray(images.open(index)), np.asarray(wanted.picture))
    least = min((np.asarray(images.open_map("edge", i)) > 0).sum() for i in range(48))
    assert least >= at_scale(RECIPE, "desk").method.least_contour


# --- samples


class Scene:
    """What a pool opens: pictures and maps of one scene, or of more."""

    def __init__(self, *scenes: dict[str, np.ndarray]) -> None:
        self.scenes, self.opened = scenes, []

    def __call__(self, index: int, kind: str = "") -> Image.Image:
        self.opened.append(index % len(self.scenes))
        return Image.fromarray(self.scenes[index % len(self.scenes)][kind])


def ramp(contours: int = 400) -> dict[str, np.ndarray]:
    """256 x 256 pixels: everything says which column it is in. contours: pixels on one, in column 100 at first."""
    column = np.tile(np.arange(256), (256, 1))
    edge = np.zeros((256, 256), np.uint8)
    edge.T.flat[100 * 256 : 100 * 256 + contours] = 255
    return {
        "": np.repeat(column[..., None], 3, axis=2).astype(np.uint8),
        "depth": np.rint(1000 * np.exp(column / 64)).astype(np.uint16),
        "normal": np.stack([column, 255 - column, column], axis=2).astype(np.uint8),
        "edge": edge,
    }


def test_a_picture_and_its_maps_are_cropped_alike() -> None:
    corners = set()
    for seed in range(60):
        torch.manual_seed(seed)
        seen = RECIPE.method.sample(Scene(ramp(512)), 0, InputSpec(227))
        assert {name: tuple(view.shape) for name, view in seen.items()} == {
            "image": (3, 227, 227), "depth": (1, 227, 227), "normal": (3, 227, 227), "edge": (1, 227, 227),
            "contour_pixels": (),
        }  # fmt: skip
        column = seen["image"][0].float()
        corners.add(int(column[0, 0]))
        assert (column.diff(dim=1) == 1).all()
        torch.testing.assert_close(64 * seen["depth"][0], column, atol=0.04, rtol=0)  # to a millimetre
        torch.testing.assert_close(127.5 * (seen["normal"][0] + 1), column)
        torch.testing.assert_close(127.5 * (seen["normal"][1] + 1), 255 - column)
        assert torch.equal(seen["edge"][0], ((column == 100) | (column == 101)).float())
        assert seen["contour_pixels"] == 512
    assert corners <= set(range(29))
    assert {0, 28} <= corners


def test_depths_are_logarithms_of_metres_and_nothing_is_far_below() -> None:
    scene = ramp()
    scene["depth"][:] = 2500
    assert RECIPE.method.sample(Scene(scene), 0, InputSpec(227))["depth"].mean() == pytest.approx(np.log(2.5), abs=1e-4)
    scene["depth"][:] = 0
    assert RECIPE.method.sample(Scene(scene), 0, InputSpec(227))["depth"].mean() == pytest.approx(
        np.log(1e-8), abs=1e-2
    )


def test_scenes_with_few_contours_give_way() -> None:
    scenes = Scene(ramp(349), ramp(350), ramp(0))
    for seed in range(10):
        torch.manual_seed(seed)
        assert RECIPE.method.sample(scenes, 0, InputSpec(227))["contour_pixels"] == 350
        assert scenes.opened[-3:] == [1, 1, 1], "the picture and all maps are of the scene that took its place"
    with pytest.raises(UserError, match=r"100 scenes in a row have fewer than 350 pixels .*--recipe.method.least-con"):
        RECIPE.method.sample(Scene(ramp(349)), 0, InputSpec(227))


def test_a_map_of_several_channels_is_no_map_of_depth() -> None:
    scene = ramp() | {"depth": ramp()[""]}
    with pytest.raises(UserError, match="a map of depth has one channel, not 3"):
        RECIPE.method.sample(Scene(scene), 0, InputSpec(227))


def test_a_photograph_is_seen_whole() -> None:
    wide = Image.fromarray(np.tile(np.linspace(0, 255, 400).astype(np.uint8)[None, :, None], (100, 1, 3)))
    seen = RECIPE.method.real(wide, InputSpec(227))["image"]
    assert seen.shape == (3, 227, 227)
    assert seen[0, 100, [0, -1]].tolist() == pytest.approx([0, 255], abs=1)


# --- the method


def built(recipe: Recipe = SMOKE, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    return recipe.method.build(recipe.backbone.build(recipe.input), Given(48))


def batch(rows: int = 4, size: int = 64, seed: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(rows, *shape, generator=generator)

    def images() -> Tensor:
        return torch.randint(0, 256, (rows, 3, size, size), generator=generator, dtype=torch.uint8)

    views = {"image": images(), "depth": 2 * drawn(1, size, size), "normal": 2 * drawn(3, size, size) - 1,
             "edge": (drawn(1, size, size) < 0.1).float(), "contour_pixels": 100 + 400 * drawn()}  # fmt: skip
    found = Batch(views, torch.arange(rows), seed)
    found.pools = {"synthetic": found, "real": Batch({"image": images()}, torch.arange(rows), seed)}
    return found


def test_the_papers_networks_have_the_papers_shapes() -> None:
    with torch.device("meta"):
        method = built(replace(RECIPE, backbone=replace(RECIPE.backbone, over="process")))
        f, fc7 = method.features(torch.zeros(2, 3, 227, 227))
        assert f.shape == (2, 256, 13, 13)
        assert fc7.shape == (2, 4096, 13, 13)
        assert {name: tuple(one(fc7).shape) for name, one in method.heads.items()} == {
            "depth": (2, 1, 227, 227), "normal": (2, 3, 227, 227), "edge": (2, 1, 227, 227)
        }  # fmt: skip
        assert method.discriminator(f).shape == (2, 1, 6, 6)
    assert method.rendered.features.shape == (128, 256, 13, 13)
    counts = {name: sum(p.numel() for p in one.parameters() if p.ndim == 4) for name, one in method.named_children()}
    trunk = 3 * 96 * 11**2 + 96 * 256 * 5**2 + 256 * 384 * 3**2 + 384 * 384 * 3**2 + 384 * 256 * 3**2
    assert counts["backbone"] == trunk + 256 * 4096 * 6**2 + 4096 * 4096
    assert counts["heads"] == 3 * (4096 * 64 * 9 + 64 * 64 * 9 + 64 * 64 * 25) + 64 * 9 * (1 + 3 + 1)
    assert counts["discriminator"] == 256 * 512 * 9 + 512 * 512 + 512


def test_features_are_the_networks_own_and_conv5s_have_both_signs() -> None:
    method = built().eval()
    x = torch.randn(2, 3, 64, 64)
    maps = method.backbone.forward_stages(x)
    f, fc7 = method.features(x)
    assert torch.equal(f.relu(), maps["conv5"])
    assert torch.equal(fc7, maps["fc7"])
    assert f.min() < 0


def test_all_weights_start_small() -> None:
    """Glorot's normal weights times 0.02, as the authors start all three networks."""
    method = built(replace(SMOKE, backbone=replace(SMOKE.backbone, width=0.5)))
    for module in (method.backbone.layers["conv2"][1], method.backbone.layers["fc7"][0], method.heads["normal"][0]):
        kernel = module.weight[0, 0].numel()
        fans = kernel * (module.in_channels + module.out_channels)
        assert module.weight.std().item() == pytest.approx(0.02 * (2 / fans) ** 0.5, rel=0.05)
        assert module.bias is None or not module.bias.any()
    scales = torch.cat([m.weight for m in method.modules() if isinstance(m, nn.BatchNorm2d)])
    assert scales.mean().item() == pytest.approx(1, abs=0.005)
    assert scales.std().item() == pytest.approx(0.02, rel=0.1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_the_losses_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, from the predictions of heads and discriminator, by numpy."""
    given = batch()
    given.views = {name: view.double() if view.dtype == torch.float32 else view for name, view in given.views.items()}
    method = built().double()
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    f, fc7 = method.features(method.grey(given.views["image"], mix(given.seed, 0)))
    g, _ = method.features(method.grey(given.pools["real"].views["image"], mix(given.seed, 1)))
    with torch.no_grad():
        y = {name: torch.nn.functional.interpolate(one(fc7), size=64, mode="bilinear").numpy()
             for name, one in method.heads.items()}  # fmt: skip
        logits = [method.discriminator(one).numpy() for one in (f, g, f)]
    losses = dict(method.losses(given))  # no step comes between: D is the same for both
    assert list(losses) == ["discriminator", "main"]
    views = {name: view.numpy() for name, view in given.views.items()}

    off = y["depth"] - views["depth"]
    depth = 5 * 0.5 * ((off**2).mean() + 0.5 * off.mean() ** 2)
    lengths = np.linalg.norm(y["normal"], axis=1) * np.linalg.norm(views["normal"], axis=1)
    normal = 10 * (1 - (y["normal"] * views["normal"]).sum(axis=1) / lengths).mean()
    p, n = sigmoid(y["edge"]), views["contour_pixels"]
    entropy = -(views["edge"] * np.log(p) + (1 - views["edge"]) * np.log(1 - p))
    contour = (((64 * 64 - n) / n)[:, None, None, None] * entropy).mean()
    fooled = 0.05 * -np.log(sigmoid(logits[2])).mean()
    told_apart = (-np.log(1 - sigmoid(logits[0])).mean() - np.log(sigmoid(logits[1])).mean()) / 2

    assert losses["main"].item() == pytest.approx(depth + normal + contour + fooled, rel=1e-10)
    assert losses["discriminator"].item() == pytest.approx(told_apart, rel=1e-10)
    scalars = method.scalars()
    assert 5 * scalars["depth"] == pytest.approx(depth)
    assert 10 * scalars["normal"] == pytest.approx(normal)
    assert scalars["contour"] == pytest.approx(contour)
    right = ((logits[0] < 0).mean() + (logits[1] > 0).mean()) / 2
    assert scalars["told_apart"] == pytest.approx(right)


def test_a_constant_error_of_depth_costs_half_more_and_few_contours_weigh_more() -> None:
    y = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    assert depth_loss(y + 2, y).item() == pytest.approx((4 + 2) / 2)
    swings = torch.tensor([2.0, -2.0], dtype=torch.float64).view(2, 1, 1, 1) + y
    assert depth_loss(swings, y).item() == pytest.approx(4 / 2)
    half = np.log(2)  # of a logit of 0
    assert contour_loss(y, y, torch.tensor([1.0, 8.0])).item() == pytest.approx((15 * half + 1 * half) / 2)


@pytest.mark.parametrize("name", ["discriminator", "main"])
def test_each_players_step_moves_its_own_parameters_alone(name: str) -> None:
    method = built()
    players = build_players(method, SMOKE)
    start = {key: p.detach().clone() for key, p in method.named_parameters()}
    losses = method.losses
    object.__setattr__(method, "losses", lambda given: (one for one in losses(given) if one[0] == name))
    train_step(method, batch(), players, "fp32")
    own = {id(p) for p in players[name].parameters}
    moved = {key for key, p in method.named_parameters() if not torch.equal(p, start[key])}
    owned = {key for key, p in method.named_parameters() if id(p) in own}
    assert moved <= owned
    # a bias before BatchNorm changes nothing, so that its gradient is what rounding leaves
    assert all(key.endswith("bias") for key in owned - moved)
    assert {key.partition(".")[0] for key in moved} == ({name} if name == "discriminator" else {"backbone", "heads"})


def test_the_discriminator_learns_to_tell_features_apart() -> None:
    """Smooth ones from rough ones: their mean alone says nothing, as BatchNorm takes it from either kind."""
    method = built()
    f, g = torch.randn(16, 16, 3, 3), torch.randn(16, 16, 1, 1).expand(-1, -1, 3, 3)
    optimizer, losses = torch.optim.Adam(method.discriminator.parameters(), 0.01), []
    for step in range(50):
        optimizer.zero_grad()
        losses.append(method.told_apart(f, g, step))
        losses[-1].backward()
        optimizer.step()
    assert losses[0].item() == pytest.approx(np.log(2), abs=0.01)
    assert losses[-1] < 0.3
    assert method.scalars()["told_apart"] > 0.8


def test_the_trunk_is_to_make_renderings_look_like_photographs_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small step of B's down its part of the loss has D say "photograph" of renderings more often than before."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    method = built().double()
    method.settings = replace(method.settings, depth_weight=0.0, normal_weight=0.0, contour_weight=0.0)
    given, parameters = batch(), list(method.backbone.parameters())
    main = dict(method.losses(given))["main"]
    gradients = torch.autograd.grad(main, parameters, allow_unused=True)

    def judged() -> float:
        f, _ = method.features(method.grey(given.views["image"], mix(given.seed, 0)))
        return method.discriminator(f).sigmoid().log().mean().item()

    before = judged()
    assert main.item() == pytest.approx(-0.05 * before)
    steepness = sum(float(gradient.square().sum()) for gradient in gradients if gradient is not None)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= 1e-9 / steepness * gradient
    assert 0.05 * (judged() - before) == pytest.approx(1e-9, rel=0.05)


def test_one_channel_of_all_is_seen_three_times() -> None:
    method = built()
    images, means = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8), (0.485, 0.456, 0.406)
    seen = set()
    for seed in range(30):
        x = method.grey(images, seed)
        (channel,) = [c for c in range(3) if torch.allclose(x[:, 0], images[:, c] / 255 - means[c], atol=1e-6)]
        assert torch.equal(x[:, 0], x[:, 1])
        assert torch.equal(x[:, 0], x[:, 2])
        seen.add(channel)
    assert seen == {0, 1, 2}


def one_by_one(pool: list[int], new: list[int], size: int, seed: int) -> list[int]:
    """Image by image, as the released pool does it: what is shown of the new ones. The pool changes."""
    places = uniform_integers(mix(seed, 0), torch.arange(len(new)), 1, size)[:, 0].tolist()
    coins = uniform_integers(mix(seed, 1), torch.arange(len(new)), 1, 2)[:, 0].tolist()
    shown = []
    for one, place, coin in zip(new, places, coins, strict=True):
        if len(pool) < size:
            pool.append(one)
            shown.append(one)
        elif coin:
            shown.append(pool[place])
            pool[place] = one
        else:
            shown.append(one)
    return shown


@pytest.mark.parametrize(("size", "rows"), [(128, 224), (10, 4), (5, 16), (1, 3)])
def test_earlier_features_are_shown_as_if_they_came_one_by_one(size: int, rows: int) -> None:
    earlier, pool = Earlier(size, torch.Size((2,))), []
    rng = random.Random(0)
    swapped = 0
    for step in range(8):
        new = list(range(step * rows, (step + 1) * rows))
        seed = rng.randrange(1 << 40)
        x = torch.tensor(new, dtype=torch.float32)[:, None].expand(-1, 2)
        shown = earlier(x, seed)[:, 0].int().tolist()
        assert shown == one_by_one(pool, new, size, seed)
        assert earlier.features[: len(pool), 0].int().tolist() == pool
        assert int(earlier.count) == len(pool)
        swapped += sum(one not in new for one in shown)
    assert swapped


def test_what_transfers_is_a_caffenet_of_the_same_weights() -> None:
    method = built()
    for module in method.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    network = method.export()
    assert isinstance(network, AlexNetwork)
    assert list(network.stages) == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]
    wanted = replace(CAFFENET, groups=1, response_norm=False, width=SMOKE.backbone.width, fc6_side=1)
    assert network.architecture == wanted
    assert network.input == SMOKE.input
    assert begun_anew(network) == ()
    theirs = folded(method.backbone)
    for stage in network.stages:
        (ours,) = [one for one in network.layers[stage] if hasattr(one, "weight")]
        (other,) = [one for one in theirs.layers[stage] if hasattr(one, "weight")]
        assert torch.equal(ours.weight.flatten(1), other.weight.flatten(1))
        assert torch.equal(ours.bias, other.bias)
    x = torch.randn(2, 3, 64, 64)
    first = network.layers["conv1"][0]
    assert torch.equal(
        network.eval().forward_stages(x, "conv1")["conv1"], conv2d(x, first.weight, first.bias, 4).relu()
    )
    assert network(x).shape == (2, 256)


def test_a_small_network_learns_all_three(tmp_path: Path) -> None:
    """Of eight scenes of the smoke world, over and over."""
    build_world(tmp_path, "smoke", datasets=["suncg_scenenet", "places365"], progress=False)
    scenes, photographs = opened(tmp_path), open_dataset(tmp_path, "places365", "train", lambda _: None)
    torch.manual_seed(0)

    def opener(index: int, kind: str = "") -> Image.Image:
        return scenes.open_map(kind, index % 48) if kind else scenes.open(index % 48)

    samples = [SMOKE.method.sample(opener, i, SMOKE.input) for i in range(8)]
    views = {name: torch.stack([one[name] for one in samples]) for name in samples[0]}
    real = {"image": torch.stack([SMOKE.method.real(photographs.open(i), SMOKE.input)["image"] for i in range(8)])}
    method = built()
    players, told = build_players(method, SMOKE), []
    for step in range(25):
        given = Batch(views, torch.arange(8), step)
        given.pools = {"synthetic": given, "real": Batch(real, torch.arange(8), step)}
        train_step(method, given, players, "fp32")
        told.append(method.scalars())
    for name, share in (("depth", 0.6), ("normal", 0.3), ("contour", 0.85)):
        assert told[-1][name] < share * told[0][name], name
