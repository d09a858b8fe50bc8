"""The plan's figures against arithmetic done by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmark.core.errors import UserError
from benchmark.recipe.catalogue import find_recipes, get_recipe
from benchmark.recipe.contract import Recipe
from benchmark.recipe.overrides import override
from benchmark.recipe.scales import SCALES, Scale, at_scale
from benchmark.runs.plan import Gpu, plan_text, usual_processes

GPU = Gpu(tflops=100, utilisation=0.5)


def lines(text: str) -> dict[str, str]:
    return {line.split("  ")[0]: line for line in text.splitlines()}


@pytest.fixture(scope="module")
def pirl() -> dict[str, str]:
    return lines(plan_text(get_recipe("pirl"), "paper", 32, None, None, GPU))


def number(line: str) -> float:
    return float(re.findall(r"\s{2,}([\d.,e+]+)", line)[0].replace(",", ""))


def test_length_and_rates_of_the_hardest_recipe(pirl: dict[str, str]):
    assert number(pirl["images"]) == 1_281_167
    assert number(pirl["steps per epoch"]) == 1_281_167 // 1024
    assert number(pirl["steps"]) == 800 * 1251
    assert number(pirl["lr of main at step 0"]) == 0.12
    assert number(pirl["lr of main at step 1,000,799"]) == pytest.approx(1.2e-4)


def test_bank_and_cost_of_the_hardest_recipe(pirl: dict[str, str]):
    assert "1,281,167 x 128 x 4 bytes" in pirl["buffer bank.rows"]
    assert "656 MB" in pirl["buffer bank.rows"]
    # an image of 224 px, and nine patches of 64 px: 81 / 784 of its 7 x 7 last maps each, but for the rounding of sizes
    forward_flops = 2 * 4.089e9 * (1 + 9 * (64 / 224) ** 2)
    assert number(pirl["FLOPs per step"]) == pytest.approx(3 * forward_flops * 1024, rel=0.05)
    hours = number(pirl["FLOPs per step"]) * 1_000_800 / (100e12 * 0.5) / 3600
    assert number(pirl["GPU-hours, estimate"]) == pytest.approx(hours, abs=1)


def test_a_step_of_plain_classification_costs_three_forward_passes():
    text = lines(plan_text(get_recipe("supervised"), "paper", 8, None, None, GPU))
    assert number(text["FLOPs per step"]) == pytest.approx(3 * 2 * 4.089e9 * 256, rel=0.02)
    assert "warm-up ends" in text["lr of main at step 25,020"]
    drops = [number(text[f"lr of main at step {epoch * 5004:,}"]) for epoch in (30, 60, 80)]
    assert drops == pytest.approx([0.01, 0.001, 0.0001])


def test_the_doubled_network_has_the_published_parameters():
    text = lines(plan_text(get_recipe("pirl_c2x"), "paper", 32, None, None, GPU))
    with_classifier = number(text["parameters, backbone"]) + (4096 + 1) * 1000
    assert round(with_classifier / 1e6) == 98


def test_what_is_clustered_between_epochs_is_told():
    text = lines(plan_text(get_recipe("deepcluster"), "paper", 1, None, None, GPU))
    kmeans, whitening = text["k-means, FLOPs each time"], text["whitening, FLOPs each time"]
    assert number(kmeans) == pytest.approx(2 * 1_281_167 * 256 * 10_000 * 21, rel=1e-3)
    assert "at the start of each epoch, by process 0 alone, with 1.322 GB" in kmeans  # (1,281,167 + 10,000) x 256 x 4
    assert "0.77 thread-hours" in kmeans
    assert number(whitening) == pytest.approx(2 * 1_281_167 * (4096 * 4096 + 4096 * 256), rel=1e-3)
    assert "22.3 GB" in whitening  # 1,281,167 x (4,096 + 256) x 4
    student = lines(plan_text(get_recipe("cc_jigsaw_pp"), "paper", 1, None, None, GPU))
    assert number(student["k-means, FLOPs each time"]) == pytest.approx(2 * 1_281_167 * 6144 * 2000 * 21, rel=1e-3)
    assert "before the first step" in student["k-means, FLOPs each time"]


def test_each_of_several_clusterings_has_a_line():
    found = re.findall(r"k-means, FLOPs each time +(\S+)", plan_text(get_recipe("pcl"), "paper", 1, None, None, GPU))
    by_hand = [2 * 1_281_167 * 128 * k * 21 * 5 for k in (25_000, 50_000, 100_000)]
    assert [float(one) for one in found] == pytest.approx(by_hand, rel=1e-3)


def test_a_bank_for_a_hundred_million_images_is_planned_without_memory():
    recipe = override(get_recipe("pirl"), [("method.sharded_bank", "true"), ("method.N", "64")], "paper")
    text = plan_text(recipe, "paper", 32, 95_920_149, None, GPU)
    assert "49.11 GB  95,920,149 x 128 x 4 bytes" in text
    assert "6.139 GB over 8 processes, 1.535 GB over 32 processes; sharded here" in text


def settings_of(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """(flag, value) of every setting of the method, its input's size, the backbone and the optimizers."""
    for key, value in leaves(recipe):
        if key.startswith(("method.", "backbone.", "optimizers.")) or key == "input.size":
            yield key, value


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Fields that came later too, which the recipe as plain data leaves out where they change nothing."""
    if is_dataclass(value):
        inner = {f.name: getattr(value, f.name) for f in fields(value)}
    elif isinstance(value, Mapping):
        inner = dict(value)
    else:
        yield key, value
        return
    for name, one in inner.items():
        yield from leaves(one, f"{key}.{name}".removeprefix("."))


def as_text(value: Any) -> str:
    return f"({', '.join(map(as_text, value))})" if isinstance(value, tuple) else str(value)


def settings_in(text: str) -> dict[str, str]:
    """Flag -> value, of every line of a plan that ends in a flag; each tells the setting's own name too."""
    found = re.findall(r"^(\w+) +(\S.*?)  --recipe\.(\S+)$", text, re.MULTILINE)
    assert all(name == key.split(".")[-1] for name, _, key in found)
    assert len({key for *_, key in found}) == len(found)
    return {key: value for _, value, key in found}


@pytest.mark.parametrize("name", sorted(find_recipes()))
def test_every_recipe_has_a_plan(name: str):
    recipe = get_recipe(name)
    text = plan_text(recipe, "smoke", 2, 64, None, GPU)
    assert "unknown" not in text
    planned, found = at_scale(recipe, "smoke"), settings_in(text)
    assert found.pop("input.colour").startswith(f"{type(planned.input.colour).__name__}(")
    assert found == {key: as_text(value) for key, value in settings_of(planned)}
    for change in {change.key: change for change in recipe.desk}.values():  # a later change of a setting counts
        assert re.search(rf"^{re.escape(change.key)} .*{re.escape(change.why)}$", text, re.MULTILINE), change


def test_a_recipe_after_one_of_ones_own_has_a_plan(tmp_path: Path):
    text = "from dataclasses import replace\nfrom recipes.rotation import rotation\n\nbefore = rotation\n"
    (tmp_path / "mine.py").write_text(text + 'mine = replace(rotation, after={"earlier": "before"})\n')
    planned = plan_text(get_recipe("mine", tmp_path), "smoke", 4, 64, None, GPU, tmp_path)
    assert "FLOPs per step" in planned


def test_a_plan_says_on_how_many_processes_and_whether_that_matters():
    by_process = plan_text(get_recipe("dim_local"), "paper", 1, None, None, GPU)
    assert re.search(r"^processes +1  set with --processes", by_process, re.MULTILINE)
    assert re.search(r"^on n processes +another run  BatchNorm", by_process, re.MULTILINE)
    assert re.search(r"64 images x 1 process(\s|$)", by_process)
    over_all = override(get_recipe("dim_local"), [("backbone.over", "all")], "paper")
    text = plan_text(over_all, "paper", 8, None, None, GPU)
    assert re.search(r"^on n processes +the same run", text, re.MULTILINE)
    assert "8 images x 8 processes" in text


@pytest.mark.parametrize("scale", SCALES)
def test_every_batch_and_its_groups_can_be_shared_by_as_many_processes_as_a_plan_takes(scale: Scale):
    for name, recipe in find_recipes().items():
        changed, processes = at_scale(recipe, scale), usual_processes(recipe, scale)
        over = getattr(changed.backbone, "over", None)
        for pool in changed.pools:
            share, rest = divmod(changed.batch_of(pool), processes)
            assert rest == 0, name
            assert not isinstance(over, int) or share % over == 0, name
    assert usual_processes(get_recipe("moco"), scale) == (8 if scale == "paper" else 1)


@pytest.mark.parametrize(("batch_size", "processes"), [("256", 8), ("128", 1), ("36", 1)])
def test_a_plan_is_of_one_process_where_eight_cannot_share_the_batch(batch_size: str, processes: int):
    changed = override(get_recipe("moco"), [("batch_size", batch_size), ("backbone.over", "32")], "paper")
    assert usual_processes(changed, "paper") == processes


def test_deep_infomaxs_plan_says_where_its_epochs_come_from_and_what_is_not_counted():
    text = plan_text(get_recipe("dim_local"), "paper", 8, None, None, GPU)
    assert "200 epochs as in Deep InfoMax's released command for STL-10" in text.splitlines()[0]
    assert re.search(r"^transfers +not counted .*such as a probe", text, re.MULTILINE)
    small = plan_text(get_recipe("dim_local"), "photos", 8, 100_000, None, GPU)
    assert settings_in(small)["method.units"] == "512"
    assert settings_in(small)["method.prior_units"] == "(250, 50)"


def test_what_cannot_be_planned_is_said():
    with pytest.raises(UserError, match="cannot be divided over 7"):
        plan_text(get_recipe("pirl"), "paper", 7, None, None, GPU)
    with pytest.raises(UserError, match="--data must name the folder"):
        plan_text(get_recipe("pirl"), "paper", 1, None, Path("nowhere"), GPU)
