"""The plan's figures against arithmetic done by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmark.catalog import find_recipes, get_recipe
from benchmark.errors import UserError
from benchmark.overrides import override
from benchmark.plan import Gpu, plan

GPU = Gpu(tflops=100, utilisation=0.5)


def lines(text: str) -> dict[str, str]:
    return {line.split("  ")[0]: line for line in text.splitlines()}


@pytest.fixture(scope="module")
def pirl() -> dict[str, str]:
    return lines(plan(get_recipe("pirl"), "paper", 32, None, None, GPU))


def number(line: str) -> float:
    return float(re.findall(r"\s{2,}([\d.,e+]+)", line)[0].replace(",", ""))


def test_length_and_rates_of_the_hardest_recipe(pirl: dict[str, str]):
    assert number(pirl["images"]) == 1_281_167
    assert number(pirl["steps per epoch"]) == 1_281_167 // 1024
    assert number(pirl["steps"]) == 800 * 1251
    assert number(pirl["lr of main at step 0"]) == 0.12
    assert number(pirl["lr of main at step 1,000,799"]) == pytest.approx(1.2e-4)


def test_every_setting_stands_there_with_its_flag():
    text = plan(get_recipe("pirl"), "paper", 32, None, None, GPU)
    for flag, value in {"method.tau": "0.07", "method.lambda_": "0.5", "optimizers.main.momentum": "0.9"}.items():
        line = rf"^{flag.split('.')[-1]} +{re.escape(value)}  --recipe\.{re.escape(flag)}$"
        assert re.search(line, text, re.MULTILINE), flag


def test_bank_and_cost_of_the_hardest_recipe(pirl: dict[str, str]):
    assert "1,281,167 x 128 x 4 bytes" in pirl["buffer bank.rows"]
    assert "656 MB" in pirl["buffer bank.rows"]
    # an image of 224 px, and nine patches of 64 px: 81 / 784 of its 7 x 7 last maps each, but for the rounding of sizes
    forward_flops = 2 * 4.089e9 * (1 + 9 * (64 / 224) ** 2)
    assert number(pirl["FLOPs per step"]) == pytest.approx(3 * forward_flops * 1024, rel=0.05)
    hours = number(pirl["FLOPs per step"]) * 1_000_800 / (100e12 * 0.5) / 3600
    assert number(pirl["GPU-hours, estimate"]) == pytest.approx(hours, abs=1)


def test_a_step_of_plain_classification_costs_three_forward_passes():
    text = lines(plan(get_recipe("supervised"), "paper", 8, None, None, GPU))
    assert number(text["FLOPs per step"]) == pytest.approx(3 * 2 * 4.089e9 * 256, rel=0.02)
    assert "warm-up ends" in text["lr of main at step 25,020"]
    drops = [number(text[f"lr of main at step {epoch * 5004:,}"]) for epoch in (30, 60, 80)]
    assert drops == pytest.approx([0.01, 0.001, 0.0001])


def test_a_bank_for_a_hundred_million_images_is_planned_without_memory():
    recipe = override(get_recipe("pirl"), [("method.sharded_bank", "true"), ("method.N", "64")], "paper")
    text = plan(recipe, "paper", 1024, 95_920_149, None, GPU)
    assert "49.11 GB  95,920,149 x 128 x 4 bytes" in text
    assert "6.139 GB over 8 processes, 1.535 GB over 32 processes; sharded here" in text


@pytest.mark.parametrize("name", sorted(find_recipes()))
def test_every_recipe_has_a_plan(name: str):
    recipe = get_recipe(name)
    text = plan(recipe, "smoke", 4, 64, None, GPU)
    assert "unknown" not in text
    for change in recipe.desk:
        assert re.search(rf"^{re.escape(change.key)} .*{re.escape(change.why)}$", text, re.MULTILINE), change


def test_what_cannot_be_planned_is_said():
    with pytest.raises(UserError, match="cannot be divided over 7"):
        plan(get_recipe("pirl"), "paper", 7, None, None, GPU)
    with pytest.raises(UserError, match="--data must name the folder"):
        plan(get_recipe("pirl"), "paper", 1, None, Path("nowhere"), GPU)
