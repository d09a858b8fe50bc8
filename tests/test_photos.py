"""Scale photos: what it takes of a recipe's desk changes (and what the two crop), what it reads and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_results import a_record

from benchmark import cli
from benchmark.core import memory
from benchmark.core.errors import UserError
from benchmark.core.optimisation import Epochs, Steps
from benchmark.data.datasets import DATASETS
from benchmark.recipe.catalogue import find_recipes
from benchmark.recipe.contract import recipe_hash, value_at
from benchmark.recipe.scales import STAND_INS, at_scale, is_read_at, photos_against_desk
from benchmark.records.folders import read_runs
from benchmark.tables.photos_page import photos_page
from benchmark.toyland import build_world
from benchmark.transfers import find_transfers
from benchmark.transfers.contract import values_at

RECIPES, TRANSFERS = find_recipes(), find_transfers()
TRAINED = [name for name, recipe in RECIPES.items() if recipe.length != Steps(0)]
READ = [name for name, one in TRANSFERS.items() if {of for of, _ in one.card.datasets} <= STAND_INS["photos"].keys()]
STEPS = 1_000
REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize("name", RECIPES)
def test_small_changes_are_kept_and_drawn_ones_are_not(name: str):
    recipe, photos = RECIPES[name], at_scale(RECIPES[name], "photos")
    kept = at_scale(replace(recipe, desk=tuple(change for change in recipe.desk if not change.drawn)), "desk")
    for key in ("backbone", "input", "optimizers", "precision"):
        assert value_at(photos, key) == value_at(kept, key), key
    small = {change.key: change.value for change in recipe.desk if not change.drawn}
    for change in recipe.desk:
        if change.key.startswith("method."):
            assert value_at(photos, change.key) == small.get(change.key, value_at(recipe, change.key)), change.key
    real = {"tiny_imagenet", "yfcc100m", "places205", "youtube_patches", "suncg_scenenet", "places365"}
    assert {pool.dataset for pool in photos.pools.values()} <= real


def test_some_changes_are_of_each_kind():
    kinds = {change.drawn for name in ("pirl", "npid_pp", "npid", "supervised") for change in RECIPES[name].desk}
    assert kinds == {True, False}
    photos = at_scale(RECIPES["npid_pp"], "photos").method
    assert (photos.N, photos.tau, photos.crop_area, photos.jitter[3]) == (32_000, 0.07, (0.08, 1.0), 0.2)


CROPPED = [name for name, recipe in RECIPES.items() if hasattr(recipe.method, "crop_area")]


def test_those_that_crop_are_found():
    assert {"pirl", "npid_pp", "npid", "supervised", "rotation", "simclr", "deepcluster"} <= {*CROPPED}


@pytest.mark.parametrize("name", CROPPED)
def test_who_crops_keeps_half_of_a_drawn_picture_and_the_papers_share_of_a_photograph(name: str):
    recipe = RECIPES[name]
    assert at_scale(recipe, "desk").method.crop_area == (0.5, 1.0)
    assert at_scale(recipe, "photos").method.crop_area == recipe.method.crop_area


# Whose paper has rows of another length or batch side by side: K is the batch, 800 epochs beside 200, few images with
# labels, and batches of 8,192.
OF_THEIR_OWN_LENGTH = (
    *("moco_end_to_end", "moco_v2_800ep", "simclr_200ep_b8192", "simclr_v2_1pct", "simclr_v2_10pct"),
    *("simclr_v2_distilled_labelled", "simclr_v2_labels"),
)


@pytest.mark.parametrize("name", [name for name in TRAINED if not name.startswith(OF_THEIR_OWN_LENGTH)])
def test_every_row_trains_equally_long(name: str):
    """5 epochs in batches of 64. An epoch of several pools is one of the first, so theirs are held against desk's."""
    photos, desk = (at_scale(RECIPES[name], scale) for scale in ("photos", "desk"))
    if len(photos.pools) == 1:
        assert (photos.length, photos.batch_size) == (Epochs(5.0), 64)
    else:
        assert photos.length == Epochs(desk.length.epochs / 8)
        assert [photos.batch_of(pool) for pool in photos.pools] == [2 * desk.batch_of(pool) for pool in desk.pools]


def test_simclrs_large_batch_is_four_times_the_others():
    for scale, large, other in (("desk", 128, 32), ("photos", 256, 64)):
        assert at_scale(RECIPES["simclr_200ep_b8192"], scale).batch_size == large
        assert at_scale(RECIPES["simclr_200ep_b256"], scale).batch_size == other


def test_what_differs_from_desk_is_told_once():
    """The rate alone, not also the optimizer that it is a setting of; but a dataset that has another name is told."""
    told = photos_against_desk(RECIPES["supcon"])
    assert [one for one in told if one[0].startswith("optimizers")] == [
        ("optimizers.main.lr", "0.008", "0.001", "the other suits drawn pictures")
    ]
    assert ("data.dataset", "imagenet", "tiny_imagenet") in [one[:3] for one in told]


def test_what_the_pages_say_of_it_is_what_it_does():
    photos = at_scale(RECIPES["pirl"], "photos")
    said = f"{photos.length.epochs:g} epochs"  # type: ignore[union-attr]
    assert f", {said}, on real photographs" in (REPOSITORY / "leaderboards/tables.toml").read_text()
    page = (REPOSITORY / "docs/reading-a-recipe.md").read_text()
    assert f"{said} in batches of {photos.batch_size} " in page
    assert f"{said} of 100,000 photographs" in page


def test_a_transfer_without_values_there_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in READ:
        transfer = TRANSFERS[name]
        for field in ("values", "courses", "costs"):
            if values := getattr(transfer, field, None):
                with pytest.raises(UserError, match=f"{name} has no values for photos scale, only for desk"):
                    values_at("photos", {"desk": values["desk"]}, transfer.card)


@pytest.mark.parametrize("name", TRAINED)
def test_the_rates_fall_where_desks_do(name: str):
    curves = []
    for scale in ("photos", "desk"):
        recipe = at_scale(RECIPES[name], scale)
        epoch = STEPS / recipe.length.epochs  # type: ignore[union-attr]
        schedules = [recipe.schedule_of(player) for player in recipe.optimizers]
        curves.append([one.factor(step, STEPS, epoch) for one in schedules for step in range(STEPS)])
    assert curves[0] == pytest.approx(curves[1])


def test_what_reads_imagenet_reads_tiny_imagenet():
    assert {"linear_imagenet_pirl", "linear_imagenet_moco", "knn_imagenet_wu", "semi_supervised_1pct_pirl"} <= {*READ}
    for name, transfer in TRANSFERS.items():
        card, there = transfer.card.at("photos"), is_read_at("photos", transfer.card.datasets[0][0])
        own = {of for of, _ in transfer.card.datasets} == {"tiny_imagenet"}
        assert there == (name in READ or own)
        assert ({of for of, _ in card.datasets} == {"tiny_imagenet"}) == there
        assert all(split in DATASETS[of].SPLITS for of, split in card.datasets)
        assert (transfer.card.at("desk") == transfer.card) != own
    lists = TRANSFERS["semi_supervised_10pct_pirl"].card.at("photos").lists
    assert lists == ("tiny-imagenet-200/10percent.txt",)


def test_drawn_imagenet_stands_in_for_tiny_imagenet():
    """Whose own drawing has too few images to learn from or to score."""
    for name, recipe in RECIPES.items():
        read = [
            [pool.dataset for pool in at_scale(recipe, scale).pools.values()] for scale in ("paper", "desk", "smoke")
        ]
        assert {"tiny_imagenet"}.isdisjoint(read[1] + read[2]), name
        if "tiny_imagenet" in read[0]:
            assert read[1:] == [["imagenet"]] * 2
            assert [pool.dataset for pool in at_scale(recipe, "photos").pools.values()] == ["tiny_imagenet"]
    assert all(is_read_at("desk", name) for name in DATASETS)
    assert not is_read_at("photos", "places205")


def run(*words: str) -> int:
    return cli.run([*words, "--scale", "photos", "--workers", "0", "--device", "cpu"])


def test_from_photographs_to_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """On a drawn Tiny ImageNet, which is incomplete; ImageNet is not even there."""
    world = build_world(tmp_path / "world", "smoke", datasets=("tiny_imagenet",), progress=False)
    where = ["--data", str(world), "--runs", str(tmp_path)]
    assert run("pretrain", "random_init", *where) == 0
    assert run("transfer", "random_init", "knn_imagenet_wu", *where) == 2
    assert "photos scale needs all of it" in capsys.readouterr().err
    read = [name for name in READ if not TRANSFERS[name].card.refusal("ResNet", ())]
    assert run("transfer", "random_init", *read, *where, "--incomplete") == 0
    assert "peak memory" in capsys.readouterr().out
    records = list(read_runs(tmp_path))
    assert [record.transfer for record in records] == sorted(read)
    for record in records:
        assert record.transfer_data.keys() == {"tiny_imagenet/train", "tiny_imagenet/val"}
        assert record.recipe_hash == recipe_hash(at_scale(RECIPES["random_init"], "photos"))
    assert run("transfer", "random_init", "linear_places205_pirl", *where, "--incomplete") == 2
    assert "linear_places205_pirl reads data that nothing stands in for" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["pretrain", "pirl"], ["reproduce", "pirl"], ["world"]])
def test_photographs_are_not_drawn(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run([*command, "--scale", "photos"]) == 2
    assert "reads real datasets" in capsys.readouterr().err


def test_the_plan_is_of_tiny_imagenet(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["plan", "pirl", "--scale", "photos"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for statement in ("images 100,000 tiny_imagenet/train", "steps 7,810", "Photos against paper"):
        assert statement in told


def test_what_was_measured_stands_on_one_page():
    """Seeds are averaged; other settings and single stages are left out; other data is another column."""
    linear = {"transfer": "linear_imagenet_pirl", "metrics": {"top1": 20.0}}
    knn = {"scale": "photos", "transfer": "knn_imagenet_wu"}
    records = [
        a_record(scale="photos", recipe="pirl", **linear),
        a_record(scale="photos", recipe="pirl", seed=1, **linear | {"metrics": {"top1": 22.0}}),
        a_record(scale="photos", recipe="pirl", seed=2, recipe_hash="another", **linear),
        a_record(recipe="npid", metrics={"top1": 5.0}, **knn),
        a_record(recipe="pirl", metrics={"top1": 6.0}, transfer_data={"x": "y"}, **knn),
    ]
    head, _, *lines = photos_page(records, "small", ("0123456789ab",)).splitlines()[-4:]
    knn_heads = "knn_imagenet_wu v1, top1 on data aaaaaaaaaaaa | knn_imagenet_wu v1, top1 on data y"
    assert head == f"| recipe | {knn_heads} | linear_imagenet_pirl v1, top1 |"
    assert lines == ["| `npid` | 5.0 (1) | – | – |", "| `pirl` | – | 6.0 (1) | 21.0 ± 1.4 (2) |"]


@pytest.mark.parametrize("status", ["", "Name:\tpython\n", "VmHWM:\tmuch\n", "VmHWM:\t2000000 kB\n"])
def test_the_peak_is_known_where_the_system_tells_less(status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A number at the end of hours of work must not lose them."""
    (tmp_path / "status").write_text(status)
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    assert (memory.peak_gb() == 2.048) == ("2000000" in status)
    assert 0.01 < memory.peak_gb() < 1000
