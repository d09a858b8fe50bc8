"""Tracked patches: the list that pairs them, what is drawn in their place, and the loss that compares them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import handmade
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmark.backbones.contract import Backbone, Stage
from benchmark.core.errors import UserError
from benchmark.data.batch import Batch
from benchmark.data.datasets import open_dataset
from benchmark.data.doctor import examine
from benchmark.data.findings import BadData
from benchmark.data.image_set import ImageSet
from benchmark.data.unreadable import UNREADABLE
from benchmark.recipe import RGB, InputSpec
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import Architecture
from benchmark.recipe.pools import Given
from benchmark.recipe.scales import at_scale
from benchmark.toyland import build_world, drawn_for
from benchmark.toyland.catalogue import OBJECTS
from benchmark.toyland.rng import generator
from benchmark.toyland.tracks import tracked

RECIPE = find_recipes()["wang_gupta"]


# --- the list


def opened(root: Path) -> ImageSet:
    return open_dataset(root, "youtube_patches", "train", lambda _: None)


def test_two_lines_in_a_row_are_a_track_and_videos_are_its_classes(tmp_path: Path) -> None:
    handmade.youtube_patches(tmp_path)
    images = opened(tmp_path)
    assert [*images.files[::5]] == ["E5K-WUqpmvw/pairs2/0000001_1.jpg", "DmeLCEonmfk/pairs2/0000002_2.jpg"]
    assert images.classes == ("3", "7")
    assert images.labels is not None
    assert images.labels.values.tolist() == [1, 1, 1, 1, 0, 0]


BROKEN = {
    "an end is missing": (lambda lines: lines[:-1], "trainlist.txt: has 5 patches"),
    "out of step": (
        lambda lines: [*lines[1:], lines[0]],
        r"line 3: E5K-WUqpmvw/pairs2/0000002_2.jpg and DmeLCEonmfk/pairs2/0000002_1.jpg are no track",
    ),
    "no video": (lambda lines: [*lines[:3], lines[3][:-2], *lines[4:]], "line 4: .* not a file name and the number"),
    "no patch": (lambda lines: [*lines[:3], " 7", *lines[4:]], "line 4: .* not a file name and the number"),
    "empty": (lambda lines: [], "the list is empty"),
    "outside": (lambda lines: ["../x_1.jpg 7", "../x_2.jpg 7"], "points outside"),
}


@pytest.mark.parametrize("way", BROKEN)
def test_a_list_that_is_broken_is_refused_by_its_line(tmp_path: Path, way: str) -> None:
    change, words = BROKEN[way]
    path = handmade.youtube_patches(tmp_path) / "trainlist.txt"
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(BadData, match=words):
        opened(tmp_path)
    assert [one.dataset for one in examine(tmp_path, deep=False, progress=False) if one.level == "error"]


def test_the_doctor_warns_of_tracks_of_two_names(tmp_path: Path) -> None:
    path = handmade.youtube_patches(tmp_path) / "trainlist.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[2], lines[1], *lines[3:]]))  # of one video, so that it could be meant
    opened(tmp_path)
    (found,) = [one for one in examine(tmp_path, deep=False, progress=False) if one.level != "note"]
    assert found.level == "warning"
    assert found.message.startswith(
        "2 of 3 tracks join patches that are not called alike: E5K-WUqpmvw/pairs2/0000001_1"
    )


def test_an_unreadable_patch_takes_the_other_end_along(tmp_path: Path) -> None:
    home = handmade.youtube_patches(tmp_path)
    before = opened(tmp_path)
    broken = home / "E5K-WUqpmvw/pairs2/0000002_1.jpg"
    broken.write_bytes(broken.read_bytes()[:50])
    examine(tmp_path, deep=True, progress=False)
    assert "0000002_2" not in (home / UNREADABLE).read_text()
    after = opened(tmp_path)
    assert [*after.files] == [*before.files[:2], *before.files[4:]]
    assert after.unreadable == tuple(before.files[2:4])


def test_a_track_is_never_taken_apart(tmp_path: Path) -> None:
    handmade.youtube_patches(tmp_path)
    images = opened(tmp_path)
    assert [*images.subset([0, 1, 4, 5], "two").files] == [*images.files[:2], *images.files[4:]]
    for wrong in ([0, 1, 2], [1, 0], [1, 2]):
        with pytest.raises(UserError, match="every 2 files in a row belong together"):
            images.subset(wrong, "half")


# --- the stand-in


def test_it_is_drawn_for_who_asks_for_it(tmp_path: Path) -> None:
    assert "youtube_patches" not in drawn_for(["imagenet"])
    assert [*drawn_for([]), "youtube_patches"] == drawn_for(["youtube_patches", "none of Toyland's"])
    build_world(tmp_path, "smoke", datasets=["youtube_patches"], progress=False)
    images = opened(tmp_path)
    assert images.labels is not None
    assert np.bincount(images.labels.values).tolist() == [4] * 12  # two tracks of each video
    assert [one for one in examine(tmp_path, deep=True, progress=False) if one.level != "note"] == []


def test_a_track_keeps_its_figure_and_nothing_else() -> None:
    """By descriptors that know no arrangement. Two figures of one class and kind of brick are the harder case."""
    shape = OBJECTS["truck"]

    def ends(video: int) -> list[np.ndarray]:
        drawn = [tracked(generator(0, "f", video, end), generator(0, video), shape, 64) for end in (1, 2)]
        return [np.asarray(image, dtype=float) for image in drawn]

    first, last = (np.stack(one) for one in zip(*(ends(video) for video in range(40)), strict=True))
    by_colour = nearest(first.mean(axis=(1, 2)), last.mean(axis=(1, 2)))
    rows = [part.mean(axis=3)[:, ::8, ::8].reshape(40, -1) for part in (first, last)]
    assert max(by_colour, nearest(*rows)) <= 0.2


def test_the_figure_is_the_same_at_both_ends() -> None:
    """Its dark pixels, moved to the middle, lie on each other where nothing turns; those of another figure do not."""
    still = generator(0, "frame")  # one frame, so the same place, size and ground
    kept = still.bit_generator.state
    drawn = []
    for figure in (0, 0, 1):
        still.bit_generator.state = kept
        drawn.append(np.asarray(tracked(still, generator(0, figure), OBJECTS["cup"], 64)).astype(int))
    assert np.array_equal(drawn[0], drawn[1])
    assert (np.abs(drawn[0] - drawn[2]).max(axis=2) > 40).mean() > 0.05


def nearest(first: np.ndarray, last: np.ndarray) -> float:
    """How often a first end is nearer to its own last end than to all others."""
    distances = ((first[:, None] - last[None]) ** 2).sum(axis=2)
    return float((distances.argmin(axis=1) == np.arange(len(first))).mean())


# --- the method


class Given64(Backbone):
    """Its features are what it is told, in place of a network's."""

    def __init__(self, features: Tensor) -> None:
        super().__init__(Architecture(), InputSpec(8, RGB()))
        self.stages = {"fc7": Stage(features.shape[1], None)}
        self.features = nn.Parameter(features)

    def forward_stages(self, x: Tensor, upto: str | None = None) -> dict[str, Tensor]:
        return {"fc7": self.features[: len(x)]}


def batch(videos: list[int], done: float = 0.0, seed: int = 0) -> Batch:
    views = {"track": torch.zeros(len(videos), 2, 3, 8, 8, dtype=torch.uint8)}
    return Batch(views, torch.arange(len(videos)), seed, labels=torch.tensor(videos), done=done)


def built(features: Tensor, **changes: object) -> nn.Module:
    return replace(RECIPE.method, **changes).build(Given64(features), Given(20, 2))


def by_hand(f: np.ndarray, videos: list[int], M: float) -> float:
    """With all patches of other videos as negatives, one at a time."""
    f = f / np.linalg.norm(f, axis=1, keepdims=True)
    total = 0.0
    for track, video in enumerate(videos):
        first, last = f[2 * track], f[2 * track + 1]
        for other, negative in enumerate(f):
            if videos[other // 2] == video or (1 - first @ last) - (1 - first @ negative) + M <= 0:
                continue
            for end in (first, last):
                total += max(0.0, (1 - first @ last) - (1 - end @ negative) + M)
    return total


@pytest.mark.parametrize("M", [1.0, 0.3])
@pytest.mark.parametrize("done", [0.0, 0.9])
def test_the_loss_by_hand_where_all_negatives_are_taken(M: float, done: float) -> None:
    videos = [0, 1, 2, 1]
    f = torch.rand(8, 5, generator=torch.Generator().manual_seed(1)).double()
    method = built(f, M=M, K=6)
    wanted = by_hand(f.numpy(), videos, M) / (2 * 6 * 4)
    loss = method.loss(batch(videos, done))
    assert loss.item() == pytest.approx(wanted)
    loss.backward()
    assert method.backbone.features.grad.abs().sum() > 0


def test_patches_of_the_same_video_are_no_negatives() -> None:
    method = built(torch.rand(6, 5))
    assert method.loss(batch([4, 4, 4])).item() == 0
    assert method.loss(batch([4, 4, 5])).item() > 0


def negatives(done: float, seed: int) -> Tensor:
    """(B, 2 N) bool of ten tracks, each of its own video."""
    cosines = torch.rand(10, 20, generator=torch.Generator().manual_seed(0))
    own = torch.arange(10).repeat_interleave(2) == torch.arange(10)[:, None]
    return built(torch.rand(20, 5)).chosen(cosines, ~own, batch([*range(10)], done, seed))


def test_negatives_are_random_first_and_half_of_them_hard_later() -> None:
    cosines = torch.rand(10, 20, generator=torch.Generator().manual_seed(0))
    own = torch.arange(10).repeat_interleave(2) == torch.arange(10)[:, None]
    hardest = torch.zeros(10, 20, dtype=torch.bool).scatter(
        1, cosines.masked_fill(own, -1).topk(4, dim=1).indices, True
    )
    counts = {}
    for done in (0.0, 0.374, 0.375, 1.0):
        drawn = torch.stack([negatives(done, seed) for seed in range(300)])  # (300, 10, 20)
        assert (drawn.sum(dim=2) == 4).all()
        assert not drawn[:, own].any()
        hard = (drawn & hardest).sum(dim=2)
        counts[done] = float(hard.float().mean())
        assert int(hard.min()) == (2 if done >= 0.375 else 0)
        share = drawn.float().mean(dim=0)
        assert share[hardest].std() < 0.05, "all four of the hardest come equally often"
        assert share[~hardest & ~own].std() < 0.05
    # 4 of 18 at random; later 2 of the hardest, and 2 of the other 16, of which 2 are among the hardest too
    assert counts[0.0] == counts[0.374] == pytest.approx(4 * 4 / 18, abs=0.05)
    assert counts[0.375] == counts[1.0] == pytest.approx(2 + 2 * 2 / 16, abs=0.05)


def test_fewer_than_k_are_all_taken() -> None:
    allowed = torch.tensor([[True, False, True, False, True, False]])
    for done in (0.0, 1.0):
        method = built(torch.rand(2, 5))
        assert torch.equal(method.chosen(torch.rand(1, 6), allowed, batch([0, 1, 2], done))[:1], allowed)


def test_how_often_the_other_end_is_nearest() -> None:
    f = torch.eye(4)[[0, 0, 1, 1, 2, 2, 2, 2]] + 0.01
    f[[5, 7], 3] = 1.0  # the third track and the fourth begin alike, and end elsewhere
    method = built(f)
    for videos, wanted in (([0, 1, 2, 3], 0.5), ([0, 1, 2, 2], 1.0)):
        method.loss(batch(videos))
        assert method.scalars()["nearest"] == wanted


def test_without_its_relu_fc7_has_both_signs_and_the_rest_is_the_same() -> None:
    spec, images = InputSpec(64, RECIPE.input.colour), torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    found = []
    for rectified in (True, False):
        torch.manual_seed(0)
        backbone = replace(RECIPE.backbone, width=0.0625, start="torch").build(spec)
        method = replace(RECIPE.method, rectified=rectified).build(backbone, Given(20, 2))
        found.append(backbone(spec.prepare(images)))
        assert list(method.export().stages) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert found[1].min() < 0
    assert torch.equal(found[1].clamp_min(0), found[0])


def test_a_small_network_learns_which_patches_are_of_one_track(tmp_path: Path) -> None:
    """All 24 tracks of the smoke world in one batch: at the beginning few patches are nearest to their track's other
    end (by chance 1 of 45 others), and after 30 steps nearly all are."""
    build_world(tmp_path, "smoke", datasets=["youtube_patches"], progress=False)
    images, recipe = opened(tmp_path), at_scale(RECIPE, "smoke")
    assert images.labels is not None
    torch.manual_seed(0)
    tracks = torch.stack([recipe.method.sample(images.open, i, recipe.input)["track"] for i in range(0, 48, 2)])
    method = recipe.method.build(replace(recipe.backbone, width=0.125).build(recipe.input), Given(48, 12))
    optimizer, shares = torch.optim.AdamW(method.parameters(), 1e-3), []
    for step in range(30):
        seen = Batch({"track": tracks}, torch.arange(24), step, labels=torch.from_numpy(images.labels.values[::2]))
        optimizer.zero_grad()
        method.loss(seen).backward()
        optimizer.step()
        shares.append(method.scalars()["nearest"])
    assert shares[0] < 0.2
    assert shares[-1] > 0.8


def test_a_sample_is_a_track_whichever_end_is_asked_for() -> None:
    images = [Image.new("RGB", (40 + i, 30), (10 * i, 0, 0)) for i in range(6)]
    for index in range(6):
        track = RECIPE.method.sample(lambda i: images[i], index, InputSpec(227))["track"]
        assert track.shape == (2, 3, 227, 227)
        assert track[:, 0, 0, 0].tolist() == [10 * (index - index % 2), 10 * (index - index % 2) + 10]


def test_each_end_is_mirrored_by_itself_and_shown_whole() -> None:
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 300).astype(np.uint8)[None, :, None], (100, 1, 3)))
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        left, right = RECIPE.method.sample(lambda _: ramp, 0, InputSpec(227))["track"][:, 0, 50, [0, -1]].T.float()
        assert {*left.tolist(), *right.tolist()} <= {0.0, 255.0, 1.0, 254.0}
        seen.add(tuple((left > right).tolist()))
    assert len(seen) == 4


def test_without_labels_it_says_what_it_needs() -> None:
    with pytest.raises(UserError, match="labels=True"):
        RECIPE.method.build(Given64(torch.rand(2, 5)), Given(20))
